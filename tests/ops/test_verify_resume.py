"""`flanjax verify resume` passes on a good run and catches planted differences."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.ops.verify_resume import _compare
from flanjax.train.checkpoint import CheckpointConfig, Checkpointer

STEPS = 2


def _run(path, hashes=("a", "b"), value=1.0):
    """A run directory with what is compared: batch hashes and final arrays."""
    path.mkdir()
    rows = [
        {"kind": "train", "step": step, "batch_hash": name}
        for step, name in enumerate(hashes, 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    checkpointer = Checkpointer(path / "checkpoints", CheckpointConfig())
    arrays = {"weight": jnp.full((3,), value), "step": jnp.int32(STEPS)}
    checkpointer.save(STEPS, arrays, {}, wait=True)
    checkpointer.close()
    return path


def _verdicts(a, b):
    return [row[-1] for row in _compare(a, b, STEPS)]


def test_equal_runs_pass(tmp_path):
    assert _verdicts(_run(tmp_path / "a"), _run(tmp_path / "b")) == [True, True]


def test_another_batch_is_caught(tmp_path):
    other = _run(tmp_path / "b", hashes=("a", "c"))
    assert _verdicts(_run(tmp_path / "a"), other) == [False, True]


def test_a_parameter_that_differs_in_its_last_bit_is_caught(tmp_path):
    other = _run(tmp_path / "b", value=np.nextafter(np.float32(1), np.float32(2)))
    assert _verdicts(_run(tmp_path / "a"), other) == [True, False]


def test_a_step_that_was_never_logged_is_caught(tmp_path):
    other = _run(tmp_path / "b", hashes=("a",))
    assert _verdicts(_run(tmp_path / "a"), other) == [False, True]


@pytest.mark.slow
def test_the_command_passes(capsys):
    assert main(["verify", "resume", "--steps=12", "--kills=2"]) == 0
    assert "bit-equal" in capsys.readouterr().out
