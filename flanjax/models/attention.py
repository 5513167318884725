"""Attention: masks from segment ids, relative-position bias, cache.

    mask = segment_mask(segments, segments, causal=True)       # [batch, 1, q, k] bool
    y, cache = Attention(config, name="self_attention")(x, x, mask, rotary=rotary)

Packed examples are kept apart by segment ids alone; segment 0 is padding. Softmax is in
float32. T5 does not divide logits by sqrt(head_dim) (it is in the initialisation).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flanjax.models.attention_blockwise import blockwise_attention
from flanjax.models.attention_choice import (
    Packing,
    Site,
    chosen_attention,
    keys_in_a_block,
    platform,
)
from flanjax.models.attention_dense import dense_attention
from flanjax.models.attention_kernels import (
    cudnn_attention,
    flash_attention,
    splash_attention,
)
from flanjax.models.layers import (
    BLOCK,
    Dense,
    Initializer,
    parameter,
    to_stream,
)
from flanjax.models.partitioning import at_use, constrain
from flanjax.models.rotary import rotate

# Names of the axes of queries, and of keys and values.
HEADS = ("batch", "length", "activation_heads", "activation_kv")
KEYS = ("batch", "activation_heads", "keys", "activation_kv")

KVCache = dict[str, jax.Array]


def segment_mask(
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    causal: bool = False,
    bidirectional: jax.Array | None = None,
) -> jax.Array:
    """Which keys each query may see.

    Args:
      query_segments: int [batch, q]; 0 is padding.
      key_segments: int [batch, k]; 0 is padding, seen by nobody.
      causal: a query sees no later key.
      bidirectional: [batch, length] nonzero where positions see each other whatever
        their order (SeqIO's `decoder_causal_attention`, for prefix language models).

    Returns:
      bool [batch, 1, q, k].
    """
    mask = query_segments[:, :, None] == key_segments[:, None, :]
    mask &= (key_segments > 0)[:, None, :]
    if causal:
        order = jnp.tril(jnp.ones(mask.shape[1:], dtype=bool))[None]
        if bidirectional is not None:
            inside = bidirectional > 0
            order = order | (inside[:, :, None] & inside[:, None, :])
        mask &= order
    return constrain(mask[:, None], ("batch", None, "length", "keys"))


def relative_position_bucket(
    relative_position: np.ndarray,
    bidirectional: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> np.ndarray:
    """Bucket of each distance: exact near, logarithmic further off.

    Args:
      relative_position: int, memory position minus query position.
      bidirectional: separate buckets for later positions (encoder); else later
        positions count as distance 0 (decoder).
      num_buckets: how many buckets there are.
      max_distance: all distances beyond share one bucket.

    Returns:
      int32, same shape. Source: T5, https://arxiv.org/abs/1910.10683 section 2.1.
    """
    distance = -np.asarray(relative_position)
    bucket = np.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        bucket += (distance < 0) * num_buckets
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = num_buckets // 2
    # The small term and float32 reproduce T5X's rounding at bucket edges.
    ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
    far = np.log(ratio) / math.log(max_distance / exact) * (num_buckets - exact)
    far = exact + far.astype(np.int32)
    bucket += np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
    return bucket.astype(np.int32)


class RelativePositionBias(nn.Module):
    """T5's learnt bias for each head and distance bucket."""

    config: Any
    bidirectional: bool

    @nn.compact
    def __call__(
        self,
        query_length: int,
        key_length: int,
        index: jax.Array | None = None,
        distance: jax.Array | None = None,
    ) -> jax.Array:
        """Looks up the bias of every query and key.

        Args:
          query_length: number of queries, q.
          key_length: number of keys, k.
          index: position of the first query; None for 0.
          distance: int [batch, q, k], below k, how many positions before its query a
            key stands, for rows whose slots are not positions (causal only).

        Returns:
          [heads, q, k], with `distance` [batch, heads, q, k].
        """
        config = self.config
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        shape = (config.num_heads, config.relpos_buckets)
        axes = ("heads", "relpos_buckets")
        table = at_use(parameter(self, "rel_embedding", init, shape, axes), axes)

        def buckets(relative_position):
            return relative_position_bucket(
                relative_position,
                self.bidirectional,
                config.relpos_buckets,
                config.relpos_max_distance,
            )

        if distance is not None:
            by_distance = jnp.take(table, buckets(-np.arange(key_length)), axis=1)
            found = jnp.take(by_distance, jnp.maximum(distance, 0), axis=1)
            return found.swapaxes(0, 1)
        queries = query_length if index is None else key_length
        found = buckets(np.arange(key_length)[None, :] - np.arange(queries)[:, None])
        if index is not None:
            found = jax.lax.dynamic_slice_in_dim(found, index, query_length)
        return jnp.take(table, found, axis=1)


def _dense(query, key, value, mask, bias, keep, packing):
    del packing
    return dense_attention(query, key, value, mask, bias, keep)


def _blockwise(query, key, value, mask, bias, keep, packing):
    del keep, packing
    block = keys_in_a_block(key.shape[2])
    return blockwise_attention(query, key, value, mask, bias, block)


def _flash(query, key, value, mask, bias, keep, packing):
    del mask, keep
    return flash_attention(query, key, value, packing, bias)


def _splash(query, key, value, mask, bias, keep, packing):
    del mask, bias, keep
    return splash_attention(query, key, value, packing)


def _cudnn(query, key, value, mask, bias, keep, packing):
    del keep, packing
    return cudnn_attention(query, key, value, mask, bias)


_ATTENTION = {
    "xla": _dense,
    "blockwise": _blockwise,
    "flash": _flash,
    "splash": _splash,
    "cudnn": _cudnn,
}


class Attention(nn.Module):
    """Multi-head attention with shared key/value heads and an optional cache.

    Attributes:
      config: gives num_heads, num_kv_heads, head_dim, scale_attention.
      deterministic: no dropout.
      kernel_init: initializer of key, value and out.
      query_init: initializer of query.
      qkv_bias: adds a bias to query, key and value.
    """

    config: Any
    deterministic: bool
    kernel_init: Initializer
    query_init: Initializer
    qkv_bias: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        source: jax.Array | None,
        mask: jax.Array,
        *,
        bias: jax.Array | None = None,
        rotary: tuple[jax.Array, jax.Array] | None = None,
        cache: KVCache | None = None,
        index: jax.Array | None = None,
        packing: Packing | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Lets `x` look at `source`.

        Args:
          x: [batch, q, embed].
          source: [batch, k, embed], where keys and values come from; None when the
            cache has them all.
          mask: bool [batch, 1, q, k or slots].
          bias: float32 [heads, q, k or slots], or with a leading batch axis.
          rotary: tables of the positions of x.
          cache: {"key", "value"} [batch, kv_heads, slots, head_dim]. With `index`,
            what `source` gives is written there, from that slot on, and all slots
            are looked at.
          index: first slot to write.
          packing: what `mask` says, which lets other implementations than the plain
            one be taken; queries of padding then give some finite value.

        Returns:
          [batch, q, embed], and keys and values looked at (None without a cache).
        """
        config = self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads

        def project(name, inputs, count, init):
            features = count * config.head_dim
            axes, use_bias = ("embed", "joined_kv"), self.qkv_bias
            dense = Dense(features, axes, config, init, use_bias=use_bias, name=name)
            return dense(inputs).reshape(*inputs.shape[:-1], count, config.head_dim)

        x = constrain(x, BLOCK)
        query = constrain(project("query", x, heads, self.query_init), HEADS)
        if rotary is not None:
            query = rotate(query, rotary)
        if config.scale_attention:
            query *= config.head_dim**-0.5
        if source is None:
            assert cache is not None
            key, value = cache["key"], cache["value"]
        else:
            source = constrain(source, BLOCK)
            key = project("key", source, kv_heads, self.kernel_init)
            value = project("value", source, kv_heads, self.kernel_init)
            key = rotate(key, rotary) if rotary is not None else key
            key = constrain(key.swapaxes(1, 2), KEYS)
            value = constrain(value.swapaxes(1, 2), KEYS)
            if index is not None:
                assert cache is not None
                write = jax.lax.dynamic_update_slice_in_dim
                key = write(cache["key"], key, index, axis=2)
                value = write(cache["value"], value, index, axis=2)
        keep = None
        if config.dropout_rate and not self.deterministic:
            # One mask for all queries, as in T5X.
            ones = jnp.ones((x.shape[0], heads, 1, key.shape[2]), query.dtype)
            keep = nn.Dropout(config.dropout_rate, deterministic=False)(ones)
        name = "xla"
        if packing is not None and not self.is_initializing():
            name = self._chosen(query, key, packing, bias, keep)
        mixed = _ATTENTION[name](query, key, value, mask, bias, keep, packing)
        mixed = constrain(mixed, HEADS)
        mixed = mixed.reshape(*x.shape[:-1], heads * config.head_dim)
        axes = ("joined_kv", "embed")
        out = Dense(x.shape[-1], axes, config, self.kernel_init, name="out")
        mixed = to_stream(out(mixed))
        return mixed, None if cache is None else {"key": key, "value": value}

    def _chosen(self, query, key, packing, bias, keep) -> str:
        site = Site(
            platform=platform(),
            dtype=str(query.dtype),
            queries=query.shape[1],
            keys=key.shape[2],
            head_dim=query.shape[3],
            order=packing.order,
            window=packing.window,
            bias=bias is not None,
            dropout=keep is not None,
        )
        return chosen_attention(self.config.attention, site).name
