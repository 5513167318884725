"""Greedy decoding: the whole loop is one compiled function.

    prompts = {"encoder_input_tokens": inputs}
    tokens, scores = greedy(model, params, prompts, 16, eos_id=1)

One compilation for each shape of the prompts and each `max_decode_tokens`: pad prompts
to few lengths. The loop ends when every row has ended.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flanjax.decode import cache
from flanjax.decode.score import chosen_log_probability
from flanjax.models.layers import unstack_layers

Params = Mapping[str, Any]


def greedy(
    model: Any,
    params: Params,
    prompts: Mapping[str, jax.Array],
    max_decode_tokens: int,
    eos_id: int,
    *,
    forced: jax.Array | None = None,
    limits: jax.Array | None = None,
    unstacked: Params | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Takes the most probable token, again and again.

    Args:
      model: from `build_model`.
      params: its parameters.
      prompts: as `flanjax.decode.cache.start` takes them.
      max_decode_tokens: how many tokens a row may get.
      eos_id: a row ends with this token.
      forced: int [batch, max_decode_tokens]; where not 0, that token is taken and not
        scored.
      limits: int [batch], how many tokens each row may get, where that is less than
        max_decode_tokens.
      unstacked: `unstack_layers(params)`, made once by a caller who decodes many
        batches with the same scanned parameters; saves making it here.

    Returns:
      Tokens int32 [batch, max_decode_tokens], 0 after the end, and float32 scores
      [batch]: the sum of log-probabilities of the tokens through the end.
    """
    if forced is None:
        batch = jax.tree.leaves(prompts)[0].shape[0]
        forced = jnp.zeros((batch, max_decode_tokens), jnp.int32)
    state, logits = start(model, params, prompts, max_decode_tokens)
    if model.config.scan_layers:
        model = cache.unstacked_model(model)
        params = unstack_layers(params) if unstacked is None else unstacked
    limit = max_decode_tokens if limits is None else limits
    return greedy_from(model, params, state, logits, forced, eos_id, limit)


@functools.partial(jax.jit, static_argnums=(0, 3))
def start(
    model: Any,
    params: Params,
    prompts: Mapping[str, jax.Array],
    max_decode_tokens: int,
) -> tuple[cache.DecodeState, jax.Array]:
    """`cache.start`, compiled, with a state for `cache.unstacked_model(model)`.

    For callers who do more than one thing with a prompt, such as scoring options and
    then decoding; `greedy` is this and `greedy_from`.
    """
    state, logits = cache.start(model, params, prompts, max_decode_tokens)
    if model.config.scan_layers:
        state = cache.unstack_state(state)
    return state, logits


@functools.partial(jax.jit, static_argnums=0)
def greedy_from(
    model: Any,
    params: Params,
    state: cache.DecodeState,
    logits: jax.Array,
    forced: jax.Array,
    eos_id: int,
    limit: int | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The loop of `greedy`, from where `start` stands.

    Args:
      model: unstacked, as `cache.unstacked_model` makes it.
      params: unstacked likewise.
      state: from `start`.
      logits: float32 [batch, vocab] from `start`.
      forced: int [batch, tokens], see `greedy`; gives the shape of the result.
      eos_id: a row ends with this token.
      limit: rows end after that many tokens, one number or int [batch]; another
        limit compiles nothing.

    Returns:
      As `greedy`.
    """

    def choose(t, logits, finished, scores):
        best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        score = chosen_log_probability(logits, best)
        given = forced[:, t]
        token = jnp.where(finished, 0, jnp.where(given > 0, given, best))
        scores += jnp.where(finished | (given > 0), 0.0, score)
        return token, finished | (token == eos_id) | (t + 1 >= limit), scores

    def unfinished(carry):
        t, _, _, _, finished, _ = carry
        return (t < forced.shape[1]) & ~jnp.all(finished)

    def body(carry):
        t, state, token, tokens, finished, scores = carry
        state, logits = cache.step(model, params, state, token)
        token, finished, scores = choose(t, logits, finished, scores)
        tokens = tokens.at[:, t].set(token)
        return t + 1, state, token, tokens, finished, scores

    batch = logits.shape[0]
    finished, scores = jnp.zeros(batch, bool), jnp.zeros(batch, jnp.float32)
    token, finished, scores = choose(0, logits, finished, scores)
    tokens = jnp.zeros(forced.shape, jnp.int32).at[:, 0].set(token)
    carry = (jnp.int32(1), state, token, tokens, finished, scores)
    carry = jax.lax.while_loop(unfinished, body, carry)
    return carry[3], carry[5]
