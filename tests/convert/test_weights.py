"""Weights are taken for a model only if they are of that model."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import (
    import_context_length,
    import_vocabulary,
    open_weights,
)
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import CheckpointError
from flanjax.models.lora import LoraConfig
from flanjax.models.t5 import T5Config


def load(source, config=None, **how):
    with open_weights(str(source), config) as weights:
        return weights.config, load_params(weights, **how)


@pytest.fixture
def source(write_gguf, llama_tensors):
    return f"gguf:{write_gguf(llama_tensors)}"


def test_training_choices_are_the_runs_and_sizes_the_weights(source, llama_config):
    wanted = dataclasses.replace(
        llama_config, dropout_rate=0.1, dtype="bfloat16", lora=LoraConfig(rank=4)
    )
    config, params = load(source, wanted)
    assert config == llama_config
    _, stacked = load(source)
    jax.tree.map(np.testing.assert_array_equal, params, stacked)


def test_layers_can_be_read_into_one_tree_each(source):
    _, params = load(source, stacked=False)
    _, stacked = load(source)
    np.testing.assert_array_equal(
        params["decoder"]["layers_1"]["mlp"]["wo"]["kernel"],
        stacked["decoder"]["layers"]["mlp"]["wo"]["kernel"][1],
    )


def test_every_field_that_differs_is_named(source, llama_config):
    other = dataclasses.replace(llama_config, num_layers=3, rope_base=1e4)
    message = "num_layers is 2, the run has 3; rope_base is 50000.0, the run has 10000"
    with pytest.raises(CheckpointError, match=message):
        load(source, other)


def test_weights_of_another_family_are_refused(source):
    t5 = T5Config(300, 256, 4, 64, 256, 2, 2)
    with pytest.raises(CheckpointError, match="DecoderConfig.*T5Config"):
        load(source, t5)


def test_an_exported_model_brings_its_vocabulary(source, tmp_path):
    config, params = load(source)
    vocabulary = import_vocabulary(source)
    export = save_huggingface(
        tmp_path / "export", config, params, vocabulary, context_length=512
    )
    restored = import_vocabulary(str(export))
    texts = ["one 12 bone", "été <turn> 🙂", ""]
    assert restored.encode_batch(texts) == vocabulary.encode_batch(texts)
    chat = [{"role": "user", "content": "one"}]
    rendered = restored.render_chat(chat, True)
    assert rendered == vocabulary.render_chat(chat, True)
    assert restored.encode(rendered, special=True)[0] == 1
    for name in ("pad_id", "eos_id", "bos_id", "unk_id", "size", "chat_template"):
        assert getattr(restored, name) == getattr(vocabulary, name), name
    assert import_context_length(str(export)) == 512
    assert import_context_length(source) is None  # This file does not say.


def test_bytes_and_sentencepiece_are_found_again(source, tmp_path, shared):
    config, params = load(source)
    model = shared / "data/tokenizer/seqio_test_sentencepiece.model"
    for spec in ("bytes", f"sentencepiece:{model}"):
        vocabulary = load_vocabulary(spec)
        export = save_huggingface(tmp_path / "export", config, params, vocabulary)
        restored = import_vocabulary(str(export))
        assert restored.fingerprint() == vocabulary.fingerprint()
    save_huggingface(tmp_path / "export", config, params)
    assert import_vocabulary(str(export)) is None


def test_the_command_writes_bfloat16(source, llama_config, tmp_path):
    output = tmp_path / "out"
    assert main(["convert", "import", source, str(output), "--dtype", "bfloat16"]) == 0
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"
    config, params = load(output)
    assert config == llama_config
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16).astype(np.float32), load(source)[1]
    )
    jax.tree.map(np.testing.assert_array_equal, params, rounded)
    assert import_vocabulary(str(output)).encode("one") == [259]
