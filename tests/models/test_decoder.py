import dataclasses

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import build_model
from flanjax.models.decoder import DecoderConfig

TINY = DecoderConfig(32, 16, 4, 2, 8, 24, 2)


@pytest.fixture(scope="module")
def params(draw):
    return draw(TINY)


def test_a_packed_row_gives_each_example_its_own_logits(params, forward):
    first, second = np.array([5, 6, 7, 8]), np.array([9, 10, 11])
    packed = {
        "decoder_input_tokens": np.concatenate([first, second])[None],
        "decoder_segment_ids": np.array([[1, 1, 1, 1, 2, 2, 2]]),
        "decoder_positions": np.array([[0, 1, 2, 3, 0, 1, 2]]),
    }
    logits = forward(TINY, params, packed)[0]
    padded = np.stack([first, np.append(second, 0)])
    alone = forward(TINY, params, {"decoder_input_tokens": padded})
    alone = np.concatenate([alone[0], alone[1, :3]])
    np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-5)


def test_rotary_positions_matter_only_by_their_differences(params, forward):
    positions = np.arange(4) * np.array([[1], [1], [2]]) + np.array([[0], [50], [0]])
    batch = {
        "decoder_input_tokens": np.tile([5, 6, 7, 8], (3, 1)),
        "decoder_positions": positions,
    }
    near, far, stretched = forward(TINY, params, batch)
    np.testing.assert_allclose(near, far, rtol=1e-4, atol=1e-5)
    assert not np.allclose(near, stretched, atol=1e-4)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_a_later_token_is_seen_only_inside_a_prefix(params, forward, prefix_lm):
    config = dataclasses.replace(TINY, prefix_lm=prefix_lm)
    batch = {
        "decoder_input_tokens": np.array([[5, 6, 7, 8], [5, 6, 9, 8]]),
        "decoder_causal_attention": np.tile([1, 1, 1, 0], (2, 1)),
    }
    before, after = forward(config, params, batch)
    changed = np.abs(after - before).max(-1) > 0
    assert changed.tolist() == [prefix_lm, prefix_lm, True, True]


def test_dropout_depends_on_its_key(draw):
    config = dataclasses.replace(TINY, dropout_rate=0.5, num_layers=1)
    model, params = build_model(config), draw(config)
    batch = {"decoder_input_tokens": np.array([[5, 6, 7]])}

    @jax.jit
    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply({"params": params}, batch, False, rngs=rngs)

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_heads_that_cannot_share_key_heads_are_refused():
    with pytest.raises(ConfigError, match="num_kv_heads"):
        dataclasses.replace(TINY, num_kv_heads=3)
