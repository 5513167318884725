"""Beam search with T5X's meaning: the whole loop is one compiled function.

    tokens, scores = beam_search(model, params, prompts, 32, eos_id=1, num_decodes=4)
    best = tokens[:, -1]                      # hypotheses are in ascending order

For both model families. The numbers are those of T5X's `beam_search`,
https://github.com/google-research/t5x/blob/main/t5x/decoding.py, with the length
penalty of https://arxiv.org/abs/1609.08144 section 7.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from flanjax.decode import cache, sample
from flanjax.errors import ConfigError
from flanjax.models.layers import unstack_layers

Params = Mapping[str, Any]

NO_HYPOTHESIS = -1e7  # Score of a place that no hypothesis took; T5X's value.


def beam_search(
    model: Any,
    params: Params,
    prompts: Mapping[str, jax.Array],
    max_decode_tokens: int,
    eos_id: int,
    *,
    num_decodes: int = 4,
    alpha: float = 0.6,
    unstacked: Params | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Keeps the `num_decodes` most probable texts of each row at every step.

    A text that ends leaves the beam for the row's list of finished hypotheses, so one
    beam is not greedy decoding: it may end a text and go on with another. The search
    ends when no row's living texts could still enter its list.

    Args:
      model: from `build_model`.
      params: its parameters.
      prompts: as `flanjax.decode.cache.start` takes them.
      max_decode_tokens: how many tokens a hypothesis may have, its end included.
      eos_id: a hypothesis ends with this token.
      num_decodes: hypotheses for each row, and living texts at every step.
      alpha: exponent of the length penalty; a hypothesis of n tokens has the score
        log p / ((5 + n) / 6) ** alpha. 0 is for none.
      unstacked: as `flanjax.decode.sample.greedy` takes it.

    Returns:
      Tokens int32 [batch, num_decodes, max_decode_tokens], 0 after the end, and
      float32 scores [batch, num_decodes], both ascending: the best is at -1 (which
      alone is what T5X gives without `return_all_decodes`). A row where nothing ended
      in time has its living texts, with log p as scores; one where too few did has
      places of zeros with the score -1e7 in front.

    Raises:
      ConfigError: no decodes, or a negative alpha (longer texts must not score worse
        than the bound by which the search ends).
    """
    if num_decodes < 1 or alpha < 0:
        raise ConfigError(
            f"beam search with num_decodes={num_decodes} and alpha={alpha}",
            where="beam_search",
            fix="give at least 1 decode and an alpha of 0 or more",
        )
    state, logits = sample.start(model, params, prompts, max_decode_tokens)
    if model.config.scan_layers:
        model = cache.unstacked_model(model)
        params = unstack_layers(params) if unstacked is None else unstacked
    return beam_from(
        model,
        params,
        state,
        logits,
        eos_id,
        alpha,
        num_decodes=num_decodes,
        max_decode_tokens=max_decode_tokens,
    )


@flax.struct.dataclass
class _Beams:
    """The search after some tokens; N is the number of decodes.

    Attributes:
      t: tokens chosen so far.
      source: int32 [batch, N], place that each living text had one token before.
      texts: int32 [batch, N, tokens], alive, ascending.
      log_probability: float32 [batch, N], of them; -inf where there is none yet.
      finished: int32 [batch, N, tokens], ended, ascending.
      scores: float32 [batch, N], of them.
    """

    t: jax.Array
    source: jax.Array
    texts: jax.Array
    log_probability: jax.Array
    finished: jax.Array
    scores: jax.Array


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("num_decodes", "max_decode_tokens")
)
def beam_from(
    model: Any,
    params: Params,
    state: cache.DecodeState,
    logits: jax.Array,
    eos_id: int,
    alpha: float,
    *,
    num_decodes: int,
    max_decode_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """The loop of `beam_search`, from where `flanjax.decode.sample.start` stands.

    Args:
      model: scanned or unstacked, as the state is.
      params: likewise.
      state: of the prompts, with room for `max_decode_tokens`.
      logits: float32 [batch, vocab] of the first new token.
      eos_id: see `beam_search`, as are all others.
      alpha: another one compiles nothing.
      num_decodes: N.
      max_decode_tokens: at most the room there is.

    Returns:
      As `beam_search`.
    """
    batch, tokens = logits.shape[0], max_decode_tokens
    places = (batch, num_decodes)
    penalty = lambda length: ((5.0 + length) / 6.0) ** alpha  # noqa: E731
    beams = _Beams(
        t=jnp.int32(0),
        source=jnp.zeros(places, jnp.int32),
        texts=jnp.zeros((*places, tokens), jnp.int32),
        # One text to begin with: the others are the same one.
        log_probability=jnp.full(places, -jnp.inf).at[:, 0].set(0.0),
        finished=jnp.zeros((*places, tokens), jnp.int32),
        scores=jnp.full(places, NO_HYPOTHESIS),
    )
    beams = _choose(beams, jnp.repeat(logits[:, None], num_decodes, 1), eos_id, penalty)
    first_rows = jnp.arange(batch)[:, None] * num_decodes

    def can_improve(carry: tuple[_Beams, cache.DecodeState]) -> jax.Array:
        beams, _ = carry
        # Log-probabilities fall, so no living text can end with more than this. (T5X
        # counts the start token in its longest length.)
        bound = jnp.max(beams.log_probability, axis=1) / penalty(tokens + 1)
        worst = beams.scores[:, 0]
        full = worst > NO_HYPOTHESIS
        return (beams.t < tokens) & ~jnp.all(full & (worst > bound))

    def body(carry: tuple[_Beams, cache.DecodeState]):
        beams, state = carry
        state = cache.take_rows(state, (first_rows + beams.source).reshape(-1))
        newest = jax.lax.dynamic_index_in_dim(beams.texts, beams.t - 1, 2, False)
        state, logits = cache.step(model, params, state, newest.reshape(-1))
        return _choose(beams, logits.reshape(*places, -1), eos_id, penalty), state

    carry = (beams, cache.repeat_rows(state, num_decodes))
    beams, _ = jax.lax.while_loop(can_improve, body, carry)
    ended = (beams.scores[:, -1] > NO_HYPOTHESIS)[:, None]
    texts = jnp.where(ended[..., None], beams.finished, beams.texts)
    return texts, jnp.where(ended, beams.scores, beams.log_probability)


def _choose(
    beams: _Beams,
    logits: jax.Array,
    eos_id: int,
    penalty: Callable[[jax.Array], jax.Array],
) -> _Beams:
    """Chooses the next token by its logits [batch, N, vocab]."""
    batch, count, vocab = logits.shape
    candidates = jax.nn.log_softmax(logits) + beams.log_probability[..., None]
    # Of 2 N candidates at least N go on, even if every living text could end here.
    values, places = jax.lax.top_k(candidates.reshape(batch, -1), 2 * count)
    source, token = places // vocab, places % vocab
    texts = jnp.take_along_axis(beams.texts, source[..., None], axis=1)
    texts = jax.lax.dynamic_update_slice_in_dim(texts, token[..., None], beams.t, 2)
    ends = token == eos_id
    scores = jnp.where(
        ends & jnp.isfinite(values), values / penalty(beams.t + 1), NO_HYPOTHESIS
    )
    scores, finished = _best(
        jnp.concatenate([beams.scores, scores], axis=1),
        count,
        jnp.concatenate([beams.finished, texts], axis=1),
    )
    alive = jnp.where(ends, -jnp.inf, values)
    alive, texts, source = _best(alive, count, texts, source)
    return _Beams(
        t=beams.t + 1,
        source=source,
        texts=texts,
        log_probability=alive,
        finished=finished,
        scores=scores,
    )


def _best(values: jax.Array, count: int, *others: jax.Array) -> tuple[jax.Array, ...]:
    """The `count` largest along axis 1, ascending, and what stands at their places."""
    values, order = jax.lax.top_k(values, count)
    order = jnp.flip(order, axis=1)
    taken = [
        jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
        for x in others
    ]
    return jnp.flip(values, axis=1), *taken
