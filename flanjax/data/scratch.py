"""Directories of a store that appear whole or not at all, and go with their process.

    with scratch_directory("store") as folder:
        (folder / "info.json").write_text("{}")
        publish(folder, Path("store/tasks/boolq"))
    remove_leftovers("store")          # what killed processes left behind

Each is locked by its process for as long as that lives, also when it is killed. So a
directory whose lock is free belongs to nobody, and two processes that prepare into one
store never remove each other's work. Only directories of the same host are removed: not
every shared file system shows locks to other hosts.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_FOLDER = ".scratch"
_LOCK = ".lock"


@contextlib.contextmanager
def scratch_directory(store_dir: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty directory of this process, removed at the end if still there."""
    lock, descriptor = _locked(Path(store_dir) / _FOLDER)
    folder = lock.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(lock)
        os.close(descriptor)


def publish(folder: Path, final: Path) -> None:
    """Moves a finished directory to its place, in one step.

    If another process has put the same there meanwhile, its directory stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists() and not is_whole(final):
        shutil.rmtree(final)  # Damaged from outside: nothing here makes halves.
    try:
        os.replace(folder, final)
    except OSError:
        if not is_whole(final):
            raise


def is_whole(directory: Path) -> bool:
    """Whether a published directory is there."""
    return (directory / "info.json").exists()


def remove_leftovers(store_dir: str | os.PathLike) -> None:
    """Removes the directories that ended processes of this host left."""
    parent = Path(store_dir) / _FOLDER
    for lock in parent.glob(f"{_host()}.*{_LOCK}"):
        with contextlib.suppress(OSError):  # Locked, or gone meanwhile.
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock)
            finally:
                os.close(descriptor)
    with contextlib.suppress(OSError):  # In use, or not there.
        parent.rmdir()


def _locked(parent: Path) -> tuple[Path, int]:
    """Makes a lock file that only this process holds."""
    while True:
        lock = parent / f"{_host()}.{os.getpid()}-{secrets.token_hex(4)}{_LOCK}"
        # Another process may remove the folder at any moment: then mkdir fails for it
        # exists, or open because it does not.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            with contextlib.suppress(OSError):  # A file system without locks.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between these two steps it looked like a leftover.
            if lock.exists():
                return lock, descriptor
            os.close(descriptor)


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # In use.
        lock.parent.rmdir()


def _host() -> str:
    return os.uname().nodename
