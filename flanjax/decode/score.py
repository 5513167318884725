"""Teacher-forced scores: the log-probability a model gives to a batch's targets.

    scores = score_batch(model, params, batch)            # float32 [batch]

For both model families, packed or not. Numbers as T5X's `score_batch`,
https://github.com/google-research/t5x/blob/main/t5x/models.py; unlike there, logits of
all positions never exist at once.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnums=0)
def token_scores(
    model: Any, params: Mapping[str, Any], batch: Mapping[str, jax.Array]
) -> jax.Array:
    """Log-probability of every target token, times its loss weight.

    Args:
      model: from `build_model`.
      params: its parameters.
      batch: SeqIO's features [batch, length]; without `decoder_loss_weights` all
        targets but 0 count.

    Returns:
      float32 [batch, length].
    """
    targets = batch["decoder_target_tokens"]
    weights = batch.get("decoder_loss_weights", targets > 0).astype(jnp.float32)
    hidden = model.apply({"params": params}, batch, method="hidden")

    def score(column: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden, chosen = column
        logits = model.apply({"params": params}, hidden, method="logits")
        return chosen_log_probability(logits, chosen)

    columns = (hidden.swapaxes(0, 1), jnp.swapaxes(targets, 0, 1))
    return jax.lax.map(score, columns).T * weights


def score_batch(
    model: Any, params: Mapping[str, Any], batch: Mapping[str, jax.Array]
) -> jax.Array:
    """Sums `token_scores` over each row; takes the same arguments.

    Returns:
      float32 [batch]; a packed row's score is that of all its examples together.
    """
    return jnp.sum(token_scores(model, params, batch), axis=-1)


def chosen_log_probability(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """Log-probability of one token for each row of logits.

    Args:
      logits: float32 [..., vocab].
      chosen: int [...].

    Returns:
      float32 [...].
    """
    log_probability = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probability, chosen[..., None], axis=-1)[..., 0]
