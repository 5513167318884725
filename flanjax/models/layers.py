"""Layers shared by both model families: dense, norm, embedding, feed-forward, stack.

    y = Dense(features=1536, axes=("embed", "mlp"), config=config, name="wi_0")(x)

`config` is a T5Config or a DecoderConfig: a layer reads `dtype` (of activations),
`dropout_rate` and `lora` from it. Parameters are float32 and carry logical axis names;
norms are computed in float32 whatever the activations are.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from flanjax.errors import ConfigError, nearest
from flanjax.models.attention_choice import IMPLEMENTATIONS
from flanjax.models.partitioning import Gathering, at_use, constrain, gathering

Initializer = Callable[..., jax.Array]

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": nn.gelu,  # The tanh approximation, as in T5X.
    "relu": nn.relu,
    "silu": nn.silu,
    "linear": lambda x: x,
}

_keep = jax.checkpoint_policies.save_only_these_names
_QKV = ("query", "key", "value")

# What the backward pass keeps from the forward pass, most to least; it computes the
# rest again. Names are those of T5X and MaxText, and of the `Dense` modules.
REMAT_POLICIES = {
    "none": None,
    "minimal": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "save_dot_except_mlpwi": _keep(*_QKV, "out", "wo"),
    "save_dot_except_mlp": _keep(*_QKV, "out"),
    "save_qkv_proj": _keep(*_QKV),
    "full": jax.checkpoint_policies.nothing_saveable,
}

# How [batch, length, embed] lies: as parts of the embedding table give it, between
# blocks, and where a block computes with it.
LOOKUP = ("copy_batch", "length", "embed")
STREAM = ("batch", "stream_length", "activation_embed")
BLOCK = ("batch", "length", "activation_embed")


def to_stream(x: jax.Array) -> jax.Array:
    """Lays a block's result out for the stream between blocks.

    Said of the block's layout first, so that backwards one exchange serves all that
    the gradient is used for.
    """
    return constrain(constrain(x, BLOCK), STREAM)


FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def at_least_float32(dtype: Any) -> Any:
    """Returns what norms, softmax and logits are computed in: float32, or float64.

    float64 is for checking numbers (JAX's x64 mode): a deep random model can turn the
    rounding of float32 into differences of 2e-4 in its logits.
    """
    return jnp.promote_types(dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(
    x: jax.Array, kernel: jax.Array, found: Gathering | None = None
) -> jax.Array:
    """Maps [..., in] by [in, out] to [..., out].

    The kernel's gradient is made so that the narrower operand is the one transposed:
    XLA on CPUs does that with a slow copy, and JAX's own rule always picks the
    gradient, which is the wide one in a low-rank product and where a block widens.

    A kernel that is gathered for use (`found`) is gathered again in the backward pass:
    kept, the gathered kernels would be the whole model on every device.
    """
    return jnp.matmul(x, found.gather(kernel) if found else kernel)


def _matmul_forward(x, kernel, found):
    return matmul(x, kernel, found), (x, kernel)


def _matmul_backward(found, residuals, gradient):
    x, kernel = residuals
    shape, copies = x.shape, ()
    whole = found.gather_again(kernel) if found else kernel
    if found:
        copies = (0,)
        x, gradient = (y.reshape(found.copies, -1, *y.shape[1:]) for y in (x, gradient))
    widens = kernel.shape[0] <= kernel.shape[1]
    a, b = (x, gradient) if widens else (gradient, x)
    rows = tuple(range(len(copies), a.ndim - 1))
    summed = jax.lax.dot_general(a, b, ((rows, rows), (copies, copies)))
    summed = summed if widens else summed.swapaxes(-1, -2)
    x_gradient = jnp.matmul(gradient, whole.T).reshape(shape)
    return x_gradient, found.add_up(summed) if found else summed


matmul.defvjp(_matmul_forward, _matmul_backward)


def parameter(
    module: nn.Module,
    name: str,
    init: Initializer,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> jax.Array:
    """Declares a float32 parameter of `module` with logical axis names."""
    boxed = module.param(
        name, nn.with_logical_partitioning(init, axes), shape, jnp.float32
    )
    return cast(jax.Array, boxed)  # `param` takes the value out of its box.


class Dense(nn.Module):
    """y = x W + b, plus the low-rank term where the configuration asks for one.

    Attributes:
      features: size of the last axis of the result.
      axes: logical names of the kernel's two axes.
      config: model configuration.
      kernel_init: initializer of the kernel.
      dtype: overrides the dtype of activations.
      use_bias: adds b; otherwise there is none.
    """

    features: int
    axes: tuple[str, str]
    config: Any
    kernel_init: Initializer = FAN_IN
    dtype: Any = None
    use_bias: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., features]."""
        dtype = self.dtype or self.config.dtype
        inputs = inputs.astype(dtype)

        def weight(name, init, shape, axes):
            return parameter(self, name, init, shape, axes).astype(dtype)

        def product(x, kernel, axes):
            # Unrolled, forward and backward passes may stand in one computation.
            in_loop = self.config.scan_layers and self.config.scan_unroll == 1
            found = gathering(axes, kernel.shape, in_loop)
            return matmul(x, kernel, found)

        width = inputs.shape[-1]
        kernel = weight("kernel", self.kernel_init, (width, self.features), self.axes)
        outputs = product(inputs, kernel, self.axes)
        if self.use_bias:
            zeros, shape = nn.initializers.zeros, (self.features,)
            outputs += at_use(
                weight("bias", zeros, shape, self.axes[1:]), self.axes[1:]
            )
        lora = self.config.lora
        if lora.applies_to(self.path):
            a_shape, b_shape = (width, lora.rank), (lora.rank, self.features)
            a_axes, b_axes = (self.axes[0], "lora_rank"), ("lora_rank", self.axes[1])
            a = weight("lora_a", FAN_IN, a_shape, a_axes)
            b = weight("lora_b", nn.initializers.zeros, b_shape, b_axes)
            # Dropout has a key in training steps alone, so evaluation drops nothing.
            keep_all = not self.has_rng("dropout")
            adapted = nn.Dropout(lora.dropout, deterministic=keep_all)(inputs)
            outputs += product(product(adapted, a, a_axes), b * lora.scale, b_axes)
        return checkpoint_name(outputs, str(self.name))


class RMSNorm(nn.Module):
    """Divides by the root mean square over the last axis; no centring, no bias."""

    config: Any

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [..., embed] to [..., embed]."""
        ones, shape = nn.initializers.ones, (inputs.shape[-1],)
        scale = at_use(parameter(self, "scale", ones, shape, ("embed",)), ("embed",))
        x = inputs.astype(at_least_float32(inputs.dtype))
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(mean_square + self.config.norm_epsilon)
        return (x * scale).astype(self.config.dtype)


class Embed(nn.Module):
    """Token embedding; `attend` uses the same table as output head."""

    config: Any
    embedding_init: Initializer

    def setup(self):
        """Creates the table [vocab, embed]."""
        shape = (self.config.vocab_size, self.config.emb_dim)
        init, axes = self.embedding_init, ("vocab", "embed")
        self.embedding = parameter(self, "embedding", init, shape, axes)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps token ids [...] to vectors [..., embed]."""
        # Each device looks up what its part of the table has, for more rows than its
        # own, and rows are exchanged after: else the whole table would be gathered.
        tokens = constrain(tokens, LOOKUP[:2])
        embedded = jnp.take(self.embedding, tokens, axis=0).astype(self.config.dtype)
        return to_stream(constrain(embedded, LOOKUP))

    def attend(self, hidden: jax.Array) -> jax.Array:
        """Maps [..., embed] to float32 logits [..., vocab]."""
        table = at_use(self.embedding.astype(self.config.dtype), ("vocab", "embed"))
        return jnp.einsum(
            "...d,vd->...v",
            hidden,
            table,
            preferred_element_type=at_least_float32(table.dtype),
        )


class Mlp(nn.Module):
    """Feed-forward block; several activations make a gated one (their product)."""

    config: Any
    deterministic: bool
    kernel_init: Initializer = FAN_IN

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [batch, length, embed] to the same shape."""
        names = self.config.mlp_activations
        inputs, branches = constrain(inputs, BLOCK), []
        for i, activation in enumerate(names):
            name = "wi" if len(names) == 1 else f"wi_{i}"
            branch = Dense(
                self.config.mlp_dim,
                ("embed", "mlp"),
                self.config,
                self.kernel_init,
                name=name,
            )(inputs)
            branches.append(ACTIVATIONS[activation](branch))
        product = functools.reduce(jnp.multiply, branches)
        x = constrain(product, ("batch", "length", "activation_mlp"))
        x = dropout(self.config, self.deterministic)(x)
        width = inputs.shape[-1]
        axes = ("mlp", "embed")
        x = Dense(width, axes, self.config, self.kernel_init, name="wo")(x)
        return to_stream(x)


def dropout(config: Any, deterministic: bool) -> nn.Dropout:
    """T5X's dropout: one mask for all positions of a row."""
    return nn.Dropout(
        config.dropout_rate, broadcast_dims=(-2,), deterministic=deterministic
    )


def apply_layers(
    layer_class: type[nn.Module],
    config: Any,
    num_layers: int,
    deterministic: bool,
    x: jax.Array,
    shared: Any,
    cache: Any = None,
) -> tuple[jax.Array, Any]:
    """Runs `num_layers` equal layers, scanned or one by one; call it in nn.compact.

    Args:
      layer_class: module of signature (config, deterministic)(x, shared, cache) ->
        (x, cache).
      config: gives `scan_layers` and `remat_policy`.
      num_layers: how many.
      deterministic: no dropout.
      x: activations [batch, length, embed].
      shared: pytree every layer gets unchanged.
      cache: per-layer state: a pytree with a leading layer axis when scanned, else a
        tuple with one pytree for each layer; None for none.

    Returns:
      Activations, and the layers' new cache in the form it was given in.
    """
    if config.remat_policy != "none":
        layer_class = nn.remat(
            layer_class,
            policy=REMAT_POLICIES[config.remat_policy],
            prevent_cse=not config.scan_layers,
        )
    if not config.scan_layers:
        new_cache = []
        for i in range(num_layers):
            layer = layer_class(config, deterministic, name=f"layers_{i}")
            x, layer_cache = layer(x, shared, cache[i] if cache else None)
            new_cache.append(layer_cache)
        return x, tuple(new_cache)
    scanned = nn.scan(
        layer_class,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        # Flax takes one entry for each argument; its annotation says int.
        in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
        length=num_layers,
        unroll=min(config.scan_unroll, num_layers),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(config, deterministic, name="layers")(x, shared, cache)


def check_common(config: Any) -> None:
    """Checks the fields both families' configurations have.

    Raises:
      ConfigError: naming the field and the values it may have.
    """
    choices = [
        ("remat_policy", (config.remat_policy,), REMAT_POLICIES),
        ("mlp_activations", config.mlp_activations, ACTIVATIONS),
        ("attention", (config.attention,), IMPLEMENTATIONS),
        ("dtype", (config.dtype,), ("float32", "bfloat16", "float64")),
    ]
    for field, values, known in choices:
        for value in values:
            if value not in known:
                raise ConfigError(
                    f"{field} is '{value}'.{nearest(str(value), known)}",
                    where=f"{type(config).__name__}.{field}",
                    fix=f"one of {', '.join(known)}",
                )
    buckets, distance = config.relpos_buckets, config.relpos_max_distance
    if not 4 <= buckets < 2 * distance:
        raise ConfigError(
            f"{buckets} distance buckets do not cover distances up to {distance}",
            where=f"{type(config).__name__}.relpos_buckets",
            fix="give 4 or more buckets, and a relpos_max_distance above half of them",
        )
    if config.scan_unroll < 1:
        raise ConfigError(
            f"scan_unroll is {config.scan_unroll}",
            where=f"{type(config).__name__}.scan_unroll",
            fix="give the number of layers compiled into one turn, 1 or more",
        )
    if not 0.0 <= config.dropout_rate < 1.0:
        raise ConfigError(
            f"dropout_rate is {config.dropout_rate}",
            where=f"{type(config).__name__}.dropout_rate",
            fix="give a number from 0 to below 1",
        )


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces every `layers` subtree by `layers_0`, `layers_1`, ..."""
    result: dict[str, Any] = {}
    for name, value in params.items():
        if name == "layers":
            for i in range(jax.tree.leaves(value)[0].shape[0]):
                result[f"layers_{i}"] = jax.tree.map(lambda x, i=i: x[i], value)
        else:
            result[name] = (
                unstack_layers(value) if isinstance(value, Mapping) else value
            )
    return result


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces `layers_0`, `layers_1`, ... by one `layers` subtree (axis 0)."""
    numbered = [name for name in params if name.startswith("layers_")]
    result = {
        name: stack_layers(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if name not in numbered
    }
    if numbered:
        trees: Sequence[Any] = [params[f"layers_{i}"] for i in range(len(numbered))]
        result["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return result
