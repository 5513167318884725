"""Decoder-only models in Llama's form: RoPE, grouped queries, gated feed-forward.

    config = DecoderConfig(vocab_size=49152, emb_dim=576, num_heads=9, num_kv_heads=3,
                           head_dim=64, mlp_dim=1536, num_layers=30, rope_base=1e5)
    logits = build_model(config).apply({"params": params}, batch)

Causal, or a prefix language model where `decoder_causal_attention` marks the inputs.
Source: https://arxiv.org/abs/2302.13971; query and key kernels are in Hugging Face's
order (rotation of the two halves of a head).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from flanjax.errors import ConfigError
from flanjax.models.attention import Attention, rotary_tables, segment_mask
from flanjax.models.layers import (
    Dense,
    Embed,
    Mlp,
    RMSNorm,
    apply_layers,
    at_least_float32,
    check_common,
    dropout,
)
from flanjax.models.lora import LoraConfig

Batch = Mapping[str, jax.Array]

INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and choices of a decoder-only model.

    Attributes:
      vocab_size: rows of the embedding.
      emb_dim: width of activations.
      num_heads: query heads.
      num_kv_heads: key/value heads; divides num_heads.
      head_dim: width of one head; even.
      mlp_dim: width inside the feed-forward block.
      num_layers: layers.
      mlp_activations: ("silu", "linear") is SwiGLU.
      rope_base: base of the rotary frequencies.
      norm_epsilon: added to the mean square in norms.
      logits_via_embedding: tie the output head to the embedding.
      prefix_lm: positions marked by `decoder_causal_attention` see each other
        whatever their order.
      dropout_rate: of embeddings, attention, feed-forward and residual branches.
      dtype: of activations, "float32" or "bfloat16"; parameters are float32.
      scan_layers: one compiled layer run num_layers times, parameters stacked.
      remat_policy: what the backward pass computes again: "none", "minimal"
        (all but matrix products) or "full".
      lora: low-rank adapters.
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    num_layers: int
    mlp_activations: Sequence[str] = ("silu", "linear")
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    logits_via_embedding: bool = True
    prefix_lm: bool = False
    dropout_rate: float = 0.0
    dtype: str = "float32"
    scan_layers: bool = True
    remat_policy: str = "none"
    lora: LoraConfig = LoraConfig()

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        check_common(self)
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key heads",
                where="DecoderConfig.num_kv_heads",
                fix="give a divisor of num_heads",
            )

    @property
    def scale_attention(self) -> bool:
        """Attention logits are divided by sqrt(head_dim)."""
        return True


@flax.struct.dataclass
class Shared:
    """What every layer gets.

    Attributes:
      mask: bool [batch, 1, q, k].
      rotary: cosine and sine of the positions, [batch, q, 1, head_dim / 2].
      index: slot of the first token while decoding.
    """

    mask: jax.Array
    rotary: tuple[jax.Array, jax.Array]
    index: jax.Array | None = None


class DecoderLayer(nn.Module):
    """Self-attention and feed-forward, each on a normed copy added back."""

    config: DecoderConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array, shared: Shared, cache: Any):
        """Maps [batch, length, embed] to the same shape, and the cache to its next."""
        config, drop = self.config, dropout(self.config, self.deterministic)
        y = RMSNorm(config, name="pre_self_attention_layer_norm")(x)
        attention = Attention(
            config, self.deterministic, INIT, INIT, name="self_attention"
        )
        rotary, index = shared.rotary, shared.index
        y, cache = attention(y, y, shared.mask, rotary=rotary, cache=cache, index=index)
        x = x + drop(y)
        y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
        y = Mlp(config, self.deterministic, INIT, name="mlp")(y)
        return x + drop(y), cache


class Stack(nn.Module):
    """Layers, final norm and, where it is not tied, the output head."""

    config: DecoderConfig

    def setup(self):
        """Names the parts outside the layers."""
        self.decoder_norm = RMSNorm(self.config)
        if not self.config.logits_via_embedding:
            self.logits_dense = Dense(
                self.config.vocab_size, ("embed", "vocab"), self.config, INIT
            )

    @nn.compact
    def __call__(self, x, shared: Shared, deterministic: bool, cache=None):
        """Maps embedded tokens and the cache to hidden states and the next cache."""
        drop = dropout(self.config, deterministic)
        layers = self.config.num_layers
        x, cache = apply_layers(
            DecoderLayer, self.config, layers, deterministic, drop(x), shared, cache
        )
        return drop(self.decoder_norm(x)), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps [..., embed] to float32 logits [..., vocab]."""
        return self.logits_dense(hidden).astype(at_least_float32(hidden.dtype))


class Decoder(nn.Module):
    """The model; call it on a batch with SeqIO's decoder feature names."""

    config: DecoderConfig
    kind = "decoder"

    def setup(self):
        """Names the embedding and the stack."""
        self.token_embedder = Embed(self.config, INIT)
        self.decoder = Stack(self.config)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns float32 logits [batch, length, vocab]."""
        return self.logits(self.hidden(batch, deterministic))

    def hidden(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns what the output head is applied to, [batch, length, embed].

        Without `decoder_segment_ids` a row is one example, padded on the right;
        without `decoder_positions` positions count from the row's start.
        """
        tokens = batch["decoder_input_tokens"]
        segments = batch.get("decoder_segment_ids", jnp.ones_like(tokens))
        counted = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        positions = batch.get("decoder_positions", counted)
        prefix = batch["decoder_causal_attention"] if self.config.prefix_lm else None
        mask = segment_mask(segments, segments, causal=True, bidirectional=prefix)
        shared = Shared(mask, self._rotary(positions))
        # `perturb` adds zeros that gradients can be taken of (verify packing).
        embedded = self.perturb("decoder_embedded", self.token_embedder(tokens))
        return self.decoder(embedded, shared, deterministic)[0]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps hidden states [..., embed] to float32 logits [..., vocab]."""
        if self.config.logits_via_embedding:
            return self.token_embedder.attend(hidden)
        return self.decoder.logits(hidden)

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        index: jax.Array,
        cache: Any,
    ):
        """Runs the decoder on more tokens, from cache slot `index` on.

        Args:
          tokens: int [batch, q].
          positions: int [batch, q], within each row's text.
          mask: bool [batch, 1, q, slots].
          index: slot of the first token.
          cache: of every layer, as `apply_layers` takes it.

        Returns:
          Hidden states [batch, q, embed] and the cache with the new tokens.
        """
        shared = Shared(mask, self._rotary(positions), index)
        return self.decoder(self.token_embedder(tokens), shared, True, cache)

    def _rotary(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rotary_tables(positions, self.config.head_dim, self.config.rope_base)
