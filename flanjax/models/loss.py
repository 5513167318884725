"""Token cross-entropy with T5X's meaning, without [batch, length, vocab] in memory.

    loss_sum, sums = loss_and_metrics(model, params, batch, LossConfig())
    loss = loss_sum / normalizer(LossConfig(), sums)

A sum over tokens, never a mean: sums of microbatches add up exactly, and are divided
once. The positions that have loss weight are moved to the front of each row and scored
in chunks; the number of chunks is the number needed, so that rows whose inputs have no
weight (instruction tuning) cost what their targets cost. Gradients are made in the same
pass as the loss, so logits are computed once.

Source of the numbers: https://github.com/google-research/t5x/blob/main/t5x/losses.py.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from flanjax.errors import ConfigError, nearest
from flanjax.models.partitioning import constrain, parts, unpartitioned

NORMALIZERS = (
    "num_real_target_tokens",
    "num_total_target_tokens",
    "average_per_sequence",
)

Sums = dict[str, jax.Array]

# Rows for the loss, whole because positions move within them.
_ROWS = ("loss_batch", None)
_HEAD_AXES = {
    "embedding": ("vocab", "embed"),
    "kernel": ("embed", "vocab"),
    "lora_a": ("embed", "lora_rank"),
    "lora_b": ("lora_rank", "vocab"),
}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """How tokens are scored and by what their sum is divided.

    Attributes:
      z_loss: coefficient of (log Z)^2, added for each weighted token.
      label_smoothing: probability spread over the other tokens.
      normalizer: what `normalizer` divides by: None (a sum), a number, or one of
        NORMALIZERS; with "average_per_sequence" each packed example counts the same.
      chunk_tokens: positions of every row that are scored at once.
    """

    z_loss: float = 1e-4
    label_smoothing: float = 0.0
    normalizer: float | str | None = None
    chunk_tokens: int = 64

    def __post_init__(self):
        if isinstance(self.normalizer, str) and self.normalizer not in NORMALIZERS:
            raise ConfigError(
                f"normalizer is '{self.normalizer}'."
                + nearest(self.normalizer, NORMALIZERS),
                where="LossConfig.normalizer",
                fix=f"None, a number, or one of {', '.join(NORMALIZERS)}",
            )
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing}",
                where="LossConfig.label_smoothing",
                fix="give a number from 0 to below 1",
            )


def loss_and_metrics(
    model: Any,
    params: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    config: LossConfig,
    *,
    dropout_rng: jax.Array | None = None,
    perturbations: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, Sums]:
    """Scores a batch; differentiable with respect to `params`.

    Args:
      model: from `build_model`.
      params: its parameters. Gradients of the output head are computed only where
        `jax.grad` asks for them (not for a frozen head).
      batch: SeqIO's features; without `decoder_loss_weights` all targets but 0 count.
      config: how to score.
      dropout_rng: key of this step's dropout; None for no dropout.
      perturbations: zeros the model adds to `encoder_embedded`, `decoder_embedded` or
        `encoded` [batch, length, embed], to take gradients with respect to these.

    Returns:
      The loss sum, and float32 sums to add over microbatches: `z_loss` (part of the
      loss sum), `correct` (weighted count of right first choices), `weight_sum`,
      `positions` (targets with padding) and `sequences` (packed examples).
    """
    rngs = None if dropout_rng is None else {"dropout": dropout_rng}
    variables = {"params": params}
    if perturbations is not None:
        variables["perturbations"] = perturbations
    hidden = model.apply(
        variables, batch, dropout_rng is None, method="hidden", rngs=rngs
    )
    # In two steps, each of which is one exchange between neighbours.
    for rows in (("batch", "length"), _ROWS):
        hidden = constrain(hidden, (*rows, "activation_embed"))
    targets = constrain(batch["decoder_target_tokens"], _ROWS)
    plain = batch.get("decoder_loss_weights", targets > 0).astype(jnp.float32)
    plain = constrain(plain, _ROWS)
    weights = plain
    if config.normalizer == "average_per_sequence":
        weights = _weights_per_sequence(plain, batch.get("decoder_segment_ids"))
    front = jnp.argsort(plain == 0, axis=1, stable=True)
    take = functools.partial(jnp.take_along_axis, axis=1)
    scored = _scored(
        model,
        config,
        _head_params(model, params),
        take(hidden, front[..., None]),
        take(targets, front),
        take(weights, front),
        take(plain, front),
    )
    # JAX 0.10 loses the type of a `custom_vjp` made through `partial`.
    loss_sum, sums = cast(tuple[jax.Array, Sums], scored)
    sums["weight_sum"] = jnp.sum(plain)
    sums["positions"] = jnp.float32(targets.size)
    sums["sequences"] = jnp.sum(weights)
    return loss_sum, sums


def normalizer(config: LossConfig, sums: Mapping[str, jax.Array]) -> jax.Array:
    """What to divide a loss sum (of all microbatches) by.

    Args:
      config: as given to `loss_and_metrics`.
      sums: its second result, added over microbatches.
    """
    if config.normalizer is None:
        return jnp.float32(1.0)
    if not isinstance(config.normalizer, str):
        return jnp.float32(config.normalizer)
    name = {
        "num_real_target_tokens": "weight_sum",
        "num_total_target_tokens": "positions",
        "average_per_sequence": "sequences",
    }[config.normalizer]
    return sums[name]


def _weights_per_sequence(weights, segments):
    """Divides weights by their sum within each row or packed segment."""
    if segments is None:
        total = jnp.sum(weights, axis=-1, keepdims=True)
    else:
        add = functools.partial(jax.ops.segment_sum, num_segments=weights.shape[1] + 1)
        total = jnp.take_along_axis(jax.vmap(add)(weights, segments), segments, axis=1)
    return jnp.where(total == 0, 0.0, weights / jnp.where(total == 0, 1.0, total))


def _head_params(model, params):
    """The only parameters that `logits` reads, in their place."""
    if model.config.logits_via_embedding:
        return {"token_embedder": params["token_embedder"]}
    return {"decoder": {"logits_dense": params["decoder"]["logits_dense"]}}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scored(model, config, head, hidden, targets, weights, plain):
    """Returns the loss sum and sums of a batch whose weighted positions come first."""
    loss, sums, _ = _run_chunks(
        model, config, head, hidden, (targets, weights, plain), (False, False)
    )
    return loss, sums


def _scored_forward(model, config, head, hidden, *scoring):
    # With symbolic_zeros every leaf says whether a gradient is asked of it.
    wanted = any(leaf.perturbed for leaf in jax.tree.leaves(head)), hidden.perturbed
    head, hidden, scoring = jax.tree.map(lambda x: x.value, (head, hidden, scoring))
    loss, sums, grads = _run_chunks(model, config, head, hidden, scoring, wanted)
    return (loss, sums), grads


def _scored_backward(model, config, grads, cotangents):
    # The loss is linear in its cotangent, and the other sums are never differentiated.
    scale = cotangents[0]
    head, hidden = jax.tree.map(lambda x: (x * scale).astype(x.dtype), grads)
    return head, hidden, None, None, None


_scored.defvjp(_scored_forward, _scored_backward, symbolic_zeros=True)


def _run_chunks(model, config, head, hidden, scoring, wanted):
    """Scores chunk after chunk until no row has weight left.

    Args:
      model: gives `logits`.
      config: how to score.
      head: parameters of the output head.
      hidden: [batch, length, embed], weighted positions first.
      scoring: targets, weights of the loss, weights as in the batch.
      wanted: whether gradients of head and of hidden are wanted.

    Returns:
      Loss sum, other sums, gradients of the loss sum (None where not wanted).
    """
    chunk = min(config.chunk_tokens, hidden.shape[1])
    padding = -hidden.shape[1] % chunk
    pad = lambda x: jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))  # noqa: E731
    length, hidden, scoring = hidden.shape[1], pad(hidden), tuple(map(pad, scoring))
    needed = jnp.max(jnp.sum(scoring[-1] != 0, axis=1))
    shards = parts("loss_batch", hidden.shape[0])
    heads = _for_each_shard(head, shards)
    head_grad = jax.tree.map(jnp.zeros_like, heads) if wanted[0] else None
    hidden_grad = jnp.zeros_like(hidden) if wanted[1] else None

    def body(i, carry):
        loss, sums, head_grad, hidden_grad = carry
        start = i * chunk
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1)  # noqa: E731
        logits, pull = jax.vjp(
            functools.partial(_logits, model, shards), heads, cut(hidden)
        )
        chunk_loss, chunk_sums, logits_grad = _token_losses(
            config, logits, *map(cut, scoring)
        )
        if any(wanted):
            head_part, hidden_part = pull(logits_grad)
            if wanted[0]:
                head_grad = jax.tree.map(jnp.add, head_grad, head_part)
            if wanted[1]:
                hidden_grad = jax.lax.dynamic_update_slice_in_dim(
                    hidden_grad, hidden_part, start, axis=1
                )
        sums = jax.tree.map(jnp.add, sums, chunk_sums)
        return loss + chunk_loss, sums, head_grad, hidden_grad

    zero = jnp.float32(0.0)
    carry = (zero, {"z_loss": zero, "correct": zero}, head_grad, hidden_grad)
    chunks = (needed + chunk - 1) // chunk
    loss, sums, head_grad, hidden_grad = jax.lax.fori_loop(0, chunks, body, carry)
    if wanted[0] and shards > 1:
        head_grad = jax.tree_util.tree_map_with_path(
            lambda path, x: constrain(jnp.sum(x, axis=0), _HEAD_AXES[path[-1].key]),
            head_grad,
        )
    if wanted[1]:
        hidden_grad = hidden_grad[:, :length]
    return loss, sums, (head_grad, hidden_grad)


def _for_each_shard(head, shards):
    """Gathers the output head before the loop, with an axis of the rows' shards.

    So that each shard adds up a gradient of its own, and these are added once, after
    the loop: else devices would exchange the head and its gradient in every chunk.
    """
    if shards == 1:
        return head

    def one(path, x):
        axes = [f"activation_{name}" for name in _HEAD_AXES[path[-1].key]]
        return constrain(jnp.broadcast_to(x, (shards, *x.shape)), ("loss_batch", *axes))

    return jax.tree_util.tree_map_with_path(one, head)


def _logits(model, shards, heads, hidden):
    """Maps [batch, chunk, embed] to logits, each shard of the rows with its head."""

    def apply(head, x):
        return model.apply({"params": head}, x, method="logits")

    # The head lies where it is used already.
    with unpartitioned():
        if shards == 1:
            logits = apply(heads, hidden)
        else:
            rows = hidden.reshape(shards, -1, *hidden.shape[1:])
            logits = jax.vmap(apply)(heads, rows)
            logits = logits.reshape(*hidden.shape[:-1], -1)
    return constrain(logits, ("loss_batch", "length", "activation_vocab"))


def _token_losses(config, logits, targets, weights, plain):
    """Scores logits [batch, length, vocab]; also gives the gradient of the loss."""
    vocab = logits.shape[-1]
    confidence = 1.0 - config.label_smoothing
    low = config.label_smoothing / (vocab - 1)
    # The entropy of smoothed targets: a perfect model has loss 0.
    constant = -confidence * math.log(confidence)
    constant -= (vocab - 1) * low * math.log(low + 1e-20)
    largest = jnp.max(logits, axis=-1)
    exponential = jnp.exp(logits - largest[..., None])
    total = jnp.sum(exponential, axis=-1)
    log_z = largest + jnp.log(total)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = log_z - confidence * target_logit - constant
    if low:
        loss -= low * (jnp.sum(logits, axis=-1) - target_logit)
    z_loss = config.z_loss * jnp.square(log_z)
    sums = {
        "z_loss": jnp.sum(z_loss * weights),
        "correct": jnp.sum((target_logit >= largest) * plain),
    }
    is_target = jnp.arange(vocab) == targets[..., None]
    factor = weights * (1.0 + 2.0 * config.z_loss * log_z) / total
    gradient = exponential * factor[..., None]
    gradient -= weights[..., None] * jnp.where(is_target, confidence, low)
    return jnp.sum((loss + z_loss) * weights), sums, gradient
