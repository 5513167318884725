"""What a run writes about itself survives restarts and kills."""

import json
import os
import signal

import pytest

from flanjax.train.interrupt import Interrupted, InterruptGuard
from flanjax.train.rundir import RunDir


def test_status_counts_starts_and_adds_seconds_up(tmp_path):
    for _ in range(2):
        run = RunDir(tmp_path / "run", steps_total=10)
        run.status(state="finished", seconds={"training": 1.5})
    status = json.loads((run.path / "status.json").read_text())
    assert status["starts"] == 2 and status["seconds"] == {"training": 3.0}
    assert status["state"] == "finished" and status["steps_total"] == 10


def test_results_keep_earlier_steps(tmp_path):
    run = RunDir(tmp_path, steps_total=10)
    run.results(0, {"a": {"exact_match": {"value": 0.0}}})
    run.results(10, {"a": {"exact_match": {"value": 1.0}}})
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"0", "10"}


def test_no_half_file_is_ever_seen(tmp_path):
    RunDir(tmp_path, steps_total=1).describe("x = 1\n", {"devices": "1 x cpu"})
    assert not list(tmp_path.glob("*.tmp"))
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["devices"] == "1 x cpu" and environment["packages"]["jax"]


def test_a_signal_is_raised_only_at_the_safe_point():
    with InterruptGuard() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            interrupt.check()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
