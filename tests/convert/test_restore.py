"""What a run takes over from other weights, and what it says about the rest."""

import dataclasses
import re

import numpy as np
import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import parameter_shapes
from flanjax.convert.restore import RestoreConfig, plan_restore
from flanjax.convert.t5x_write import save_t5x
from flanjax.convert.weights import open_weights
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.models.t5 import T5Config
from flanjax.train.trees import unflatten

T5 = T5Config(24, 16, 2, 4, 12, 2, 2)
UNTIED = dataclasses.replace(T5, logits_via_embedding=False)
TIED = dataclasses.replace(T5, logits_via_embedding=True)
DECODER = DecoderConfig(
    *(24, 16, 2, 2, 4, 12, 2),
    mlp_activations=("gelu", "linear"),
    positions="relative",
    scale_attention=False,
    logits_via_embedding=False,
    norm_epsilon=1e-6,
)
HEAD = "decoder/logits_dense/kernel"


def random_params(config):
    draw = np.random.default_rng(0)
    return unflatten(
        {
            path: draw.normal(size=shape).astype(np.float32)
            for path, shape in parameter_shapes(config).items()
        }
    )


@pytest.fixture(scope="module")
def t5x(tmp_path_factory):
    """Checkpoints by configuration, written once."""
    written = {}

    def source(config) -> str:
        if config not in written:
            path = tmp_path_factory.mktemp("t5x")
            save_t5x(path, config, random_params(config), step=1_100_000)
            written[config] = f"t5x:{path}"
        return written[config]

    return source


def planned(source, config, **settings):
    restore = RestoreConfig(**settings)
    with open_weights(source, config, whole=not restore.partial) as weights:
        return plan_restore(weights, config, restore)


def test_a_model_of_the_same_kind_is_restored_whole(t5x):
    plan = planned(t5x(T5), T5)
    total = len(parameter_shapes(T5))
    assert plan.line() == f"restored {total} of {total} parameters"
    assert f"Restored ({total}):\n" in plan.text()
    assert [e.path for e in plan.view.entries()]


def test_adapters_are_fresh_and_counted(t5x):
    plan = planned(t5x(T5), dataclasses.replace(T5, lora=LoraConfig(rank=2)))
    assert plan.adapters and f", {plan.adapters} adapters drawn fresh" in plan.line()


def test_what_may_be_fresh_is_and_is_listed(t5x):
    plan = planned(t5x(TIED), UNTIED, fresh=[r"decoder/logits_dense/.*"])
    assert list(plan.fresh) == [HEAD]
    assert "1 drawn fresh, 1 settings differ" in plan.line()
    assert f"Drawn fresh (1):\n{HEAD}" in plan.text()
    assert "logits_via_embedding is True, the run has False" in plan.text()


def test_what_is_missing_is_named_with_the_nearest_there(t5x):
    with pytest.raises(CheckpointError) as caught:
        planned(t5x(TIED), UNTIED, unexpected="ignore")
    message = str(caught.value)
    assert "1 parameters are not in the weights: " + HEAD in message
    assert "Nearest there: 'decoder/" in message and "RestoreConfig.fresh" in message
    assert caught.value.exit_code == 5


def test_what_only_the_weights_have_is_an_error_or_ignored(t5x):
    with pytest.raises(CheckpointError, match=f"1 .* only in the weights: {HEAD}"):
        planned(t5x(UNTIED), TIED, fresh=[".*/scale"])
    plan = planned(t5x(UNTIED), TIED, unexpected="ignore")
    assert "1 of the weights ignored" in plan.line()
    assert f"Ignored, only in the weights (1):\n{HEAD}" in plan.text()


def test_arrays_that_t5_has_no_place_for_can_be_ignored(t5x, tmp_path):
    import msgpack

    path = save_t5x(tmp_path, T5, random_params(T5), step=1) / "checkpoint"
    index = msgpack.unpackb(path.read_bytes(), ext_hook=msgpack.ExtType)
    target = index["optimizer"]["target"]
    target["adapter"] = target["encoder"]["encoder_norm"]
    path.write_bytes(msgpack.packb(index))
    plan = planned(f"t5x:{tmp_path}", T5, unexpected="ignore")
    assert list(plan.unexpected) == ["adapter/scale"]


def test_a_decoder_starts_from_the_decoder_of_an_encoder_decoder(t5x):
    plan = planned(t5x(T5), DECODER, unexpected="ignore")
    assert len(plan.restored) == len(parameter_shapes(DECODER))
    assert all(not name.startswith("encoder/") for name in plan.restored.values())
    assert "the weights are for a T5Config" in plan.text()


def test_renamed_parameters_are_read_from_where_the_expression_says(t5x):
    block = dataclasses.replace(DECODER, parallel_block=True)
    plan = planned(
        t5x(DECODER),
        block,
        assign={r"(.*)/pre_block_(.*)": r"\1/pre_mlp_\2"},
        unexpected="ignore",
    )
    theirs = "decoder/layers/pre_mlp_layer_norm/scale"
    assert plan.renamed == ["decoder/layers/pre_block_layer_norm/scale"]
    assert plan.restored[plan.renamed[0]] == theirs
    assert "1 renamed" in plan.line() and f"  from {theirs}\n" in plan.text()
    entry = next(e for e in plan.view.entries() if e.path[-2].startswith("pre_block"))
    assert entry.names[1] == "decoder/layers_1/pre_mlp_layer_norm/scale"


def test_an_assigned_name_that_is_not_there_is_named(t5x):
    with pytest.raises(CheckpointError, match=re.escape("(assigned to head/kernel)")):
        planned(t5x(UNTIED), UNTIED, assign={HEAD: "head/kernel"}, unexpected="ignore")


def test_parameters_of_another_shape_are_named_with_both(t5x):
    other = dataclasses.replace(T5, vocab_size=32)
    with pytest.raises(CheckpointError) as caught:
        planned(t5x(T5), other, unexpected="ignore")
    message = str(caught.value)
    assert f"2 parameters have other shapes: {HEAD} is (16, 24)" in message
    assert "(24, 16) in the weights and (32, 16) in the model" in message
    deeper = dataclasses.replace(T5, num_decoder_layers=3)
    with pytest.raises(CheckpointError, match="; and 9 more"):
        planned(t5x(T5), deeper, unexpected="ignore")


def test_without_partial_settings_another_model_is_refused_by_its_fields(t5x):
    with pytest.raises(CheckpointError, match="logits_via_embedding is True"):
        planned(t5x(TIED), UNTIED)


def test_hugging_face_and_gguf_weights_restore_in_part_too(
    tmp_path, write_gguf, llama_tensors, llama_config
):
    plain = dataclasses.replace(T5, num_decoder_layers=2)
    save_huggingface(tmp_path / "hf", plain, random_params(plain))
    tied = dataclasses.replace(llama_config, logits_via_embedding=True)
    for source, config in [
        (str(tmp_path / "hf"), dataclasses.replace(plain, logits_via_embedding=True)),
        (f"gguf:{write_gguf(llama_tensors)}", tied),
    ]:
        plan = planned(source, config, unexpected="ignore")
        assert list(plan.unexpected) == [HEAD]
        with pytest.raises(CheckpointError, match=HEAD):
            planned(source, config, fresh=[".*"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": "chekpoint"}, "Did you mean 'checkpoint'"),
        ({"unexpected": "skip"}, "RestoreConfig.unexpected"),
        ({"fresh": "decoder/.*"}, r"give a list: \[\"decoder/\.\*\"\]"),
        ({"fresh": ["decoder/("]}, "no regular expression"),
        ({"assign": {"*": "x"}}, "no regular expression"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RestoreConfig(**settings)


@pytest.mark.parametrize("field", ["fresh", "assign"])
def test_a_pattern_that_matches_nothing_is_refused(t5x, field):
    pattern = "decoder/logit_dense/kernel"
    value = [pattern] if field == "fresh" else {pattern: "x"}
    with pytest.raises(ConfigError, match=f"RestoreConfig.{field}") as caught:
        planned(t5x(UNTIED), UNTIED, **{field: value})
    assert f"Did you mean '{HEAD}'" in str(caught.value)
