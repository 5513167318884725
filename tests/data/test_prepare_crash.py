"""Killed, doubled or on Beam: prepared data are the same bytes, and nothing else."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS, MADE = 5, "tasks/*/*"
MODULE = """
from pathlib import Path

import seqio

from flanjax.data.sources import JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile

HERE = Path(__file__).parent
names = [
    name
    for number in range(6)
    for name in add_instruction_task(
        f"crash_{number}",
        JsonlSource({"train": HERE / "rows.jsonl", "validation": HERE / "rows.jsonl"}),
        TemplateFile(HERE / "templates.toml")["sums"],
        TaskInfo("test", f"sums{number}", "arithmetic"),
    )
]
seqio.MixtureRegistry.add("crash", [(name, 1) for name in names])
"""
TEMPLATES = """
[[sums.templates]]
inputs = "Add {a} and {b}."
targets = "{answer}"
[[sums.templates]]
inputs = "{a} + {b} ="
targets = "{answer}"
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts `flanjax data prepare` of a small collection into a store."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "crash_tasks.py").write_text(MODULE)
    (folder / "templates.toml").write_text(TEMPLATES)
    rows = [{"a": i, "b": i + 1, "answer": str(2 * i + 1)} for i in range(4000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"

    def run(store, *flags, stderr=None):
        command = [sys.executable, "-m", "flanjax", "data", "prepare", "crash"]
        command += ["--mixtures", "crash_tasks", "--store_dir", str(store), *flags]
        return subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The files of a store that one process has prepared."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    assert start(store).wait() == 0
    files = files_of(store)
    assert len(files) == 24 * 4 + 1, sorted(files)
    return files


def files_of(store):
    """Every file of a store with its bytes, and every empty directory."""
    paths = {path for path in store.rglob("*") if path.is_file()}
    paths |= {p for p in store.rglob("*") if p.is_dir() and not any(p.iterdir())}
    return {
        str(path.relative_to(store)): path.read_bytes() if path.is_file() else None
        for path in paths
    }


@pytest.mark.slow
def test_after_five_kills_the_next_prepare_completes_the_same_store(
    start, undisturbed, tmp_path
):
    store, moments = tmp_path / "store", random.Random(20221020)
    whole = {}
    for _ in range(KILLS):
        process = start(store, "--num_workers=2")
        before = len(list(store.glob(MADE)))
        while process.poll() is None and len(list(store.glob(MADE))) == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -9, "it had ended before it was killed"
        files = files_of(store)
        made = {n: data for n, data in files.items() if not n.startswith(".scratch")}
        assert made.items() <= undisturbed.items(), "what is visible is whole"
        assert whole.items() <= made.items(), "what was made stays"
        whole = made
    assert start(store, "--num_workers=2").wait() == 0
    assert files_of(store) == undisturbed


@pytest.mark.slow
def test_a_killed_worker_is_reported_with_its_task_and_the_others_go_on(
    start, undisturbed, tmp_path
):
    store = tmp_path / "store"
    flags = ("--num_workers=2", "--allow_missing")
    process = start(store, *flags, stderr=subprocess.PIPE)
    while process.poll() is None and not list(store.glob(".scratch/*/tokens.bin")):
        time.sleep(0.005)
    (folder,) = list(store.glob(".scratch/*/tokens.bin"))[:1]
    worker = int(folder.parent.name.rsplit(".", 1)[-1].split("-")[0])
    os.kill(worker, signal.SIGKILL)
    error = process.communicate()[1]
    assert process.returncode == 3
    assert "1 task cannot be prepared:\n  crash_" in error and "SIGKILL" in error
    files = files_of(store)
    assert len(files) == 23 * 4 and files.items() <= undisturbed.items()


@pytest.mark.slow
def test_two_prepares_of_one_store_do_not_disturb_each_other(
    start, undisturbed, tmp_path
):
    store = tmp_path / "store"
    both = [start(store), start(store)]
    assert [process.wait() for process in both] == [0, 0]
    assert files_of(store) == undisturbed


@pytest.mark.slow
def test_beam_makes_the_same_bytes(start, undisturbed, tmp_path):
    pytest.importorskip("apache_beam")
    store = tmp_path / "store"
    assert start(store, "--runner=DirectRunner").wait() == 0
    assert files_of(store) == undisturbed


@pytest.mark.slow
def test_a_beam_runner_that_does_not_exist_is_a_config_error(start, tmp_path):
    pytest.importorskip("apache_beam")
    assert start(tmp_path / "store", "--runner=DirectRuner").wait() == 2


def test_without_beam_the_command_that_installs_it_is_named(monkeypatch):
    from flanjax.errors import ConfigError

    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "flanjax.data.beam", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'flanjax\[beam\]'"):
        import flanjax.data.beam  # noqa: F401
