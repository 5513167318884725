"""Attention over blocks of keys: memory grows with the length, not with its square.

    mixed = blockwise_attention(query, key, value, mask, bias, 512)

The forward pass keeps a running maximum and sum, the backward pass computes each
block's probabilities again (https://arxiv.org/abs/2205.14135). For platforms without a
kernel of their own.
"""

import functools

import jax
import jax.numpy as jnp

from flanjax.models.attention_dense import MASKED
from flanjax.models.layers import at_least_float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def blockwise_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    bias: jax.Array | None,
    block: int,
) -> jax.Array:
    """Weights values by the softmax (in float32) of query-key products.

    Args:
      query: [batch, q, heads, head_dim], already scaled.
      key: [batch, kv_heads, k, head_dim]; consecutive query heads share a key head.
      value: as key.
      mask: bool [batch, 1, q, k]; a query that sees no key gets the mean of all values.
      bias: float32 [heads, q, k] or [batch, heads, q, k], added to the products.
      block: keys of a block; divides k.

    Returns:
      [batch, q, heads, head_dim] in the query's dtype.
    """
    return _forward(query, key, value, mask, bias, block)[0]


def _rows(x, key):
    """Maps [batch, q, heads, n] to [batch, kv_heads, heads / kv_heads * q, n]."""
    return x.swapaxes(1, 2).reshape(*key.shape[:2], -1, x.shape[-1])


def _cut(x, i, block, axis):
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis)


def _logits(query, key, mask, bias, i, block):
    """Masked products [batch, heads, q, block] with the keys of block i."""
    wide = at_least_float32(query.dtype)
    keys = _cut(key, i, block, 2)
    rows = _rows(query, key)
    logits = jnp.einsum("bhqd,bhkd->bhqk", rows, keys, preferred_element_type=wide)
    logits = logits.reshape(-1, query.shape[2], query.shape[1], block)
    if bias is not None:
        logits += _cut(bias, i, block, bias.ndim - 1)
    return jnp.where(_cut(mask, i, block, 3), logits, MASKED)


def _forward(query, key, value, mask, bias, block):
    wide = at_least_float32(query.dtype)
    batch, length, heads, head_dim = query.shape

    def add_block(carry, i):
        largest, total, mixed = carry
        logits = _logits(query, key, mask, bias, i, block)
        new = jnp.maximum(largest, jnp.max(logits, axis=-1, keepdims=True))
        weights, shrink = jnp.exp(logits - new), jnp.exp(largest - new)
        part = jnp.einsum(
            "bhqk,bhkd->bhqd",
            weights.astype(query.dtype).reshape(*key.shape[:2], -1, block),
            _cut(value, i, block, 2),
            preferred_element_type=wide,
        )
        total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
        return (new, total, mixed * shrink + part.reshape(mixed.shape)), None

    column = (batch, heads, length, 1)
    start = (
        jnp.full(column, -jnp.inf, wide),
        jnp.zeros(column, wide),
        jnp.zeros((*column[:3], head_dim), wide),
    )
    blocks = jnp.arange(key.shape[2] // block)
    (largest, total, mixed), _ = jax.lax.scan(add_block, start, blocks)
    mixed = (mixed / total).swapaxes(1, 2).astype(query.dtype)
    # Not as one logarithm: beside MASKED that of a total would be rounded away.
    return mixed, (query, key, value, mask, bias, mixed, largest, total)


def _backward(block, residuals, gradient):
    query, key, value, mask, bias, mixed, largest, total = residuals
    wide = at_least_float32(query.dtype)
    along = jnp.sum(gradient.astype(wide) * mixed.astype(wide), axis=-1)
    along = along.swapaxes(1, 2)[..., None]
    seen = jnp.any(mask, axis=-1)[..., None]
    rows, d_rows = _rows(query, key), _rows(gradient, key)

    def one_block(d_query, i):
        logits = _logits(query, key, mask, bias, i, block)
        weights = jnp.exp(logits - largest) / total
        grouped = weights.astype(query.dtype).reshape(*key.shape[:2], -1, block)
        d_value = jnp.einsum("bhqk,bhqd->bhkd", grouped, d_rows)
        d_weights = jnp.einsum(
            "bhqd,bhkd->bhqk",
            d_rows,
            _cut(value, i, block, 2),
            preferred_element_type=wide,
        ).reshape(weights.shape)
        # The logits of a query that sees nothing are constant.
        d_logits = jnp.where(seen, weights * (d_weights - along), 0)
        d_bias = None
        if bias is not None:
            d_bias = jnp.sum(d_logits, axis=0) if bias.ndim == 3 else d_logits
        d_logits = d_logits.astype(query.dtype).reshape(grouped.shape)
        keys = _cut(key, i, block, 2)
        part = jnp.einsum(
            "bhqk,bhkd->bhqd", d_logits, keys, preferred_element_type=wide
        )
        d_key = jnp.einsum("bhqk,bhqd->bhkd", d_logits, rows)
        return d_query + part, (d_key, d_value, d_bias)

    blocks = jnp.arange(key.shape[2] // block)
    d_query = jnp.zeros(rows.shape, wide)
    d_query, parts = jax.lax.scan(one_block, d_query, blocks)
    d_query = d_query.reshape(*total.shape[:3], -1).swapaxes(1, 2)

    def joined(parts, axis):
        """Puts blocks [blocks, ...] side by side along an axis of the result."""
        parts = jnp.moveaxis(parts, 0, axis)
        return parts.reshape(*parts.shape[:axis], -1, *parts.shape[axis + 2 :])

    d_key, d_value = joined(parts[0], 2), joined(parts[1], 2)
    d_bias = joined(parts[2], bias.ndim - 1) if bias is not None else None
    return d_query.astype(query.dtype), d_key, d_value, None, d_bias


blockwise_attention.defvjp(_forward, _backward)
