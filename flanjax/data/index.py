"""The lengths of all examples of a mixture in one file, so that opening it is one read.

    lengths = mixture_lengths(resolved.members, store_dir)      # one [n, 2] per member

A mixture of thousands of tasks lies in as many directories. Their lengths are gathered
the first time the mixture is opened into `index/<key>.npy`, int32 [examples, 2], and
mapped into memory from then on. The key is of the members' directories, whose names
hold the fingerprints of their content: the file is never stale, and may be deleted at
any time. It appears by one rename, so several processes may make it at once.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from flanjax.errors import DataError


class Stored(Protocol):
    """A prepared task of a store, e.g. `flanjax.data.store.Member`."""

    @property
    def path(self) -> str:
        """Its directory, relative to the store."""
        ...

    @property
    def num_examples(self) -> int:
        """Examples in it."""
        ...


def mixture_lengths(
    members: Sequence[Stored], store_dir: str | os.PathLike
) -> list[np.ndarray]:
    """Returns the raw lengths of each member's examples, int32 [n, 2], read-only.

    Raises:
      DataError: a member's directory is missing, damaged, or of another size.
    """
    sizes = [member.num_examples for member in members]
    key = json.dumps([(member.path, member.num_examples) for member in members])
    name = hashlib.sha256(key.encode()).hexdigest()[:16] + ".npy"
    path = Path(store_dir) / "index" / name
    joined = _mapped(path, sum(sizes))
    if joined is None:
        found = [_lengths(member, Path(store_dir)) for member in members]
        joined = np.concatenate([*found, np.zeros((0, 2), np.int32)])
        _save(path, joined)
    return np.split(joined, np.cumsum(sizes)[:-1]) if sizes else []


def _mapped(path: Path, size: int) -> np.ndarray | None:
    """The file's content, or None when it is absent or not whole."""
    try:
        lengths = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    whole = lengths.shape == (size, 2) and lengths.dtype == np.int32
    return np.asarray(lengths) if whole else None


def _lengths(member: Stored, store_dir: Path) -> np.ndarray:
    path = store_dir / member.path / "lengths.npy"
    try:
        lengths = np.load(path)
        if lengths.shape != (member.num_examples, 2):
            raise ValueError(
                f"it has {len(lengths)} examples, not {member.num_examples}"
            )
    except (OSError, ValueError) as error:
        raise DataError(
            f"prepared task is missing or damaged: {error}",
            where=str(path),
            fix=f"delete {path.parent} and run `flanjax data prepare` again",
        ) from error
    return lengths


def _save(path: Path, lengths: np.ndarray) -> None:
    """Keeps it for the next time; a store that cannot be written to works without."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            np.save(file, lengths)
        os.replace(temporary, path)
