"""T5X checkpoints: what is written is read back, and damage is named."""

import contextlib
import dataclasses
import gzip
import shutil
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest

from flanjax.convert import t5x_write
from flanjax.convert.place import load_params, parameter_shapes
from flanjax.convert.t5x import open_t5x
from flanjax.convert.t5x_index import Index
from flanjax.convert.t5x_layout import SLOTS, join_layers, take_layer
from flanjax.convert.t5x_write import _chunks, save_t5x
from flanjax.convert.weights import open_weights
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config
from flanjax.train.trees import flatten, unflatten

T5 = T5Config(24, 16, 2, 4, 12, 2, 3)
CONFIGS = {
    "1.1": T5,
    "1.0": dataclasses.replace(
        T5, mlp_activations=("relu",), logits_via_embedding=True
    ),
    "scanned": dataclasses.replace(T5, relpos_per_layer=True),
    "decoder-only": DecoderConfig(
        *(24, 16, 2, 2, 4, 12, 2),
        mlp_activations=("gelu", "linear"),
        positions="relative",
        scale_attention=False,
        scale_tied_logits=True,
        norm_epsilon=1e-6,
    ),
}
EMBEDDING = "target.token_embedder.embedding"


def random_params(config, seed=0):
    draw = np.random.default_rng(seed)
    return unflatten(
        {
            path: draw.normal(size=shape).astype(np.float32)
            for path, shape in parameter_shapes(config).items()
        }
    )


def assert_equal(got, want, dtype=np.float32):
    got, want = flatten(got), flatten(want)
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name].astype(dtype), name)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return save_t5x(tmp_path_factory.mktemp("t5x"), T5, random_params(T5), step=7)


@pytest.fixture
def written(pristine, tmp_path) -> Path:
    return shutil.copytree(pristine, tmp_path / pristine.name)


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_written_is_read_back_and_its_model_inferred(kind, tmp_path):
    config = CONFIGS[kind]
    params = random_params(config)
    save_t5x(tmp_path, config, params, step=1_100_000)
    with open_weights(f"t5x:{tmp_path}") as source:
        assert source.config == config
        assert source.index.step == 1_100_000
        assert_equal(load_params(source), params)


def test_bfloat16_files_hold_rounded_values(tmp_path):
    params = random_params(T5)
    directory = save_t5x(tmp_path, T5, params, step=1, dtype="bfloat16")
    with open_t5x(directory) as source:
        assert_equal(load_params(source), params, ml_dtypes.bfloat16)


def test_arrays_of_the_scanned_network_have_the_layer_axis_second(tmp_path):
    save_t5x(tmp_path, CONFIGS["scanned"], random_params(CONFIGS["scanned"]), step=1)
    index = Index(tmp_path / "checkpoint_1")
    shapes = {
        name.removeprefix("target/decoder/decoder/"): spec.shape
        for name, spec in index.specs.items()
    }
    assert shapes["self_attention/query/kernel"] == (16, 3, 2, 4)
    assert shapes["self_attention/out/kernel"] == (2, 3, 4, 16)
    assert shapes["mlp/wo/kernel"] == (12, 3, 16)
    assert shapes["relpos_bias/rel_embedding"] == (2, 3, 32)
    assert shapes["pre_mlp_layer_norm/scale"] == (16, 3)


@pytest.mark.parametrize("part", ["query", "out"])
@pytest.mark.parametrize("slot", SLOTS)
def test_a_slots_layers_taken_and_joined_are_the_slot(part, slot):
    name = f"encoder/encoder/attention/{part}/kernel"
    shape = {"query": (16, 3, 2, 4), "out": (2, 3, 4, 16)}[part]
    if slot == "v_row":
        shape = {"query": (16, 3), "out": (3, 16)}[part]
    elif slot == "v_col":
        shape = {"query": (3, 2, 4), "out": (2, 3, 4)}[part]
    array = np.random.default_rng(0).normal(size=shape)
    stacked = np.stack([take_layer(name, slot, array, i) for i in range(3)])
    np.testing.assert_array_equal(join_layers(name, slot, stacked, head_dim=4), array)


def test_the_newest_checkpoint_of_a_directory_is_taken(tmp_path):
    for step in (9, 10):
        save_t5x(tmp_path, T5, random_params(T5, step), step=step)
    (tmp_path / "checkpoint_11").mkdir()  # A save that was killed.
    with open_t5x(tmp_path) as source:
        assert source.index.step == 10


def test_what_arrays_do_not_say_is_the_runs(tmp_path, written):
    run = dataclasses.replace(T5, mlp_activations=("silu", "linear"), norm_epsilon=1e-5)
    with open_weights(f"t5x:{written}", run) as source:
        assert source.config == run


def test_an_open_source_is_rewritten_without_being_loaded(tmp_path, written):
    with open_t5x(written) as source:
        again = save_t5x(tmp_path / "again", source.config, source, step=7)
        with open_t5x(again) as copy:
            assert_equal(load_params(copy), load_params(source))


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((32_128, 4_096), [4_016, 4_096]),
        ((4_096, 24, 64, 64), [164, 24, 64, 64]),
        ((99_999_989,), [16_666_665]),  # A prime.
        ((512, 384), [512, 384]),
        ((), []),
    ],
)
def test_large_arrays_are_split_into_chunks_of_at_most_64_mib(shape, chunks):
    assert _chunks(shape, itemsize=4) == chunks


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DecoderConfig(24, 16, 2, 1, 4, 12, 2), "T5X's decoder has positions"),
        (dataclasses.replace(CONFIGS["decoder-only"], num_kv_heads=1), "num_kv_heads"),
    ],
)
def test_models_that_t5x_has_not_are_not_written(config, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        save_t5x(tmp_path, config, random_params(config), step=0)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / "checkpoint_0" / "thesis").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds something else"):
        save_t5x(tmp_path, T5, random_params(T5), step=0)


def test_what_cannot_be_written_leaves_nothing_half_done(tmp_path, monkeypatch):
    params = random_params(T5)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written.*Not a directory"):
        save_t5x(tmp_path / "file", T5, params, step=0)
    before = save_t5x(tmp_path, T5, params, step=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(t5x_write, "_packed", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_t5x(tmp_path, T5, random_params(T5, 1), step=1)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "checkpoint_1"}
    with open_t5x(before) as source:
        assert_equal(load_params(source), params)


# Damage.


def load(path):
    with open_t5x(path) as source:
        load_params(source)


def changed(directory: Path, change) -> None:
    """Applies a change to the index's `optimizer` part."""
    path = directory / "checkpoint"
    index = msgpack.unpackb(path.read_bytes(), ext_hook=msgpack.ExtType)
    change(index["optimizer"])
    path.write_bytes(msgpack.packb(index))


def refused(path, *parts):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert caught.value.exit_code == 5
    for part in parts:
        assert part in str(caught.value)


def test_no_checkpoint_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="checkpoint_N"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no such directory"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_off_index_is_refused(written, share):
    data = (written / "checkpoint").read_bytes()
    (written / "checkpoint").write_bytes(data[: int(len(data) * share)])
    refused(written, "the index cannot be read", "checkpoint_7/checkpoint")


def test_an_index_damaged_anywhere_is_read_or_refused(written):
    path, draw = written / "checkpoint", np.random.default_rng(0)
    pristine = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(300):
        data = pristine.copy()
        where = draw.integers(len(data), size=draw.integers(1, 6))
        data[where] = draw.integers(256, size=where.shape)
        path.write_bytes(data[: draw.integers(1, 2 * len(data))].tobytes())
        with contextlib.suppress(CheckpointError), open_t5x(written):
            pass


def test_an_index_with_another_kind_of_extension_is_refused(written):
    path = written / "checkpoint"
    path.write_bytes(msgpack.packb({"version": 3, "x": msgpack.ExtType(9, b"os")}))
    refused(written, "extension type 9")


def test_an_index_of_objects_is_refused(written):
    data = msgpack.packb(([1], "object", b"12345678"))
    packed = msgpack.packb({"version": 3, "x": msgpack.ExtType(1, data)})
    (written / "checkpoint").write_bytes(packed)
    refused(written, "an array of object")


def test_another_version_of_the_index_is_refused(written):
    (written / "checkpoint").write_bytes(msgpack.packb({"version": 1}))
    refused(written, "version 1")


@pytest.mark.parametrize("path", ["/etc", "../other", "."])
def test_an_array_outside_the_directory_is_refused(written, path):
    def escape(tree):
        tree["target"]["token_embedder"]["embedding"]["kvstore"]["path"] = path

    changed(written, escape)
    refused(written, "outside the checkpoint", "target/token_embedder/embedding")


def test_a_link_out_of_the_directory_is_refused(written, tmp_path):
    (written / EMBEDDING).rename(tmp_path / "elsewhere")
    (written / EMBEDDING).symlink_to(tmp_path / "elsewhere")
    refused(written, "outside the checkpoint")


def test_an_array_behind_another_driver_is_refused(written):
    def remote(tree):
        store = {"driver": "http", "base_url": "http://localhost", "path": "x"}
        tree["target"]["token_embedder"]["embedding"]["kvstore"] = store

    changed(written, remote)
    refused(written, "zarr on http")


def test_a_missing_array_is_named_before_anything_is_read(written):
    def drop(tree):
        del tree["target"]["decoder"]["layers_1"]["mlp"]["wo"]

    changed(written, drop)
    refused(written, "1 arrays are missing", "decoder/layers_1/mlp/wo/kernel")


def test_a_missing_chunk_is_not_read_as_zeros(written):
    (written / EMBEDDING / "0.0").unlink()
    refused(written, "target/token_embedder/embedding", "missing")


def test_missing_files_of_an_array_are_named(written):
    for path in (written / EMBEDDING).iterdir():
        path.unlink()
    refused(written, "target/token_embedder/embedding", ".zarray")


def test_a_truncated_chunk_is_named(written):
    chunk = written / EMBEDDING / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    refused(written, "target/token_embedder/embedding", "copy the checkpoint anew")


def test_a_flipped_byte_in_a_chunk_is_found(written):
    chunk = written / EMBEDDING / "0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0x40
    chunk.write_bytes(bytes(data))
    refused(written, "target/token_embedder/embedding")


def test_a_chunk_of_another_array_is_found(written):
    chunk = written / EMBEDDING / "0.0"
    chunk.write_bytes(gzip.compress(b"\0" * 64))
    refused(written, "target/token_embedder/embedding")


def test_an_array_of_another_shape_than_the_index_says_is_found(written):
    def widen(tree):
        tree["target"]["encoder"]["encoder_norm"]["scale"]["metadata"]["shape"] = [17]

    changed(written, widen)
    refused(written, "encoder_norm/scale", "(16,)", "(17,)")


def test_an_array_that_does_not_fit_the_others_is_found(written, tmp_path):
    wide = save_t5x(tmp_path / "wide", wider(T5), random_params(wider(T5)), step=7)
    name = "target.decoder.layers_2.mlp.wo.kernel"
    (written / name).rename(tmp_path / "old")
    (wide / name).rename(written / name)

    def fit(tree):
        tree["target"]["decoder"]["layers_2"]["mlp"]["wo"]["kernel"]["metadata"][
            "shape"
        ] = [13, 16]

    changed(written, fit)
    refused(written, "decoder/layers_2/mlp/wo/kernel", "(13, 16)", "(12, 16)")


def wider(config):
    return dataclasses.replace(config, mlp_dim=13)


def test_an_array_with_no_place_is_refused(written):
    def add(tree):
        tree["target"]["encoder"]["adapter"] = tree["target"]["encoder"]["encoder_norm"]

    changed(written, add)
    with (
        pytest.raises(CheckpointError, match="no place.*encoder/adapter/scale"),
        open_weights(f"t5x:{written}"),
    ):
        pass


def test_another_architecture_is_refused_field_by_field(written):
    run = dataclasses.replace(T5, num_decoder_layers=2, relpos_per_layer=True)
    message = "num_decoder_layers is 3, the run has 2; relpos_per_layer is False"
    with (
        pytest.raises(CheckpointError, match=message),
        open_weights(f"t5x:{written}", run),
    ):
        pass


def test_arrays_of_no_t5_are_refused(written):
    def rename(tree):
        tree["target"]["transformer"] = tree["target"].pop("decoder")

    changed(written, rename)
    refused(written, "no T5 model", "decoder/relpos_bias/rel_embedding")
