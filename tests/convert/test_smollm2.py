"""The fetched SmolLM2 computes what transformers recorded from the same file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import import_vocabulary, open_weights
from flanjax.data.fetch import fetched_path
from flanjax.data.vocabulary import load_vocabulary
from flanjax.decode.sample import greedy
from flanjax.errors import DataError
from flanjax.models.build import build_model

pytestmark = pytest.mark.slow


def load(source):
    with open_weights(str(source)) as weights:
        return weights.config, load_params(weights)


@pytest.fixture(scope="module")
def smollm2():
    try:
        path = fetched_path("smollm2")
    except DataError as error:
        pytest.skip(str(error))
    config, params = load(f"gguf:{path}")
    return config, params, load_vocabulary(f"gguf:{path}")


@pytest.fixture(scope="module")
def golden(shared):
    directory = shared / "golden" / "smollm2"
    recorded = json.loads((directory / "reference.json").read_text())
    return recorded, dict(np.load(directory / "reference.npz"))


@pytest.fixture(scope="module")
def prompts(golden):
    ids = golden[0]["ids"]
    lengths = np.array([len(row) for row in ids])
    tokens = np.zeros((len(ids), lengths.max()), np.int32)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = values
    return {"decoder_input_tokens": tokens, "lengths": lengths}


def test_logits_and_log_probabilities_are_the_recorded_ones(smollm2, golden, prompts):
    config, params, _ = smollm2
    batch = {"decoder_input_tokens": prompts["decoder_input_tokens"]}
    logits = build_model(config).apply({"params": params}, batch)
    logprobs = np.asarray(jax.nn.log_softmax(logits))
    logits = np.asarray(logits)
    for k, length in enumerate(prompts["lengths"]):
        error = np.abs(logits[k, length - 1] - golden[1][f"last_logits_{k}"])
        assert error.max() < 2e-3
        following = batch["decoder_input_tokens"][k, 1:length]
        total = logprobs[k, np.arange(length - 1), following].sum(dtype=np.float64)
        assert abs(total - golden[1][f"logprob_sum_{k}"]) < 1e-2


def test_greedy_text_is_the_recorded_one(smollm2, golden, prompts):
    config, params, vocabulary = smollm2
    prompts = jax.tree.map(jnp.asarray, prompts)
    model = build_model(config)
    tokens, _ = greedy(model, params, prompts, 16, vocabulary.eos_id)
    for row, expected in zip(np.asarray(tokens), golden[0]["greedy16"], strict=True):
        assert row[: len(expected)].tolist() == expected


def test_the_model_survives_export_and_loading(smollm2, tmp_path):
    config, params, vocabulary = smollm2
    export = save_huggingface(tmp_path / "export", config, params, vocabulary)
    loaded_config, loaded = load(export)
    assert loaded_config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    restored = import_vocabulary(str(export))
    texts = ["The capital of France is 12345", "<|im_start|>user"]
    assert restored.encode_batch(texts) == vocabulary.encode_batch(texts)
    assert restored.chat_template == vocabulary.chat_template
