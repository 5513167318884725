"""Beam search: exhaustive where it can be, and the same whatever the layout."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.decode import cache
from flanjax.decode.beam import NO_HYPOTHESIS, beam_search
from flanjax.decode.sample import greedy
from flanjax.decode.score import score_batch, token_scores
from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import unstack_layers
from flanjax.models.t5 import T5Config

EOS = 1
VOCAB = 5
LENGTH = 6
MODELS = {
    "encoder_decoder": T5Config(VOCAB, 16, 2, 8, 24, 1, 2, relpos_per_layer=True),
    "decoder": DecoderConfig(VOCAB, 16, 4, 2, 8, 24, 2),
}
ONE_FAST = [pytest.param("encoder_decoder", marks=pytest.mark.slow), "decoder"]
PROMPTS = {
    "encoder_decoder": {
        "encoder_input_tokens": np.array([[2, 3, 4, 1], [4, 1, 0, 0], [3, 3, 1, 0]])
    },
    "decoder": {
        "decoder_input_tokens": np.array([[2, 3, 4, 1], [4, 1, 0, 0], [3, 3, 1, 0]]),
        "lengths": np.array([4, 2, 3]),
    },
}


@functools.cache
def drawn(kind, **changes):
    """A random model whose probabilities are far from equal."""
    model = build_model(dataclasses.replace(MODELS[kind], **changes))
    rng = np.random.default_rng(3)
    draw = lambda s: rng.normal(0.0, 0.5, s.shape).astype(np.float32)  # noqa: E731
    return model, jax.tree.map(draw, abstract_params(model)[0])


def forced_scores(kind, model, params, texts):
    """Log-probability of texts [batch, N, tokens], through their end."""
    scores = []
    for n in range(texts.shape[1]):
        batch = _batch(kind, np.asarray(texts[:, n]))
        scores.append(score_batch(model, params, batch))
    return np.stack(scores, axis=1)


def _batch(kind, targets):
    """Weights and segments are given: 0 is a token of this vocabulary too."""
    ended = np.cumsum(targets == EOS, axis=1) - (targets == EOS)
    if kind == "encoder_decoder":
        return PROMPTS[kind] | {
            "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
            "decoder_target_tokens": targets,
            "decoder_loss_weights": ended == 0,
            "decoder_segment_ids": np.ones_like(targets),
        }
    batch = {
        f"decoder_{name}": np.zeros((len(targets), 12), np.int32)
        for name in ("input_tokens", "target_tokens", "loss_weights")
    }
    for i, length in enumerate(PROMPTS[kind]["lengths"]):
        text = [*PROMPTS[kind]["decoder_input_tokens"][i, :length], *targets[i]]
        batch["decoder_input_tokens"][i, : len(text)] = text
        batch["decoder_target_tokens"][i, : len(text) - 1] = text[1:]
        batch["decoder_loss_weights"][i, length - 1 : len(text) - 1] = ended[i] == 0
    return batch


@pytest.mark.parametrize("kind", ONE_FAST)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_as_wide_as_all_texts_lists_them_in_order(kind, alpha):
    """Of length 2 there are as many ended texts as tokens: [1] and [a, 1]."""
    model, params = drawn(kind)
    width = VOCAB**2
    tokens, scores = beam_search(
        model, params, PROMPTS[kind], 2, EOS, num_decodes=width, alpha=alpha
    )
    texts = [(EOS, 0), *((a, EOS) for a in range(VOCAB) if a != EOS)]
    every = np.broadcast_to(np.array(texts), (3, VOCAB, 2))
    lengths = np.array([1] + [2] * (VOCAB - 1))
    expected = forced_scores(kind, model, params, every) / ((5 + lengths) / 6) ** alpha
    order = np.argsort(expected, axis=1)
    got, scores = np.asarray(tokens), np.asarray(scores)
    for i in range(3):
        assert got[i, -VOCAB:].tolist() == every[i][order[i]].tolist()
        np.testing.assert_allclose(
            scores[i, -VOCAB:], expected[i][order[i]], rtol=1e-4, atol=1e-5
        )
    assert (scores[:, :-VOCAB] == NO_HYPOTHESIS).all()
    assert (got[:, :-VOCAB] == 0).all()


@pytest.mark.parametrize("kind", ONE_FAST)
def test_texts_that_never_end_are_given_as_they_are(kind):
    model, params = drawn(kind)
    width = VOCAB**2
    tokens, scores = beam_search(
        model, params, PROMPTS[kind], 2, -1, num_decodes=width, alpha=0.6
    )
    every = np.array(list(itertools.product(range(VOCAB), repeat=2)))
    for i in range(3):
        assert sorted(np.asarray(tokens)[i].tolist()) == every.tolist()
    # All probability there is.
    np.testing.assert_allclose(jnp.sum(jnp.exp(scores), axis=1), 1.0, rtol=1e-4)
    assert (np.diff(scores, axis=1) >= 0).all()


@pytest.mark.parametrize(
    "kind", ["encoder_decoder", pytest.param("decoder", marks=pytest.mark.slow)]
)
def test_scores_are_those_of_the_texts_given_to_the_model(kind):
    model, params = drawn(kind)
    found = beam_search(
        model, params, PROMPTS[kind], LENGTH, EOS, num_decodes=3, alpha=0.6
    )
    tokens, scores = map(np.asarray, found)
    ended = scores > NO_HYPOTHESIS
    assert ended.sum() >= 5
    np.testing.assert_array_equal((tokens == EOS).any(axis=2), ended)
    ends = np.argmax(tokens == EOS, axis=2) + 1
    expected = forced_scores(kind, model, params, tokens) / ((5 + ends) / 6) ** 0.6
    np.testing.assert_allclose(scores[ended], expected[ended], rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) >= 0).all()
    for texts, kept in zip(tokens.tolist(), ended.sum(axis=1), strict=True):
        assert len(set(map(tuple, texts[3 - kept :]))) == kept


@pytest.mark.parametrize("kind", ONE_FAST)
def test_stacked_layers_and_other_orders_of_rows_give_the_same_texts(kind):
    model, params = drawn(kind)
    search = functools.partial(
        beam_search, max_decode_tokens=LENGTH, eos_id=EOS, num_decodes=3, alpha=0.6
    )
    tokens, scores = search(model, params, PROMPTS[kind])
    order = np.array([2, 0, 1])
    moved = {name: value[order] for name, value in PROMPTS[kind].items()}
    others = [
        search(model, params, moved),
        search(model, params, moved, unstacked=unstack_layers(params)),
    ]
    written_out = build_model(dataclasses.replace(MODELS[kind], scan_layers=False))
    others.append(search(written_out, unstack_layers(params), moved))
    for got in others:
        np.testing.assert_array_equal(got[0], np.asarray(tokens)[order])
        np.testing.assert_allclose(got[1], np.asarray(scores)[order], rtol=1e-5)


@pytest.mark.parametrize(
    "kind, scanned",
    [
        ("decoder", True),
        pytest.param("decoder", False, marks=pytest.mark.slow),
        pytest.param("encoder_decoder", False, marks=pytest.mark.slow),
        pytest.param("encoder_decoder", True, marks=pytest.mark.slow),
    ],
)
def test_rows_that_change_places_go_on_from_the_other_text(kind, scanned):
    """Beams of one row swap: their next logits swap with them."""
    model, params = drawn(kind)
    prompts = {name: value[:1] for name, value in PROMPTS[kind].items()}
    start = jax.jit(cache.start, static_argnums=(0, 3))
    state, _ = start(model, params, prompts, LENGTH)
    if not scanned:
        state, params = cache.unstack_state(state), unstack_layers(params)
        model = cache.unstacked_model(model)
    state = cache.repeat_rows(state, 2)
    one_step = jax.jit(lambda s, t: cache.step(model, params, s, t))
    state, _ = one_step(state, jnp.array([2, 3]))
    _, plain = one_step(state, jnp.array([4, 4]))
    _, swapped = one_step(cache.take_rows(state, jnp.array([1, 0])), jnp.array([4, 4]))
    assert np.abs(plain[0] - plain[1]).max() > 1e-2
    np.testing.assert_allclose(swapped, plain[::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_one_beam_may_go_on_where_greedy_decoding_ends():
    """T5X's search keeps a living text beside the one that ended."""
    model, params = drawn("decoder")
    prompts = PROMPTS["decoder"]
    greedily, _ = greedy(model, params, prompts, LENGTH, EOS)
    # So large an exponent prefers the longest text.
    found, _ = beam_search(
        model, params, prompts, LENGTH, EOS, num_decodes=1, alpha=20.0
    )
    lengths = np.sum(np.asarray(greedily) > 0, axis=1)
    assert found.shape == (3, 1, LENGTH)
    assert (np.sum(np.asarray(found[:, 0]) > 0, axis=1) > lengths).any()


@pytest.mark.slow
def test_token_scores_are_log_probabilities_times_weights():
    model, params = drawn("encoder_decoder")
    batch = PROMPTS["encoder_decoder"] | {
        "decoder_input_tokens": np.array([[0, 3, 2], [0, 4, 4], [0, 2, 1]]),
        "decoder_target_tokens": np.array([[3, 2, 1], [4, 4, 1], [2, 1, 0]]),
    }
    logits = jax.jit(lambda b: model.apply({"params": params}, b))(batch)
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(logits), batch["decoder_target_tokens"][..., None], axis=-1
    )[..., 0]
    got = token_scores(model, params, batch)
    np.testing.assert_allclose(got, chosen.at[2, 2].set(0.0), rtol=1e-5, atol=1e-6)
    weights = np.array([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    rows = score_batch(model, params, batch | {"decoder_loss_weights": weights})
    np.testing.assert_allclose(
        rows, np.sum(np.asarray(chosen) * weights, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("wrong", [{"num_decodes": 0}, {"alpha": -0.5}])
def test_a_search_that_cannot_be_is_refused(wrong):
    model, params = drawn("decoder")
    with pytest.raises(ConfigError, match="beam search with"):
        beam_search(model, params, PROMPTS["decoder"], 2, EOS, **wrong)
