"""What a user may get wrong about training: one message, the status, nothing lost."""

import json
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.convert.huggingface import save_huggingface
from flanjax.models.build import build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "gin/recipes/tiny.gin")

pytestmark = pytest.mark.slow


def _train(store, run, *more, steps=2):
    flags = [
        f"--gin_file={RECIPE}",
        f"--gin.STORE_DIR={store}",
        f"--gin.MODEL_DIR={run}",
        f"--gin.TRAIN_STEPS={steps}",
        "--gin.EVAL_PERIOD=0",
        "--gin.SAVE_PERIOD=2",
        *more,
    ]
    return main(["train", *flags])


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A run of two steps with its checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "good"
    assert _train(store, path) == 0
    return path


def _files(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "flag, words",
    [
        ("T5Config.remat_policy=minimall", "Did you mean 'minimal'"),
        ("MeshConfig.tensor=8", "heads"),
        ("MeshConfig.fsdp=3", "does not fit 8 device"),
        ("MonitorConfig.peak_tflops=-3", "peak_tflops"),
        ("RunConfig.freeze=('encodr/.*',)", "matches no"),
    ],
)
def test_a_bad_setting_ends_with_status_2_and_leaves_the_checkpoints(
    store, run, capsys, flag, words
):
    before = _files(run / "checkpoints")
    assert _train(store, run, f"--gin.{flag}", steps=4) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("error:") == 1, error
    assert _files(run / "checkpoints") == before


def test_adapters_that_find_no_kernel_are_refused_with_names_that_exist(
    store, tmp_path, capsys
):
    flags = [
        "--gin.T5Config.lora=@LoraConfig()",
        "--gin.LoraConfig.rank=2",
        "--gin.LoraConfig.targets=('attention/qeury',)",
    ]
    assert _train(store, tmp_path / "run", *flags) == 2
    assert "query" in capsys.readouterr().err


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama model's directory, where a T5 is wanted."""
    config = DecoderConfig(64, 16, 2, 2, 8, 32, 1)
    path = tmp_path_factory.mktemp("weights") / "llama"
    params, _ = init_params(build_model(config), jax.random.key(0))
    return save_huggingface(path, config, params)


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """The tiny recipe's own model as a directory."""
    config = T5Config(384, 128, 4, 32, 256, 2, 2)
    path = tmp_path_factory.mktemp("weights") / "t5"
    params, _ = init_params(build_model(config), jax.random.key(0))
    return save_huggingface(path, config, params)


def _refused(store, tmp_path, capsys, source):
    run = tmp_path / "run"
    flag = f"--gin.INITIAL_CHECKPOINT_PATH={source}"
    status = _train(store, run, flag)
    error = capsys.readouterr().err
    assert not (run / "checkpoints").exists() or not any(
        p.name.isdigit() for p in (run / "checkpoints").iterdir()
    )
    assert error.count("error:") == 1, error
    return status, error


def test_weights_of_another_architecture_are_refused(store, llama, tmp_path, capsys):
    status, error = _refused(store, tmp_path, capsys, llama)
    assert status == 5 and str(llama) in error


def test_cut_off_weights_are_refused(store, t5, tmp_path, capsys):
    weights = t5 / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    try:
        status, error = _refused(store, tmp_path, capsys, t5)
    finally:
        weights.write_bytes(whole)
    assert status == 5 and "model.safetensors" in error


def test_a_gguf_of_an_unknown_architecture_is_refused(store, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    status, error = _refused(store, tmp_path, capsys, f"gguf:{path}")
    assert status == 5 and "rwkv7" in error


def test_a_t5x_directory_with_a_cut_off_index_is_refused(store, tmp_path, capsys):
    directory = tmp_path / "checkpoint_7"
    directory.mkdir()
    (directory / "checkpoint").write_bytes(b"\x83\xa7version\x03\xa9optim")
    status, error = _refused(store, tmp_path, capsys, f"t5x:{directory}")
    assert status == 5 and str(directory) in error


def test_a_topology_that_does_not_exist_is_refused_with_examples(capsys):
    flags = [f"--gin_file={RECIPE}", "--gin.MODEL_DIR=unused", "--topology=v5q:2x2"]
    assert main(["check", *flags, "--no_data"]) == 2
    error = capsys.readouterr().err
    assert "v5q" in error and "v5e" in error and not Path("unused").exists()


def test_a_run_goes_on_after_all_that(store, run, capsys):
    assert _train(store, run, steps=4) == 0
    assert "restored step 2" in capsys.readouterr().out
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
