"""A model's key/value cache: start it from prompts, extend it token by token.

    state, logits = start(model, params, {"encoder_input_tokens": tokens}, 32)
    state, logits = step(model, params, state, jnp.argmax(logits, -1))

Prompts of different lengths share a batch: they are padded on the right, new tokens go
to the slots after the longest, and each row's mask and positions leave its padding out.
All functions are pure; jit them as a whole (`flanjax.decode.sample` does).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from flanjax.models import t5
from flanjax.models.layers import unstack_layers

Params = Mapping[str, Any]


@flax.struct.dataclass
class DecodeState:
    """Everything a step needs besides parameters.

    Attributes:
      cache: keys and values of every decoder layer: one pytree with a leading layer
        axis when the model's layers are scanned, else a tuple of them.
      index: slot that the next token goes to.
      positions: int [batch], position of the next token in its row's text.
      visible: bool [batch, slots], slots that hold a token.
      cross_mask: bool [batch, 1, 1, inputs] for encoder-decoder models, else None.
    """

    cache: Any
    index: jax.Array
    positions: jax.Array
    visible: jax.Array
    cross_mask: jax.Array | None = None


def start(
    model: Any,
    params: Params,
    prompts: Mapping[str, jax.Array],
    max_decode_tokens: int,
) -> tuple[DecodeState, jax.Array]:
    """Runs the prompts through the model in one forward pass.

    Args:
      model: from `build_model`.
      params: its parameters.
      prompts: encoder-decoder: `encoder_input_tokens` int [batch, inputs], 0 is
        padding. decoder: `decoder_input_tokens` int [batch, length] and `lengths` int
        [batch]; what stands after a row's length is ignored.
      max_decode_tokens: room for that many new tokens in each row.

    Returns:
      State, and float32 logits [batch, vocab] of the first new token.
    """
    if model.kind == "encoder_decoder":
        return _start_encoder_decoder(model, params, prompts, max_decode_tokens)
    tokens, lengths = prompts["decoder_input_tokens"], prompts["lengths"]
    batch, length = tokens.shape
    config = model.config
    slots = jnp.arange(length)
    visible = slots < lengths[:, None]
    mask = slots <= slots[:, None]
    mask = mask[None] | visible[:, None, :] if config.prefix_lm else mask[None]
    hidden, cache = model.apply(
        {"params": params},
        tokens,
        jnp.broadcast_to(slots, tokens.shape),
        jnp.broadcast_to(mask[:, None], (batch, 1, length, length)),
        jnp.int32(0),
        _empty_cache(config, config.num_layers, batch, length),
        method="extend",
    )
    # Room is added afterwards: in the prompt's own pass it would cost time for nothing.
    room = (0, max_decode_tokens)
    visible = jnp.pad(visible, ((0, 0), room))
    cache = jax.tree.map(
        lambda x: jnp.pad(x, ((0, 0),) * (x.ndim - 2) + (room, (0, 0))), cache
    )
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
    state = DecodeState(cache, jnp.int32(length), lengths, visible)
    return state, model.apply({"params": params}, last, method="logits")


def step(
    model: Any, params: Params, state: DecodeState, tokens: jax.Array
) -> tuple[DecodeState, jax.Array]:
    """Adds one token to each row.

    Args:
      model: from `build_model`.
      params: its parameters.
      state: from `start`, `step` or `extend`.
      tokens: int [batch].

    Returns:
      Next state, and float32 logits [batch, vocab] of the token after.
    """
    state, hidden = extend(model, params, state, tokens[:, None])
    return state, model.apply({"params": params}, hidden[:, 0], method="logits")


def extend(
    model: Any, params: Params, state: DecodeState, tokens: jax.Array
) -> tuple[DecodeState, jax.Array]:
    """Adds the same number of known tokens to each row, in one pass.

    Args:
      model: from `build_model`.
      params: its parameters.
      state: from `start`, `step` or `extend`, with room for the tokens.
      tokens: int [batch, new].

    Returns:
      Next state, and hidden states [batch, new, embed]; `model.logits` of one is what
      comes after its token.
    """
    new = state.index + jnp.arange(tokens.shape[1])
    slots = jnp.arange(state.visible.shape[1])
    among_new = (slots >= state.index) & (slots <= new[:, None])
    mask = (state.visible[:, None] | among_new)[:, None]
    if model.kind == "encoder_decoder":
        shared = t5.Shared(mask, cross_mask=state.cross_mask, index=state.index)
        arguments = (tokens, shared, state.cache)
    else:
        positions = state.positions[:, None] + jnp.arange(tokens.shape[1])
        arguments = (tokens, positions, mask, state.index, state.cache)
    hidden, cache = model.apply({"params": params}, *arguments, method="extend")
    state = dataclasses.replace(
        state,
        cache=cache,
        index=state.index + tokens.shape[1],
        positions=state.positions + tokens.shape[1],
        visible=mask[:, 0, -1],
    )
    return state, hidden


def repeat_rows(state: DecodeState, count: int) -> DecodeState:
    """Puts `count` copies of each row one behind the other."""
    repeat = lambda x, axis=0: jnp.repeat(x, count, axis)  # noqa: E731
    return dataclasses.replace(
        state,
        cache=jax.tree.map(lambda x: repeat(x, _rows_axis(state.cache)), state.cache),
        positions=repeat(state.positions),
        visible=repeat(state.visible),
        cross_mask=None if state.cross_mask is None else repeat(state.cross_mask),
    )


def take_rows(state: DecodeState, rows: jax.Array) -> DecodeState:
    """Gives each row the text of another, for beams that change places.

    Args:
      state: of a scanned or of an unstacked model.
      rows: int [batch], for each row the one it goes on from, which must have the same
        prompt and as many tokens: only keys and values of new tokens are moved.
    """

    def take(layer: Any) -> Any:
        if "cross" in layer:
            return layer | {"self": take(layer["self"])}
        axis = _rows_axis(state.cache)
        return jax.tree.map(lambda x: jnp.take(x, rows, axis), layer)

    if isinstance(state.cache, tuple):
        moved: Any = tuple(map(take, state.cache))
    else:
        moved = take(state.cache)
    return dataclasses.replace(state, cache=moved)


def _rows_axis(cache: Any) -> int:
    return 0 if isinstance(cache, tuple) else 1


def unstacked_model(model: Any) -> Any:
    """The same model with its layers written out, for `unstack_layers(params)`.

    A loop of steps over stacked layers copies each layer's weights out of the stack
    again for every token; over separate layers it only reads them.
    """
    config = dataclasses.replace(model.config, scan_layers=False)
    return model.clone(config=config)


def unstack_state(state: DecodeState) -> DecodeState:
    """Makes the state of a scanned model one of its unstacked model."""
    layers = jax.tree.leaves(state.cache)[0].shape[0]
    cut = unstack_layers({"layers": state.cache})
    return dataclasses.replace(
        state, cache=tuple(cut[f"layers_{i}"] for i in range(layers))
    )


def _start_encoder_decoder(model, params, prompts, max_decode_tokens):
    config = model.config
    inputs = prompts["encoder_input_tokens"]
    batch, slots = inputs.shape[0], max_decode_tokens + 1
    encoded = model.apply(
        {"params": params}, {"encoder_input_tokens": inputs}, method="encode"
    )
    cross_mask = (inputs > 0)[:, None, None, :]
    visible = jnp.broadcast_to(jnp.arange(slots) == 0, (batch, slots))
    shared = t5.Shared(
        visible[:, None, None, :],
        encoded=encoded,
        cross_mask=cross_mask,
        index=jnp.int32(0),
    )
    layers = config.num_decoder_layers
    own = _empty_cache(config, layers, batch, slots)
    # An empty cache of the encoder's side: the first call fills it from `encoded`.
    if config.scan_layers:
        cache = {"self": own, "cross": {}}
    else:
        cache = tuple({"self": layer, "cross": {}} for layer in own)
    tokens = jnp.zeros((batch, 1), jnp.int32)
    hidden, cache = model.apply(
        {"params": params}, tokens, shared, cache, method="extend"
    )
    positions = jnp.ones(batch, jnp.int32)
    state = DecodeState(cache, jnp.int32(1), positions, visible, cross_mask)
    return state, model.apply({"params": params}, hidden[:, 0], method="logits")


def _empty_cache(config, layers, batch, slots):
    shape = (batch, config.num_kv_heads, slots, config.head_dim)
    if config.scan_layers:
        empty = jnp.zeros((layers, *shape), config.dtype)
        return {"key": empty, "value": empty}
    empty = jnp.zeros(shape, config.dtype)
    return tuple({"key": empty, "value": empty} for _ in range(layers))
