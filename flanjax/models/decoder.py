"""Decoder-only models: Llama, Mistral, Qwen2, PaLM's blocks, and T5X's decoder.

    config = DecoderConfig(vocab_size=49152, emb_dim=576, num_heads=9, num_kv_heads=3,
                           head_dim=64, mlp_dim=1536, num_layers=30, rope_base=1e5)
    logits = build_model(config).apply({"params": params}, batch)

Causal, or a prefix language model where `decoder_causal_attention` marks the inputs.
The defaults are Llama's (https://arxiv.org/abs/2302.13971); PaLM is parallel_block
(https://arxiv.org/abs/2204.02311), Mistral sliding_window, Qwen2 qkv_bias, and
positions="relative" with scale_attention=False and scale_tied_logits=True is T5X's
https://github.com/google-research/t5x/tree/main/t5x/examples/decoder_only.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from flanjax.errors import ConfigError, nearest
from flanjax.models.attention import Attention, RelativePositionBias, segment_mask
from flanjax.models.attention_choice import Packing
from flanjax.models.layers import (
    FAN_IN,
    Dense,
    Embed,
    Initializer,
    Mlp,
    RMSNorm,
    apply_layers,
    at_least_float32,
    check_common,
    dropout,
)
from flanjax.models.lora import LoraConfig
from flanjax.models.rotary import RopeScaling, rotary_tables

Batch = Mapping[str, jax.Array]

POSITIONS = ("rotary", "relative")


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
      positions: "rotary", or "relative" for T5's bias, one table for all layers.
      rope_base: base of the rotary frequencies.
      rope_scaling: lowers the rotary frequencies for longer texts.
      relpos_buckets: distance buckets of the relative-position bias.
      relpos_max_distance: distances from here on share a bucket.
      parallel_block: attention and feed-forward read the same normed copy, and both
        are added to it: x + attention(norm(x)) + mlp(norm(x)).
      qkv_bias: a bias on query, key and value.
      sliding_window: how many positions of its text a token sees, itself included;
        None is all of them.
      scale_attention: divide attention logits by sqrt(head_dim); T5X does not.
      norm_epsilon: added to the mean square in norms.
      logits_via_embedding: tie the output head to the embedding.
      scale_tied_logits: divide a tied head's logits by sqrt(emb_dim), as T5X and PaLM
        do; the embedding is then drawn from normal(1) instead of normal(0.02).
      prefix_lm: positions marked by `decoder_causal_attention` see each other
        whatever their order.
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
      attention: how attention is computed: "auto" takes what the platform and the
        shapes allow, "xla" keeps all probabilities, "blockwise" does not, "flash" and
        "splash" are TPU kernels, "cudnn" is for GPUs. Decoding always takes "xla".
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
    positions: str = "rotary"
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    parallel_block: bool = False
    qkv_bias: bool = False
    sliding_window: int | None = None
    scale_attention: bool = True
    norm_epsilon: float = 1e-5
    logits_via_embedding: bool = True
    scale_tied_logits: bool = False
    prefix_lm: bool = False
    dropout_rate: float = 0.0
    dtype: str = "float32"
    scan_layers: bool = True
    scan_unroll: int = 1
    remat_policy: str = "none"
    attention: str = "auto"
    lora: LoraConfig = LoraConfig()

    def __post_init__(self):
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        check_common(self)
        for field, problem, fix in _problems(self):
            raise ConfigError(problem, where=f"DecoderConfig.{field}", fix=fix)

    @property
    def kernel_init(self) -> Initializer:
        """Llama's normal(0.02); T5X's fan-in scaling with relative positions."""
        if self.positions == "rotary":
            return nn.initializers.normal(0.02)
        return nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    @property
    def query_init(self) -> Initializer:
        """As kernel_init, smaller where attention logits are not divided."""
        if self.positions == "rotary" or self.scale_attention:
            return self.kernel_init
        scale = 1.0 / self.head_dim
        return nn.initializers.variance_scaling(scale, "fan_in", "normal")

    @property
    def mlp_init(self) -> Initializer:
        """Of the feed-forward block and the output head."""
        return self.kernel_init if self.positions == "rotary" else FAN_IN

    @property
    def embedding_init(self) -> Initializer:
        """normal(1) where logits are divided or positions are T5's."""
        t5x = self.scale_tied_logits or self.positions == "relative"
        return nn.initializers.normal(1.0 if t5x else 0.02)


def _problems(config: DecoderConfig) -> Iterator[tuple[str, str, str]]:
    """Yields (field, what is wrong, fix) for values that cannot be built."""
    positions, window = config.positions, config.sliding_window
    if config.num_heads % config.num_kv_heads:
        problem = (
            f"{config.num_heads} heads cannot share {config.num_kv_heads} key heads"
        )
        yield "num_kv_heads", problem, "give a divisor of num_heads"
    if positions not in POSITIONS:
        problem = f"positions is '{positions}'.{nearest(str(positions), POSITIONS)}"
        yield "positions", problem, f"one of {', '.join(POSITIONS)}"
    if positions == "rotary" and config.head_dim % 2:
        problem = f"rotary positions turn pairs; head_dim is {config.head_dim}"
        yield "head_dim", problem, "give an even number"
    if positions != "rotary" and config.rope_scaling is not None:
        problem = f"rope_scaling says nothing where positions is '{positions}'"
        yield "rope_scaling", problem, 'leave it out, or set positions to "rotary"'
    if window is not None and window < 1:
        problem = f"sliding_window is {window}"
        yield "sliding_window", problem, "give 1 or more, or None for no window"
    if config.scale_tied_logits and not config.logits_via_embedding:
        problem = "scale_tied_logits is of a tied head, and the head is not tied"
        yield "scale_tied_logits", problem, "set logits_via_embedding = True"


@flax.struct.dataclass
class Shared:
    """What every layer gets.

    Attributes:
      mask: bool [batch, 1, q, k].
      rotary: cosine and sine of the positions, [batch, q, 1, head_dim / 2]; None with
        relative positions.
      distance: int [batch, q, k], how many positions before its query a key stands;
        None where slots are positions.
      bias: relative-position bias [heads, q, k] or [batch, heads, q, k]; the stack
        fills it in.
      index: slot of the first token while decoding.
      packing: what `mask` says, for kernels; None while decoding.
    """

    mask: jax.Array
    rotary: tuple[jax.Array, jax.Array] | None = None
    distance: jax.Array | None = None
    bias: jax.Array | None = None
    index: jax.Array | None = None
    packing: Packing | None = None


class DecoderLayer(nn.Module):
    """Self-attention and feed-forward, each on a normed copy added back."""

    config: DecoderConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array, shared: Shared, cache: Any):
        """Maps [batch, length, embed] to the same shape, and the cache to its next."""
        config, drop = self.config, dropout(self.config, self.deterministic)
        mlp = Mlp(config, self.deterministic, config.mlp_init, name="mlp")
        if config.parallel_block:
            y = RMSNorm(config, name="pre_block_layer_norm")(x)
            attended, cache = self._attend(y, shared, cache)
            return x + drop(attended) + drop(mlp(y)), cache
        y = RMSNorm(config, name="pre_self_attention_layer_norm")(x)
        y, cache = self._attend(y, shared, cache)
        x = x + drop(y)
        y = RMSNorm(config, name="pre_mlp_layer_norm")(x)
        return x + drop(mlp(y)), cache

    def _attend(self, y: jax.Array, shared: Shared, cache: Any):
        config = self.config
        attention = Attention(
            config,
            self.deterministic,
            config.kernel_init,
            config.query_init,
            config.qkv_bias,
            name="self_attention",
        )
        return attention(
            y,
            y,
            shared.mask,
            bias=shared.bias,
            rotary=shared.rotary,
            cache=cache,
            index=shared.index,
            packing=shared.packing,
        )


class Stack(nn.Module):
    """Layers, final norm and, where they are, position bias and output head."""

    config: DecoderConfig

    def setup(self):
        """Names the parts outside the layers."""
        config = self.config
        if config.positions == "relative":
            self.relpos_bias = RelativePositionBias(config, False)
        self.decoder_norm = RMSNorm(config)
        if not config.logits_via_embedding:
            axes = ("embed", "vocab")
            self.logits_dense = Dense(config.vocab_size, axes, config, config.mlp_init)

    @nn.compact
    def __call__(self, x, shared: Shared, deterministic: bool, cache=None):
        """Maps embedded tokens and the cache to hidden states and the next cache."""
        drop = dropout(self.config, deterministic)
        if self.config.positions == "relative":
            lengths = x.shape[1], shared.mask.shape[-1]
            bias = self.relpos_bias(*lengths, distance=shared.distance)
            shared = dataclasses.replace(shared, bias=bias)
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
        self.token_embedder = Embed(self.config, self.config.embedding_init)
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
        # `perturb` adds zeros that gradients can be taken of (verify packing).
        embedded = self.perturb("decoder_embedded", self.token_embedder(tokens))
        order = "causal" if prefix is None else "prefix"
        packing = Packing(segments, segments, order, self.config.sliding_window)
        shared = dataclasses.replace(self._shared(mask, positions), packing=packing)
        return self.decoder(embedded, shared, deterministic)[0]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps hidden states [..., embed] to float32 logits [..., vocab]."""
        if not self.config.logits_via_embedding:
            return self.decoder.logits(hidden)
        scale = self.config.emb_dim**-0.5 if self.config.scale_tied_logits else 1.0
        return self.token_embedder.attend(hidden) * scale

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
          mask: bool [batch, 1, q, slots]; the last query's are all slots that hold a
            token of its row, in the order of their positions.
          index: slot of the first token.
          cache: of every layer, as `apply_layers` takes it.

        Returns:
          Hidden states [batch, q, embed] and the cache with the new tokens.
        """
        shared = self._shared(mask, positions, index)
        return self.decoder(self.token_embedder(tokens), shared, True, cache)

    def _shared(
        self, mask: jax.Array, positions: jax.Array, index: jax.Array | None = None
    ) -> Shared:
        """Adds to the mask what the configuration knows of positions."""
        config, rotary = self.config, None
        queries, keys = mask.shape[-2:]
        if config.positions == "rotary":
            rotary = rotary_tables(
                positions, config.head_dim, config.rope_base, config.rope_scaling
            )
        distance = None
        if queries != keys:  # Between a row's prompt and new tokens may be padding.
            held = jnp.cumsum(mask[:, 0, -1], axis=-1) - 1
            distance = positions[:, :, None] - held[:, None, :]
        if config.sliding_window is not None:
            # Inside a segment rows are as far apart as positions are.
            near = distance
            if near is None:
                near = (jnp.arange(queries)[:, None] - jnp.arange(keys))[None]
            mask = mask & (near < config.sliding_window)[:, None]
        return Shared(mask, rotary, distance, index=index)
