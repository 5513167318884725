"""Whole runs that begin from a T5X checkpoint, through the command line."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.config import load_config
from flanjax.convert.place import load_params
from flanjax.convert.t5x import open_t5x
from flanjax.convert.t5x_write import save_t5x
from flanjax.convert.weights import open_weights
from flanjax.models.build import abstract_params, build_model
from flanjax.train.checkpoint import read_arrays
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.trees import flatten

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "gin/recipes/tiny.gin")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of the tiny recipe's model, with moments, at step 1,000."""
    config = load_config([RECIPE], ["MODEL_DIR=none"])[0].model
    shapes, axes = abstract_params(build_model(config))
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: draw.normal(0, 0.05, x.shape).astype(np.float32), shapes
    )
    state = make_optimizer(OptimizerConfig(), axes).init(params)
    state = jax.tree.map(lambda x: draw.random(x.shape).astype(np.float32), state)
    path = tmp_path_factory.mktemp("t5x")
    save_t5x(path, config, params, step=1000, optimizer=state)
    return path


@pytest.fixture
def train(store, checkpoint, tmp_path):
    """Runs `flanjax train` from the checkpoint, in a process of its own."""

    def run(name, steps, *flags):
        settings = {
            "STORE_DIR": store,
            "MODEL_DIR": tmp_path / name,
            "TRAIN_STEPS": steps,
            "EVAL_PERIOD": 0,
            "SAVE_PERIOD": 2,
            "INITIAL_CHECKPOINT_PATH": f"t5x:{checkpoint}",
            "OptimizerConfig.name": "adafactor",
            "ScheduleConfig.factors": "constant",
        }
        flags = [*(f"--gin.{k}={v}" for k, v in settings.items()), *flags]
        command = [sys.executable, "-m", "flanjax", "train", f"--gin_file={RECIPE}"]
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, cwd=ROOT
        )
        return done, tmp_path / name

    return run


def test_a_run_takes_over_everything_and_is_exported_for_t5x(train, tmp_path):
    flags = ("optimizer_state=True", "step=checkpoint")
    done, run = train("all", 2, *(f"--gin.RestoreConfig.{f}" for f in flags))
    assert done.returncode == 0, done.stderr
    first, second = (
        "restored 29 of 29",
        "optimizer restored, its count goes on at 1,000",
    )
    line = f"{first} parameters; {second}"
    assert line in done.stdout + done.stderr
    assert line in (run / "environment.json").read_text()
    report = (run / "restore_report.txt").read_text()
    assert first in report and second in report
    out = tmp_path / "t5x"
    export = ["convert", "export", str(run), str(out), "--format", "t5x"]
    assert main([*export, "--optimizer_state"]) == 0
    arrays = read_arrays(run / "checkpoints", 2)
    with open_t5x(out) as source:
        assert source.index.step == 1002
        for path, value in flatten(load_params(source)).items():
            saved = arrays["params/" + path]
            np.testing.assert_array_equal(value, saved, err_msg=path)
        name = "decoder/decoder_norm/scale"
        np.testing.assert_array_equal(
            source.index.read(f"state/param_states/{name}/v"),
            arrays[f"opt_state/v/{name}"],
        )


def test_adapters_on_part_of_the_weights_go_on_and_export_the_same(train, tmp_path):
    flags = [
        "--gin.LoraConfig.rank=2",
        "--gin.T5Config.lora=@LoraConfig()",
        "--gin.T5Config.logits_via_embedding=True",
        "--gin.RestoreConfig.unexpected=ignore",
    ]
    for steps in (2, 4):
        done, resumed = train("resumed", steps, *flags)
        assert done.returncode == 0, done.stderr
    done, straight = train("straight", 4, *flags)
    assert done.returncode == 0, done.stderr
    assert "28 of 28 parameters" in (straight / "restore_report.txt").read_text()
    left, right = (read_arrays(r / "checkpoints", 4) for r in (resumed, straight))
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    exported = {}
    for form, source in (("hf", "{}"), ("t5x", "t5x:{}")):
        out = str(tmp_path / form)
        assert main(["convert", "export", str(resumed), out, "--format", form]) == 0
        with open_weights(source.format(out)) as weights:
            exported[form] = load_params(weights)
    jax.tree.map(np.testing.assert_array_equal, exported["hf"], exported["t5x"])
    export = ["convert", "export", str(resumed), str(tmp_path / "state")]
    assert main([*export, "--format", "t5x", "--optimizer_state"]) == 2


def test_another_architectures_checkpoint_ends_with_status_5(train):
    done, _ = train("other", 2, "--gin.T5Config.num_decoder_layers=3")
    assert done.returncode == 5
    assert "num_decoder_layers is 2, the run has 3" in done.stderr


def test_a_damaged_checkpoint_ends_with_status_5_and_names_the_array(train, checkpoint):
    chunk = checkpoint / "checkpoint_1000" / "target.token_embedder.embedding" / "0.0"
    data = chunk.read_bytes()
    try:
        chunk.write_bytes(data[: len(data) // 2])
        done, _ = train("damaged", 2)
    finally:
        chunk.write_bytes(data)
    assert done.returncode == 5
    assert "target/token_embedder/embedding" in done.stderr
