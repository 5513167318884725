"""Scratch directories of many processes at once, and what is left of dead ones."""

import subprocess
import sys
from pathlib import Path

from flanjax.data.scratch import scratch_directory

_MANY = """
import sys
from flanjax.data.scratch import scratch_directory
for _ in range(400):
    with scratch_directory(sys.argv[1]) as folder:
        (folder / "info.json").write_text("{}")
"""


def test_processes_that_make_and_remove_the_folder_do_not_meet_each_other(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MANY, str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == [""] * 4
    assert list(Path(tmp_path).iterdir()) == []


def test_a_folder_removed_between_two_looks_is_made_again(tmp_path, monkeypatch):
    make, calls = Path.mkdir, []

    def mkdir(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 1:  # mkdir saw it, is_dir() did not any more.
            raise FileExistsError(self)
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with scratch_directory(tmp_path) as folder:
        assert folder.is_dir()
