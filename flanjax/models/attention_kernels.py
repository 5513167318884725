"""Attention by the kernels that come with JAX: splash and flash for TPU, cuDNN for GPU.

    mixed = splash_attention(query, key, value, packing)

Queries are [batch, q, heads, head_dim], already scaled; keys and values [batch,
kv_heads, k, head_dim], where consecutive query heads share a key head; results are as
queries. Queries of padding (segment 0) get some finite value: nothing reads it.
Importing Pallas takes a second, so only these functions do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flanjax.models.attention_choice import LANES, Packing
from flanjax.models.partitioning import on_shards, parts

_QUERY = ("batch", None, "activation_heads", None)
_KEY = ("batch", "activation_heads", None, None)
_SEGMENTS = ("batch", None)


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    packing: Packing,
) -> jax.Array:
    """Causal self-attention, within a window if the packing has one."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    sizes = dict.fromkeys(("block_q_dkv", "block_q_dq", "block_q"), _block(query, 1))
    names = ("block_kv", "block_kv_compute", "block_kv_dkv", "block_kv_dkv_compute")
    sizes |= dict.fromkeys((*names, "block_kv_dq"), _block(key, 2))

    def part(query, key, value, query_segments, key_segments):
        shape = (query.shape[1], key.shape[2])
        mask: splash.Mask = splash.CausalMask(shape)
        if packing.window is not None:
            mask = splash.LocalMask(shape, (packing.window - 1, 0), 0)
        kernel = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask] * query.shape[2]),
            block_sizes=splash.BlockSizes(**sizes),
        )
        segments = splash.SegmentIds(query_segments, key_segments)
        return jax.vmap(kernel)(query.swapaxes(1, 2), key, value, segments)

    return _on_shards(part, query, key, value, packing, None)


def flash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    packing: Packing,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Attention with segments and a bias [heads, q, k] that all rows share."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    rows, keys = _block(query, 1), _block(key, 2)
    sizes = flash.BlockSizes(
        block_q=rows,
        block_k_major=keys,
        block_k=keys,
        block_b=1,
        block_q_major_dkv=rows,
        block_k_major_dkv=keys,
        block_k_dkv=keys,
        block_q_dkv=rows,
        block_k_major_dq=keys,
        block_k_dq=keys,
        block_q_dq=rows,
    )

    def row(query, key, value, query_segments, key_segments, *bias):
        return flash.flash_attention(
            query[None],
            key[None],
            value[None],
            bias[0][None] if bias else None,
            flash.SegmentIds(query_segments[None], key_segments[None]),
            causal=packing.order == "causal",
            block_sizes=sizes,
        )[0]

    def part(query, key, value, query_segments, key_segments, *bias):
        query = query.swapaxes(1, 2)
        shared = query.shape[1] // key.shape[1]
        key, value = (jnp.repeat(x, shared, axis=1) for x in (key, value))
        # Row by row, so that the bias is read where it lies instead of repeated.
        axes = (0,) * 5 + (None,) * len(bias)
        arguments = (query, key, value, query_segments, key_segments, *bias)
        return jax.vmap(row, axes)(*arguments)

    return _on_shards(part, query, key, value, packing, bias)


def cudnn_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Attention with any mask [batch, 1, q, k] and bias [heads, q, k]."""
    return jax.nn.dot_product_attention(
        query,
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        bias=None if bias is None else bias[None].astype(query.dtype),
        mask=mask,
        scale=1.0,
        implementation="cudnn",
    )


def _block(x: jax.Array, axis: int) -> int:
    """The largest block that divides an axis, up to 512."""
    return next(size for size in (512, 256, LANES) if x.shape[axis] % size == 0)


def _on_shards(
    kernel: Callable[..., Any],
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    packing: Packing,
    bias: jax.Array | None,
) -> jax.Array:
    """Runs a kernel that gives [batch, heads, q, head_dim] on each device's part."""
    heads, kv_heads = query.shape[2], key.shape[1]
    split = parts("activation_heads", heads)
    if parts("activation_heads", kv_heads) != split:
        # Fewer key heads than devices that split the heads: each gets a copy.
        key, value = (jnp.repeat(x, heads // kv_heads, axis=1) for x in (key, value))
    arguments = [
        (query, _QUERY),
        (key, _KEY),
        (value, _KEY),
        (packing.query_segments, _SEGMENTS),
        (packing.key_segments, _SEGMENTS),
    ]
    if bias is not None:
        arguments.append((bias, ("activation_heads", None, None)))
    shape = (query.shape[0], heads, query.shape[1], query.shape[3])
    return on_shards(kernel, arguments, _KEY, shape).swapaxes(1, 2)
