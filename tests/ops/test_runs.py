"""Whole runs through the command line: faults, interruptions and what they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flanjax.cli import main
from flanjax.train.checkpoint import read_arrays

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "gin/recipes/tiny.gin")
STEPS = 12

pytestmark = pytest.mark.slow


def _gin(**values):
    ((name, value),) = values.items()
    return f"--gin.{name}={value}"


def _flags(store, run, *more, steps=STEPS):
    return [
        "train",
        f"--gin_file={RECIPE}",
        _gin(STORE_DIR=store),
        _gin(MODEL_DIR=run),
        _gin(TRAIN_STEPS=steps),
        _gin(EVAL_PERIOD=0),
        _gin(SAVE_PERIOD=4),
        *more,
    ]


def _start(flags, file_kib=None):
    """The command in a process of its own, on one device.

    `file_kib` limits the size of any one file it writes, as a full disk would.
    """
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-m", "flanjax", *flags]
    if file_kib:
        limited = f'ulimit -f {file_kib}; exec "$@"'
        command = ["bash", "-c", limited, "bash", *command]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def _trained(store, run, *more, file_kib=None):
    process = _start(_flags(store, run, *more), file_kib)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _hashes(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["batch_hash"] for row in rows if row["kind"] == "train"}


def _assert_same_run(a, b):
    assert _hashes(a) == _hashes(b) and len(_hashes(a)) == STEPS
    left, right = (read_arrays(run / "checkpoints", STEPS) for run in (a, b))
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    status, out, err = _trained(store, run)
    assert status == 0, err
    return run


def test_training_on_a_prepared_store_loads_no_tensorflow(store, tmp_path):
    code = (
        "import sys; from flanjax.cli import main; status = main(sys.argv[1:]);"
        "loaded = [m for m in ('tensorflow', 'seqio') if m in sys.modules];"
        "print('loaded', loaded); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *_flags(store, tmp_path / "run", steps=2)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "loaded []" in done.stdout


def test_sigterm_saves_and_the_same_command_goes_on_exactly(store, straight, tmp_path):
    run = tmp_path / "run"
    process = _start(_flags(store, run))
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and len(_hashes_so_far(run)) >= 2:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, out + err
    assert (run / "report.html").exists()
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    status, out, _ = _trained(store, run)
    assert status == 0 and "restored step" in out
    _assert_same_run(straight, run)


def _hashes_so_far(run):
    text = (run / "metrics.jsonl").read_text()
    return [line for line in text.splitlines() if '"batch_hash"' in line]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    store, straight, tmp_path
):
    run = tmp_path / "run"
    status, _, err = _trained(store, run)
    assert status == 0, err
    newest = run / "checkpoints" / str(STEPS)
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=os.path.getsize)
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)
    status, out, err = _trained(store, run)
    assert status == 0, err
    assert f"checkpoint {STEPS} is damaged" in out and "restored step 8" in out
    _assert_same_run(straight, run)


def test_a_full_disk_while_saving_ends_with_status_5_and_keeps_older_checkpoints(
    store, straight, tmp_path
):
    run = tmp_path / "run"
    status, _, err = _trained(store, run, _gin(TRAIN_STEPS=4))
    assert status == 0, err
    # Less than the arrays need.
    status, out, err = _trained(store, run, file_kib=300)
    assert status == 5, out + err
    assert "could not save the checkpoint" in err and "unharmed checkpoints: 4" in err
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["4"]
    status, _, err = _trained(store, run)
    assert status == 0, err
    _assert_same_run(straight, run)


def test_another_data_order_is_refused_and_the_run_left_alone(
    store, straight, tmp_path, capsys
):
    before = sorted((straight / "checkpoints").iterdir())
    flags = _flags(store, straight, _gin(SEED=3), steps=STEPS + 2)
    assert main(flags) == 5
    assert "data order differs" in capsys.readouterr().err
    assert sorted((straight / "checkpoints").iterdir()) == before


def test_a_batch_that_does_not_divide_by_the_mesh_is_refused(store, tmp_path, capsys):
    flags = _flags(store, tmp_path / "run", _gin(BATCH_SIZE=12))
    assert main(flags) == 2  # Eight simulated devices.
    assert "does not divide" in capsys.readouterr().err


def test_feature_lengths_that_hold_no_example_are_refused(store, tmp_path, capsys):
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 1, 'targets': 1}"
    assert main(_flags(store, tmp_path / "run", lengths)) == 3
    assert "inputs" in capsys.readouterr().err


def test_an_unknown_task_is_refused_with_the_nearest_name(store, tmp_path):
    name = _gin(MIXTURE_OR_TASK_NAME="tiny_moood_zs_opt")
    status, _, err = _trained(store, tmp_path / "run", name)
    assert status == 2 and "Did you mean 'tiny_mood_zs_opt'" in err


def test_a_batch_of_a_finished_run_can_be_looked_at_again(straight, capsys):
    assert main(["data", "show", f"--run={straight}", "--step=3", "--num=1"]) == 0
    assert "row 0" in capsys.readouterr().out


def test_a_run_accounts_for_its_time_and_says_what_a_spike_was_made_of(
    store, tmp_path, capsys
):
    run = tmp_path / "run"
    watch = [
        "--gin.MonitorConfig.group_norms=True",
        # Without learning the loss only scatters: some step is above the usual.
        "--gin.LEARNING_RATE=0.0",
        "--gin.MonitorConfig.spike_deviations=0.01",
        "--gin.MonitorConfig.spike_window=20",
        "--profile=2",
    ]
    assert main(_flags(store, run, *watch, steps=40)) == 0
    out = capsys.readouterr().out
    rows = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    last = steps[-1]
    assert 0 < last["goodput"] < 1 and "goodput" in out
    spent = {k: v for k, v in last.items() if k.startswith("seconds/")}
    assert spent["seconds/compute"] / sum(spent.values()) == pytest.approx(
        last["goodput"], abs=0.02
    )
    grads = [v for k, v in last.items() if k.startswith("grad_norm/")]
    assert np.sqrt(np.sum(np.square(grads))) == pytest.approx(
        last["grad_norm"], rel=1e-4
    )
    events = [row for row in rows if row["kind"] == "event"]
    spikes = [row for row in events if row["event"] == "loss spike"]
    assert spikes and all(row["loss"] > row["usual"] for row in spikes)
    assert "tiny_" in spikes[0]["examples"] and "loss spike at step" in out
    assert not [row for row in events if row["event"] == "compiled again"]
    summary = (run / "profile" / "summary.txt").read_text()
    assert summary.startswith("2 steps") and "encoder/mlp" in summary
