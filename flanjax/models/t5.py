"""T5: encoder-decoder with relative-position bias (versions 1.1 and 1.0).

    config = T5Config(vocab_size=32128, emb_dim=512, num_heads=6, head_dim=64,
                      mlp_dim=1024, num_encoder_layers=8, num_decoder_layers=8)
    logits = build_model(config).apply({"params": params}, batch)

T5 1.0 is mlp_activations=("relu",) and logits_via_embedding=True.
Source: https://arxiv.org/abs/1910.10683; names and numerics of T5X's minimal example,
https://github.com/google-research/t5x/blob/main/t5x/examples/t5/network.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from flanjax.models.attention import Attention, RelativePositionBias, segment_mask
from flanjax.models.attention_choice import Packing
from flanjax.models.layers import (
    FAN_IN,
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


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and choices of a T5 model; field names are T5X's.

    Attributes:
      vocab_size: rows of the embedding.
      emb_dim: width of activations.
      num_heads: attention heads.
      head_dim: width of one head.
      mlp_dim: width inside the feed-forward block.
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      mlp_activations: one name, or two for a gated block.
      logits_via_embedding: tie the output head to the embedding (scaled by
        emb_dim ** -0.5).
      dropout_rate: of embeddings, attention, feed-forward and residual branches.
      dtype: of activations, "float32" or "bfloat16"; parameters are float32.
      scan_layers: one compiled layer run num_layers times, parameters stacked.
      scan_unroll: layers of one turn of that loop. All of them, where they are few, is
        faster on CPUs (5 to 12 % at 4 to 6 layers), which copy what each turn keeps.
      remat_policy: what the backward pass keeps of a layer; it computes the rest again.
        From most memory to least: "none" keeps all, "minimal" matrix products,
        "save_dot_except_mlpwi" those but the feed-forward block's first,
        "save_dot_except_mlp" attention's, "save_qkv_proj" query, key and value,
        "full" nothing but its input.
      relpos_buckets: distance buckets of the relative-position bias.
      relpos_max_distance: distances from here on share a bucket.
      relpos_per_layer: every layer has a bias of its own, as in T5X's scanned network;
        else all layers of a stack share one, as in T5.
      norm_epsilon: added to the mean square in norms.
      attention: how attention is computed: "auto" takes what the platform and the
        shapes allow, "xla" keeps all probabilities, "blockwise" does not, "flash" and
        "splash" are TPU kernels, "cudnn" is for GPUs. Decoding always takes "xla".
      lora: low-rank adapters.
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    mlp_activations: Sequence[str] = ("gelu", "linear")
    logits_via_embedding: bool = False
    dropout_rate: float = 0.0
    dtype: str = "float32"
    scan_layers: bool = True
    scan_unroll: int = 1
    remat_policy: str = "none"
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    relpos_per_layer: bool = False
    norm_epsilon: float = 1e-6
    attention: str = "auto"
    lora: LoraConfig = LoraConfig()

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        check_common(self)

    @property
    def num_kv_heads(self) -> int:
        """Every query head has its own key head."""
        return self.num_heads

    @property
    def scale_attention(self) -> bool:
        """1 / sqrt(head_dim) is in the initialisation of the query kernel."""
        return False


@flax.struct.dataclass
class Shared:
    """What every layer of a stack gets.

    Attributes:
      mask: self-attention, bool [batch, 1, q, k].
      bias: relative-position bias [heads, q, k]; the stack fills it in, unless every
        layer has its own.
      encoded: encoder output [batch, inputs, embed]; None in the encoder, and while
        decoding once its keys and values are in the cache.
      cross_mask: bool [batch, 1, q, inputs].
      index: slot of the first token while decoding.
      packing: what `mask` says, for kernels; None while decoding.
      cross_packing: what `cross_mask` says.
    """

    mask: jax.Array
    bias: jax.Array | None = None
    encoded: jax.Array | None = None
    cross_mask: jax.Array | None = None
    index: jax.Array | None = None
    packing: Packing | None = None
    cross_packing: Packing | None = None


def _attention(config: T5Config, deterministic: bool, name: str) -> Attention:
    kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    query_init = nn.initializers.variance_scaling(
        1.0 / config.head_dim, "fan_in", "normal"
    )
    return Attention(config, deterministic, kernel_init, query_init, name=name)


def _bias(
    config: T5Config, bidirectional: bool, queries: int, shared: Shared
) -> jax.Array | None:
    """The bias that all layers share, or this layer's own; call it in nn.compact."""
    if not config.relpos_per_layer:
        return shared.bias
    bias = RelativePositionBias(config, bidirectional, name="relpos_bias")
    return bias(queries, shared.mask.shape[-1], shared.index)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each on a normed copy added back."""

    config: T5Config
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array, shared: Shared, cache: Any):
        """Maps [batch, length, embed] to the same shape; has no cache."""
        config, drop = self.config, dropout(self.config, self.deterministic)
        y = RMSNorm(config, name="pre_attention_layer_norm")(x)
        attention = _attention(config, self.deterministic, "attention")
        bias = _bias(config, True, x.shape[1], shared)
        y, _ = attention(y, y, shared.mask, bias=bias, packing=shared.packing)
        x = x + drop(y)
        y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
        y = Mlp(config, self.deterministic, name="mlp")(y)
        return x + drop(y), cache


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder, feed-forward."""

    config: T5Config
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array, shared: Shared, cache: Any):
        """Maps [batch, length, embed] to the same shape, and the cache to its next."""
        config, drop = self.config, dropout(self.config, self.deterministic)
        own, cross = (None, None) if cache is None else (cache["self"], cache["cross"])
        y = RMSNorm(config, name="pre_self_attention_layer_norm")(x)
        attention = _attention(config, self.deterministic, "self_attention")
        bias, index = _bias(config, False, x.shape[1], shared), shared.index
        y, own = attention(
            y,
            y,
            shared.mask,
            bias=bias,
            cache=own,
            index=index,
            packing=shared.packing,
        )
        x = x + drop(y)
        y = RMSNorm(config, name="pre_cross_attention_layer_norm")(x)
        attention = _attention(config, self.deterministic, "encoder_decoder_attention")
        assert shared.cross_mask is not None
        mask, packing = shared.cross_mask, shared.cross_packing
        y, cross = attention(y, shared.encoded, mask, cache=cross, packing=packing)
        x = x + drop(y)
        y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
        y = Mlp(config, self.deterministic, name="mlp")(y)
        return x + drop(y), None if cache is None else {"self": own, "cross": cross}


class Encoder(nn.Module):
    """Stack of encoder layers with its relative-position bias and final norm."""

    config: T5Config

    @nn.compact
    def __call__(
        self, x: jax.Array, segments: jax.Array, deterministic: bool
    ) -> jax.Array:
        """Maps embedded inputs [batch, length, embed] to the same shape."""
        drop = dropout(self.config, deterministic)
        mask = segment_mask(segments, segments)
        shared = Shared(mask, packing=Packing(segments, segments))
        if not self.config.relpos_per_layer:
            bias = RelativePositionBias(self.config, True, name="relpos_bias")
            shared = dataclasses.replace(shared, bias=bias(x.shape[1], x.shape[1]))
        layers = self.config.num_encoder_layers
        x, _ = apply_layers(
            EncoderLayer, self.config, layers, deterministic, drop(x), shared
        )
        return drop(RMSNorm(self.config, name="encoder_norm")(x))


class Decoder(nn.Module):
    """Stack of decoder layers with its relative-position bias, norm and head."""

    config: T5Config

    def setup(self):
        """Names the parts outside the stack."""
        if not self.config.relpos_per_layer:
            self.relpos_bias = RelativePositionBias(self.config, False)
        self.decoder_norm = RMSNorm(self.config)
        if not self.config.logits_via_embedding:
            # The head works in float32 whatever the activations are, as in T5X.
            self.logits_dense = Dense(
                self.config.vocab_size,
                ("embed", "vocab"),
                self.config,
                FAN_IN,
                at_least_float32(self.config.dtype),
            )

    @nn.compact
    def __call__(self, x, shared: Shared, deterministic: bool, cache=None):
        """Maps embedded tokens and the cache to hidden states and the next cache."""
        drop = dropout(self.config, deterministic)
        if not self.config.relpos_per_layer:
            bias = self.relpos_bias(x.shape[1], shared.mask.shape[-1], shared.index)
            shared = dataclasses.replace(shared, bias=bias)
        layers = self.config.num_decoder_layers
        x, cache = apply_layers(
            DecoderLayer, self.config, layers, deterministic, drop(x), shared, cache
        )
        return drop(self.decoder_norm(x)), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps [..., embed] to float32 logits [..., vocab]."""
        return self.logits_dense(hidden)


class T5(nn.Module):
    """The model; call it on a batch with SeqIO's encoder-decoder feature names."""

    config: T5Config
    kind = "encoder_decoder"

    def setup(self):
        """Names the embedding that both stacks share, and the stacks."""
        self.token_embedder = Embed(self.config, nn.initializers.normal(1.0))
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns float32 logits [batch, targets, vocab]."""
        return self.logits(self.hidden(batch, deterministic))

    def hidden(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns what the output head is applied to, [batch, targets, embed]."""
        encoded = self.perturb("encoded", self.encode(batch, deterministic))
        inputs, targets = _encoder_segments(batch), _decoder_segments(batch)
        shared = Shared(
            mask=segment_mask(targets, targets, causal=True),
            encoded=encoded,
            cross_mask=segment_mask(targets, inputs),
            packing=Packing(targets, targets, "causal"),
            cross_packing=Packing(targets, inputs),
        )
        embedded = self._embed("decoder", batch["decoder_input_tokens"])
        return self.decoder(embedded, shared, deterministic)[0]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps hidden states [..., embed] to float32 logits [..., vocab]."""
        if not self.config.logits_via_embedding:
            return self.decoder.logits(hidden)
        return self.token_embedder.attend(hidden) * self.config.emb_dim**-0.5

    def encode(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns the encoder's output [batch, inputs, embed]."""
        segments = _encoder_segments(batch)
        embedded = self._embed("encoder", batch["encoder_input_tokens"])
        return self.encoder(embedded, segments, deterministic)

    def extend(self, tokens: jax.Array, shared: Shared, cache: Any):
        """Runs the decoder on more tokens, from slot `shared.index` on.

        Args:
          tokens: int [batch, q].
          shared: masks over the cache's slots.
          cache: of every decoder layer, as `apply_layers` takes it.

        Returns:
          Hidden states [batch, q, embed] and the cache with the new tokens.
        """
        return self.decoder(self.token_embedder(tokens), shared, True, cache)

    def _embed(self, stack: str, tokens: jax.Array) -> jax.Array:
        # `perturb` adds zeros that gradients can be taken of (verify packing).
        return self.perturb(f"{stack}_embedded", self.token_embedder(tokens))


def _encoder_segments(batch: Batch) -> jax.Array:
    tokens = (batch["encoder_input_tokens"] > 0).astype(jnp.int32)
    return batch.get("encoder_segment_ids", tokens)


def _decoder_segments(batch: Batch) -> jax.Array:
    if "decoder_segment_ids" in batch:
        return batch["decoder_segment_ids"]
    return (batch["decoder_target_tokens"] > 0).astype(jnp.int32)
