"""Jobs in processes: a dead process costs its own job, errors come back whole."""

import os
import signal

import pytest

from flanjax.data.workers import Died, run_in_processes
from flanjax.errors import ConfigError, DataError


def nothing():
    pass


def refuse():
    raise ConfigError("no such module", fix="install it")


def end():
    os._exit(7)


def work(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fail":
        raise DataError("bad row", where="rows.jsonl:3")
    return f"{kind} by {os.getpid()}"


def run(jobs, setup=nothing, num_workers=2):
    events = run_in_processes(jobs, work, setup, num_workers)
    return [event for event in events if event is not None]


def test_a_process_that_is_killed_costs_only_the_job_it_was_on():
    jobs = ["a", "kill", "b", "c", "kill ", "d"]
    done = dict(run(jobs))
    assert set(done) == set(jobs)
    assert done["kill"] == Died(-9)
    assert "SIGKILL, as when memory runs out" in str(done["kill"])
    assert all(done[job].startswith(job) for job in jobs if job != "kill")


def test_an_error_of_a_job_or_of_the_setup_comes_back_whole():
    with pytest.raises(DataError, match="bad row") as caught:
        run(["a", "fail", "b"])
    assert caught.value.where == "rows.jsonl:3"
    with pytest.raises(ConfigError, match="no such module"):
        run(["a"], refuse)
    with pytest.raises(DataError, match="could not be set up.*status 7"):
        run(["a"], end)
