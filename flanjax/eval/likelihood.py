"""Log-probability of each option after its prompt: what the model would rather say.

    state, logits = sample.start(model, params, prompts, room)
    option_logprobs(stepper, stepped, state, logits, [[[12, 5], [7]], [[9], [4]]])
    # [[-3.2, -1.1], [-0.4, -2.0]]: log p(option | prompt), one list for each row

Options are teacher-forced from the prompt's key/value cache, so a prompt is run once
however many options it has, and also serves greedy decoding. The output head is applied
only where an option's token is predicted. EOS is not part of an option: the question is
what the answer is, not whether the model would stop there (the convention of
https://github.com/EleutherAI/lm-evaluation-harness).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.decode import cache
from flanjax.decode.score import chosen_log_probability


def option_logprobs(
    model: Any,
    params: Mapping[str, Any],
    state: cache.DecodeState,
    logits: jax.Array,
    options: Sequence[Sequence[Sequence[int]]],
) -> list[list[float]]:
    """Scores the options of every row.

    Args:
      model: unstacked, as `cache.unstacked_model` makes it.
      params: unstacked likewise.
      state: after the prompts, from `flanjax.decode.sample.start`, with room for the
        longest option less one token, rounded up to a power of two.
      logits: float32 [batch, vocab] of the first new token.
      options: for each row its options as token ids, none of them empty; rows may have
        different numbers of options.

    Returns:
      For each row the sum of log-probabilities of each option's tokens.
    """
    longest = max((len(o) for row in options for o in row), default=1)
    width = padded_length(longest)
    columns = []
    for column in range(max(map(len, options))):
        tokens = np.zeros((len(options), width), np.int32)
        lengths = np.zeros(len(options), np.int32)
        for i, row in enumerate(options):
            if column < len(row):
                lengths[i] = len(row[column])
                tokens[i, : lengths[i]] = row[column]
        scored = _forced_logprob(model, params, state, logits, tokens, lengths)
        columns.append(np.asarray(scored))
    return [
        [float(columns[c][i]) for c in range(len(row))] for i, row in enumerate(options)
    ]


def padded_length(longest: int) -> int:
    """Tokens that options of this length are padded to: a power of two."""
    return 1 << max(longest - 1, 0).bit_length()


@functools.partial(jax.jit, static_argnums=0)
def _forced_logprob(model, params, state, logits, tokens, lengths):
    """Log p of one token sequence for each row, [batch]."""
    scores = chosen_log_probability(logits, tokens[:, 0])[None]
    if tokens.shape[1] > 1:
        _, hidden = cache.extend(model, params, state, tokens[:, :-1])
        # Position by position: never [batch, tokens, vocab] at once.
        rest = jax.lax.map(
            lambda pair: chosen_log_probability(
                model.apply({"params": params}, pair[0], method="logits"), pair[1]
            ),
            (hidden.swapaxes(0, 1), tokens[:, 1:].T),
        )
        scores = jnp.concatenate([scores, rest])
    counted = jnp.arange(tokens.shape[1])[:, None] < lengths
    return jnp.sum(jnp.where(counted, scores, 0.0), axis=0)
