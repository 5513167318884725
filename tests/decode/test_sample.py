import dataclasses

import jax
import numpy as np
import pytest

from flanjax.decode.cache import start, step
from flanjax.decode.sample import greedy
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import stack_layers, unstack_layers
from flanjax.models.t5 import T5Config

TINY = DecoderConfig(32, 16, 4, 2, 8, 24, 2)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes, _ = abstract_params(build_model(TINY))
    draw = lambda s: rng.normal(0.0, 0.3, s.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes)


@pytest.fixture(scope="module")
def recorded(shared):
    with np.load(shared / "golden" / "t5x" / "decode.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def t5(shared):
    tree = {}
    with np.load(shared / "golden" / "t5x" / "decode_params.npz") as arrays:
        for name, value in arrays.items():
            *parents, leaf = name.split("/")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[leaf] = value
    return build_model(T5Config(384, 32, 2, 16, 64, 2, 2)), stack_layers(tree)


@pytest.mark.parametrize("rows", ["padded", "unpadded"])
def test_greedy_tokens_and_scores_equal_t5x(t5, recorded, rows):
    prompts = {"encoder_input_tokens": recorded[f"encoder_input_tokens_{rows}"]}
    tokens, scores = greedy(*t5, prompts, 14, eos_id=1)
    np.testing.assert_array_equal(tokens, recorded[f"greedy/{rows}/tokens"])
    np.testing.assert_allclose(scores, recorded[f"greedy/{rows}/scores"], atol=1e-4)


@pytest.mark.parametrize("rows", ["padded", "unpadded"])
def test_forced_tokens_are_taken_and_not_scored_as_in_t5x(t5, recorded, rows):
    prompts = {"encoder_input_tokens": recorded[f"encoder_input_tokens_{rows}"]}
    forced = recorded[f"greedy_prompt/{rows}/decoder_input_tokens"]
    forced = np.pad(forced[:, 1:], ((0, 0), (0, 1)))
    tokens, scores = greedy(*t5, prompts, 14, eos_id=1, forced=forced)
    np.testing.assert_array_equal(tokens, recorded[f"greedy_prompt/{rows}/tokens"])
    expected = recorded[f"greedy_prompt/{rows}/scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_rows_of_different_length_decode_as_if_alone(params):
    model = build_model(TINY)
    whole = jax.jit(lambda tokens: model.apply({"params": params}, tokens))

    def slow_greedy(prompt, count, eos_id):
        """One full forward pass for each token."""
        text, score = list(prompt), 0.0
        for _ in range(count):
            padded = np.array([text + [0] * (11 - len(text))])
            logits = np.asarray(whole({"decoder_input_tokens": padded}))
            logits = logits[0, len(text) - 1].astype(np.float64)
            best = int(np.argmax(logits))
            score += logits[best] - np.log(np.sum(np.exp(logits)))
            text.append(best)
            if best == eos_id:
                break
        answer = text[len(prompt) :]
        return answer + [0] * (count - len(answer)), score

    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14]]
    batch = {
        "decoder_input_tokens": np.array([p + [31] * (6 - len(p)) for p in prompts]),
        "lengths": np.array([len(p) for p in prompts]),
    }
    eos_id = slow_greedy(prompts[0], 5, -1)[0][2]
    tokens, scores = greedy(model, params, batch, 5, eos_id)
    for prompt, answer, score in zip(prompts, tokens, scores, strict=True):
        expected, expected_score = slow_greedy(prompt, 5, eos_id)
        assert answer.tolist() == expected
        np.testing.assert_allclose(score, expected_score, rtol=1e-5)


def test_rows_end_at_limits_of_their_own(params):
    prompts = {"decoder_input_tokens": np.array([[5, 6], [7, 8]])}
    prompts["lengths"] = np.array([2, 1])

    def decode(*limits):
        model = build_model(TINY)
        return greedy(model, params, prompts, 4, -1, limits=np.array(limits))

    (whole, all_scores), (tokens, scores) = decode(4, 4), decode(2, 4)
    np.testing.assert_array_equal(tokens[0], [*whole[0, :2], 0, 0])
    np.testing.assert_array_equal(tokens[1], whole[1])
    assert scores[1] == all_scores[1] and all_scores[0] < scores[0]
    assert decode(2, 1)[1][0] == scores[0]


def test_separate_layers_decode_as_scanned_ones(params):
    batch = {"decoder_input_tokens": np.array([[5, 6], [7, 8]]), "lengths": [2, 1]}
    batch["lengths"] = np.array(batch["lengths"])
    scanned = greedy(build_model(TINY), params, batch, 4, 1)
    separate = unstack_layers(params)
    model = build_model(dataclasses.replace(TINY, scan_layers=False))
    alone = greedy(model, separate, batch, 4, 1)
    given = greedy(build_model(TINY), params, batch, 4, 1, unstacked=separate)
    for tokens, scores in (alone, given):
        np.testing.assert_array_equal(tokens, scanned[0])
        np.testing.assert_allclose(scores, scanned[1], rtol=1e-5)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_steps_give_the_logits_of_the_whole_text(params, prefix_lm):
    model = build_model(dataclasses.replace(TINY, prefix_lm=prefix_lm))
    text = np.array([[5, 6, 7, 8, 9]])
    whole = jax.jit(lambda b: model.apply({"params": params}, b))(
        {
            "decoder_input_tokens": text,
            "decoder_causal_attention": np.array([[1, 1, 1, 0, 0]]),
        }
    )
    prompts = {"decoder_input_tokens": text[:, :3], "lengths": np.array([3])}
    state, logits = jax.jit(lambda p: start(model, params, p, 2))(prompts)
    one_step = jax.jit(lambda s, t: step(model, params, s, t))
    for position in (2, 3, 4):
        np.testing.assert_allclose(logits, whole[:, position], rtol=1e-4, atol=1e-4)
        if position < 4:
            state, logits = one_step(state, text[:, position + 1])
