import dataclasses

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig, is_lora, merge_lora

PLAIN = DecoderConfig(32, 16, 4, 2, 8, 24, 2)
ADAPTED = dataclasses.replace(PLAIN, lora=LoraConfig(rank=2, alpha=6.0))
BATCH = {"decoder_input_tokens": np.array([[5, 6, 7, 8]])}


def names(params):
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [tuple(key.key for key in path) for path, _ in flat]


def test_a_fresh_adapter_changes_nothing():
    lora = LoraConfig(rank=2, targets=["wo"])
    config = dataclasses.replace(PLAIN, lora=lora, num_layers=1)
    fresh, _ = init_params(build_model(config), jax.random.key(0))
    merged = merge_lora(fresh, config)
    assert not any(is_lora(name) for name in names(merged))
    before, after = (tree["decoder"]["layers"]["mlp"]["wo"] for tree in (fresh, merged))
    assert np.any(before["lora_a"])
    np.testing.assert_array_equal(before["kernel"], after["kernel"])


def test_merged_kernels_are_the_same_function(draw, forward):
    trained = draw(ADAPTED)
    merged = merge_lora(trained, ADAPTED)
    logits, expected = forward(ADAPTED, trained, BATCH), forward(PLAIN, merged, BATCH)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_targets_choose_the_kernels_that_are_adapted():
    config = dataclasses.replace(
        PLAIN, lora=LoraConfig(rank=2, targets=["self_attention/(query|value)"])
    )
    params, axes = abstract_params(build_model(config))
    adapted = {name[-2] for name in names(params) if is_lora(name)}
    assert adapted == {"query", "value"}
    assert params["decoder"]["layers"]["self_attention"]["query"]["lora_a"].shape == (
        2,
        16,
        2,
    )
    query = axes["decoder"]["layers"]["self_attention"]["query"]
    assert query["lora_b"] == ("layers", "lora_rank", "joined_kv")


def test_a_negative_rank_is_refused():
    with pytest.raises(ConfigError, match="rank"):
        LoraConfig(rank=-1)
