"""Hugging Face directories: what goes in comes out, and agrees with transformers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import open_weights
from flanjax.decode.sample import greedy
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import unstack_layers
from flanjax.models.lora import LoraConfig
from flanjax.models.t5 import T5Config

T5_1_1 = T5Config(
    vocab_size=40,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=3,
    num_decoder_layers=2,
    dropout_rate=0.1,
)
T5_1_0 = dataclasses.replace(
    T5_1_1, mlp_activations=("relu",), logits_via_embedding=True
)
LLAMA = DecoderConfig(
    vocab_size=40,
    emb_dim=12,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=20,
    num_layers=3,
    rope_base=1e5,
)
LLAMA_UNTIED = dataclasses.replace(
    LLAMA, logits_via_embedding=False, num_kv_heads=4, norm_epsilon=1e-6
)
MODELS = {
    "t5_1_1": T5_1_1,
    "t5_1_0": T5_1_0,
    "llama": LLAMA,
    "llama_untied": LLAMA_UNTIED,
}
GOLDEN = ("hf_t5_v1_1", "hf_t5_v1_0", "hf_llama_gqa_tied", "hf_llama_mha_untied")


@functools.lru_cache
def shapes_of(config):
    return abstract_params(build_model(config))[0]


def drawn(config, seed=0):
    """Random parameters, without compiling an initialiser."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), shapes_of(config)
    )


def load(source):
    with open_weights(str(source)) as weights:
        return weights.config, load_params(weights)


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading_changes_no_bit(name, tmp_path):
    config, params = MODELS[name], drawn(MODELS[name])
    directory = save_huggingface(tmp_path / "model", config, params)
    loaded_config, loaded = load(directory)
    assert loaded_config == config
    assert_same(loaded, params)
    again = save_huggingface(tmp_path / "again", loaded_config, loaded)
    for file in ("config.json", "model.safetensors", "generation_config.json"):
        assert (again / file).read_bytes() == (directory / file).read_bytes()


@pytest.mark.parametrize("config", [T5_1_1, T5_1_0], ids=["untied", "tied"])
def test_a_t5_head_is_written_so_that_both_versions_of_transformers_agree(
    config, tmp_path
):
    from safetensors.numpy import load_file

    directory = save_huggingface(tmp_path / "model", config, drawn(config))
    facts = json.loads((directory / "config.json").read_text())
    tied = config.logits_via_embedding
    assert facts["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in load_file(directory / "model.safetensors")) is not tied


def test_layers_that_are_not_stacked_are_saved_the_same(tmp_path):
    params = drawn(LLAMA)
    config = dataclasses.replace(LLAMA, scan_layers=False)
    stacked = save_huggingface(tmp_path / "stacked", LLAMA, params)
    flat = save_huggingface(tmp_path / "flat", config, unstack_layers(params))
    weights = "model.safetensors"
    assert (stacked / weights).read_bytes() == (flat / weights).read_bytes()


def test_sharded_weights_are_one_model(tmp_path):
    from safetensors.numpy import load_file, save_file

    params = drawn(T5_1_1)
    directory = save_huggingface(tmp_path / "model", T5_1_1, params)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = {}
    for i in range(3):
        file = f"model-0000{i}-of-00003.safetensors"
        part = {n: t for k, (n, t) in enumerate(tensors.items()) if k % 3 == i}
        save_file(part, directory / file)
        names |= dict.fromkeys(part, file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert_same(load(directory)[1], params)
    (directory / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00001-of-00003"):
        load(directory)


def test_bfloat16_weights_become_float32(tmp_path):
    from safetensors.numpy import load_file, save_file

    directory = save_huggingface(tmp_path / "model", LLAMA, drawn(LLAMA))
    file = directory / "model.safetensors"
    tensors = {n: t.astype(jnp.bfloat16) for n, t in load_file(file).items()}
    save_file(tensors, file)
    _, params = load(directory)
    embedding = params["token_embedder"]["embedding"]
    assert embedding.dtype == np.float32
    expected = tensors["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(embedding, expected)


def edited(tmp_path, config, **changes):
    directory = save_huggingface(tmp_path / "model", config, drawn(config))
    facts = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(facts))
    return directory


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (LLAMA, {"model_type": "gpt2"}, "'gpt2'"),
        (LLAMA, {"attention_bias": True}, "attention_bias is True"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias is True"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA, {"rope_scaling": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        (LLAMA, {"rope_scaling": {"type": "dynamic"}}, "rope_type is 'dynamic'"),
        (LLAMA, {"rope_parameters": {"rope_type": "llama3"}}, "no 'factor'"),
        (LLAMA, {"rope_parameters": {"full_attention": {}}}, "rope_parameters"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        (LLAMA, {"model_type": "mixtral"}, "'mixtral'.*Did you mean 'mistral'"),
        (LLAMA, {"vocab_size": 41}, r"\(40, 12\).*\(41, 12\)"),
        (LLAMA, {"hidden_size": None}, "no 'hidden_size'"),
        (LLAMA, {"model_type": "qwen2"}, "q_proj.bias' is missing"),
        (LLAMA, {"num_hidden_layers": 2}, "no place"),
        (LLAMA, {"num_hidden_layers": 4}, r"layers\.3.*missing"),
        (LLAMA, {"intermediate_size": 24}, r"gate_proj.*\(20, 12\).*\(24, 12\)"),
        (T5_1_1, {"feed_forward_proj": "gated-swish"}, "gated-swish"),
        (T5_1_1, {"tie_word_embeddings": True}, "tied"),
        (T5_1_0, {"tie_word_embeddings": False}, "tied"),
    ],
)
def test_weights_of_another_model_are_refused(config, changes, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load(edited(tmp_path, config, **changes))


def test_the_config_files_of_transformers_4_are_read(tmp_path):
    changes = {"rope_parameters": None, "rope_theta": 1e5, "head_dim": 6}
    config, _ = load(edited(tmp_path, LLAMA, **changes))
    assert config == LLAMA


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        load(tmp_path)


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    directory = save_huggingface(tmp_path / "model", LLAMA, drawn(LLAMA))
    params = drawn(LLAMA, seed=1)
    save_huggingface(directory, LLAMA, params)
    assert_same(load(directory)[1], params)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter_1.tex").touch()
    with pytest.raises(ConfigError, match="something else"):
        save_huggingface(tmp_path / "thesis", LLAMA, params)
    assert (tmp_path / "thesis" / "chapter_1.tex").exists()


def test_what_hugging_face_cannot_express_is_not_exported(tmp_path):
    config = dataclasses.replace(LLAMA, lora=LoraConfig(rank=2))
    with pytest.raises(ConfigError, match="adapters"):
        save_huggingface(tmp_path / "a", config, drawn(config))
    config = dataclasses.replace(LLAMA, prefix_lm=True)
    with pytest.raises(ConfigError, match="causal"):
        save_huggingface(tmp_path / "b", config, drawn(LLAMA))
    config = dataclasses.replace(T5_1_1, mlp_activations=("gelu", "relu"))
    with pytest.raises(ConfigError, match="feed-forward"):
        save_huggingface(tmp_path / "c", config, drawn(T5_1_1))
    assert not list(tmp_path.iterdir())


def golden_batch(config, reference):
    """Features of the recorded inputs, and where the logits count."""
    if isinstance(config, DecoderConfig):
        tokens = reference["input_ids"]
        return {"decoder_input_tokens": tokens}, np.ones(tokens.shape, bool)
    labels = reference["labels"]
    targets = np.where(labels < 0, 0, labels)
    batch = {
        "encoder_input_tokens": reference["input_ids"],
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
    }
    return batch, labels >= 0


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_loss_and_greedy_text_are_those_of_transformers(name, shared):
    directory = shared / "golden" / name
    config, params = load(directory)
    reference = dict(np.load(directory / "reference.npz"))
    batch, counted = golden_batch(config, reference)
    # In float64: hf_t5_v1_1 turns the rounding of float32, in whichever order sums
    # are taken, into 0.4e-4 to 1.9e-4 of its logits.
    with jax.enable_x64(True):
        model = build_model(dataclasses.replace(config, dtype="float64"))
        logits = np.asarray(jax.jit(model.apply)({"params": params}, batch))
    error = np.abs(logits - reference["logits"])[counted]
    assert error.max() < 1e-4
    if isinstance(config, DecoderConfig):
        logits, targets = logits[:, :-1], reference["input_ids"][:, 1:]
        counted = counted[:, 1:]
        prompts = {
            "decoder_input_tokens": jnp.asarray(reference["input_ids"]),
            "lengths": jnp.full(3, reference["input_ids"].shape[1]),
        }
        expected, eos_id = reference["greedy"], 2
    else:
        targets = batch["decoder_target_tokens"]
        prompts = {"encoder_input_tokens": jnp.asarray(reference["input_ids"])}
        expected, eos_id = reference["greedy"][:, 1:], 1  # Less the start id.
    shifted = logits - logits.max(-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    taken = np.take_along_axis(logprobs, targets[..., None], -1)[..., 0]
    assert abs(-taken[counted].mean() - reference["loss"]) < 1e-5
    model = build_model(config)
    tokens, _ = greedy(model, params, prompts, expected.shape[1], eos_id)
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recorded_directory_survives_load_export_load(name, shared, tmp_path):
    from safetensors.numpy import load_file

    source = shared / "golden" / name
    config, params = load(source)
    export = save_huggingface(tmp_path / "export", config, params)
    again_config, again = load(export)
    assert again_config == config
    assert_same(again, params)
    before = load_file(source / "model.safetensors")
    after = load_file(export / "model.safetensors")
    assert before.keys() == after.keys()
    assert_same(before, after)


def test_every_family_survives_saving_and_loading(family, tmp_path):
    directory = save_huggingface(tmp_path / "model", family.config, family.params)
    config, params = load(directory)
    assert config == family.config
    assert_same(params, family.params)
    facts = json.loads((directory / "config.json").read_text())
    assert family.name.startswith(facts["model_type"])


def test_weights_of_many_files_and_of_bfloat16_are_one_model(family, tmp_path):
    import ml_dtypes
    from safetensors.numpy import load_file

    limit = 10_000
    directory = save_huggingface(
        tmp_path / "model",
        family.config,
        family.params,
        dtype="bfloat16",
        shard_bytes=limit,
    )
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert sorted(p.name for p in directory.glob("*.safetensors")) == files
    stored = {file: load_file(directory / file) for file in files}
    for file, tensors in stored.items():
        assert sum(tensor.nbytes for tensor in tensors.values()) <= limit
        assert all(index["weight_map"][name] == file for name in tensors)
        assert {str(t.dtype) for t in tensors.values()} == {"bfloat16"}
    total = sum(t.nbytes for tensors in stored.values() for t in tensors.values())
    assert index["metadata"]["total_size"] == total
    assert json.loads((directory / "config.json").read_text())["dtype"] == "bfloat16"
    config, params = load(directory)
    assert config == family.config
    rounded = jax.tree.map(
        lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), family.params
    )
    assert_same(params, rounded)
    # One file replaces many, and no stale shard stays.
    save_huggingface(directory, family.config, family.params)
    assert [p.name for p in directory.glob("model*")] == ["model.safetensors"]
