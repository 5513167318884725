"""Weights that cannot be used: one message, the exit status, and nothing lost."""

import json
import struct

import jax
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.convert.huggingface import save_huggingface
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig

CONFIG = DecoderConfig(
    vocab_size=40,
    emb_dim=12,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=20,
    num_layers=2,
)


@pytest.fixture(scope="module")
def params():
    shapes, _ = abstract_params(build_model(CONFIG))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)


@pytest.fixture
def model(params, tmp_path):
    return save_huggingface(tmp_path / "model", CONFIG, params)


def refused(capsys, source, output):
    """Runs the import; returns its exit status and message."""
    status = main(["convert", "import", str(source), str(output)])
    return status, capsys.readouterr().err


def edit_header(path, change):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def another_architecture(model):
    facts = json.loads((model / "config.json").read_text())
    facts["model_type"] = "gpt_neox"
    (model / "config.json").write_text(json.dumps(facts))


def vocabulary_of_another_size(model):
    facts = json.loads((model / "config.json").read_text())
    facts["vocab_size"] = 50_257
    (model / "config.json").write_text(json.dumps(facts))


def half_a_file(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nothing_in_the_file(model):
    (model / "model.safetensors").write_bytes(b"")


def a_header_longer_than_the_file(model):
    path = model / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 10**12) + path.read_bytes()[8:])


def a_header_with_another_shape(model):
    def change(header):
        header["model.norm.weight"]["shape"] = [13]

    edit_header(model / "model.safetensors", change)


def a_header_with_other_places(model):
    def change(header):
        header["model.norm.weight"]["data_offsets"][1] += 10**6

    edit_header(model / "model.safetensors", change)


def numbers_that_are_no_weights(model):
    def change(header):
        header["model.norm.weight"]["dtype"] = "I32"

    edit_header(model / "model.safetensors", change)


def config_of_no_json(model):
    (model / "config.json").write_text("{")


def a_pickle(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


HUGGINGFACE = {
    another_architecture: "model_type is 'gpt_neox'.*types can: t5, llama, mistral",
    vocabulary_of_another_size: r"embed_tokens.*\(40, 12\).*says \(50257, 12\)",
    half_a_file: "cannot read: .*model.safetensors.*cut short",
    nothing_in_the_file: "cannot read: .*model.safetensors",
    a_header_longer_than_the_file: "cannot read: .*model.safetensors",
    a_header_with_another_shape: "cannot read: .*model.safetensors",
    a_header_with_other_places: "cannot read: .*model.safetensors",
    numbers_that_are_no_weights: "'model.norm.weight' is of type I32",
    config_of_no_json: "not JSON.*config.json",
    a_pickle: "'pytorch_model.bin'.*can run any code.*save_pretrained",
}


def check(status, message, expected):
    import re

    assert status == 5, message
    assert re.search(expected, message, re.DOTALL), message
    assert "where:" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("damage", HUGGINGFACE, ids=lambda f: f.__name__)
def test_a_damaged_directory_is_refused(damage, model, tmp_path, capsys):
    damage(model)
    status, message = refused(capsys, model, tmp_path / "out")
    check(status, message, HUGGINGFACE[damage])
    assert not (tmp_path / "out").exists()


def test_shards_that_are_missing_or_lie_are_refused(params, tmp_path, capsys):
    model = save_huggingface(tmp_path / "model", CONFIG, params, shard_bytes=4_000)
    shards = sorted(model.glob("model-*.safetensors"))
    index = model / "model.safetensors.index.json"
    facts = json.loads(index.read_text())
    facts["weight_map"]["model.norm.weight"] = shards[0].name
    index.write_text(json.dumps(facts))
    assert refused(capsys, model, tmp_path / "out")[0] == 0  # It is where it is.
    shards[1].rename(tmp_path / "elsewhere")
    status, message = refused(capsys, model, tmp_path / "out")
    check(status, message, f"no {shards[1].name}")
    del facts["weight_map"]
    index.write_text(json.dumps(facts))
    status, message = refused(capsys, model, tmp_path / "out")
    check(status, message, "not an index")


@pytest.mark.parametrize("kept", [0.001, 0.2, 0.9])
def test_a_gguf_file_cut_short_is_refused(
    kept, write_gguf, llama_tensors, tmp_path, capsys
):
    path = write_gguf(llama_tensors)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    status, message = refused(capsys, f"gguf:{path}", tmp_path / "out")
    check(status, message, "cannot read .*fetch or convert it again")


def test_a_gguf_file_of_an_unknown_architecture_is_refused(
    write_gguf, llama_tensors, tmp_path, capsys
):
    path = write_gguf(llama_tensors, architecture="gemma3")
    status, message = refused(capsys, f"gguf:{path}", tmp_path / "out")
    check(status, message, "architecture 'gemma3'.*only llama and qwen2")


def test_a_failed_import_leaves_the_export_that_was_there(model, tmp_path, capsys):
    assert refused(capsys, model, tmp_path / "out")[0] == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    numbers_that_are_no_weights(model)  # Found while writing.
    assert refused(capsys, model, tmp_path / "out")[0] == 5
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_what_is_not_there_is_a_usage_error(tmp_path, capsys):
    status, message = refused(capsys, tmp_path / "nothing", tmp_path / "out")
    assert status == 2
    assert "no config.json" in message
    status, message = refused(capsys, "gguf:nothing.gguf", tmp_path / "out")
    assert status == 2
    assert "not found" in message
