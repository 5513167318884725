"""Builds a model from its configuration, and its parameters from a random key.

model = build_model(T5Config(...))
params, axes = init_params(model, jax.random.key(0))
params["encoder"]["layers"]["mlp"]["wo"]["kernel"].shape   # (layers, mlp, embed)
axes["encoder"]["layers"]["mlp"]["wo"]["kernel"]           # ("layers", "mlp", ...)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flanjax.models.decoder import Decoder, DecoderConfig
from flanjax.models.t5 import T5, T5Config

Tree = dict[str, Any]


def build_model(config: T5Config | DecoderConfig) -> T5 | Decoder:
    """Returns the module of this configuration (attributes `config` and `kind`)."""
    return T5(config) if isinstance(config, T5Config) else Decoder(config)


def init_params(model: T5 | Decoder, rng: jax.Array) -> tuple[Tree, Tree]:
    """Draws parameters.

    Args:
      model: from `build_model`.
      rng: random key.

    Returns:
      Nested dict of float32 arrays, and one of the same structure with a tuple of
      logical axis names for each.
    """
    boxed = jax.jit(lambda key: _init(model, key))(rng)
    return _plain(nn.meta.unbox(boxed)), _axes(boxed)


def abstract_params(model: Any) -> tuple[Tree, Tree]:
    """As `init_params` with shapes in place of arrays; computes nothing."""
    boxed = _traced(model)
    return _plain(nn.meta.unbox(boxed)), _axes(boxed)


@functools.lru_cache(maxsize=16)
def _traced(model):
    # Half a second for a model of any size, and many parts of a set-up ask.
    return jax.eval_shape(lambda: _init(model, jax.random.key(0)))


def _init(model, key):
    tokens = jnp.ones((1, 2), jnp.int32)
    names = ["decoder_input_tokens", "decoder_target_tokens"]
    if model.kind == "encoder_decoder":
        names.append("encoder_input_tokens")
    else:
        names.append("decoder_causal_attention")
    return model.init(key, dict.fromkeys(names, tokens))["params"]


def _axes(boxed) -> Tree:
    is_box = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)  # noqa: E731
    return _plain(jax.tree.map(lambda box: box.names, boxed, is_leaf=is_box))


def _plain(tree) -> Tree:
    if not isinstance(tree, dict):
        return tree
    return {name: _plain(value) for name, value in tree.items()}
