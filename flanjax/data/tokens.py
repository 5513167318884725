"""Token files: the token ids of a task's examples, one behind the other.

    write: file.write(record(inputs, targets))
    read:  TokenFiles([path]).read([0], starts=[0], words=[61])

A record is inputs, targets and the CRC-32 of both, all little-endian 32-bit words, so
its place follows from the lengths of those before it, and one `pread` gets it. Only
tokens are here: what training reads of an example it reads in one short call, and the
provenance, which only a person looks at, lies in another file.
"""

import os
import resource
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from flanjax.errors import DataError

TOKENS_FILE = "tokens.bin"
WORD = 4
# The CRC-32 of any bytes followed by their own CRC-32, little-endian.
_RESIDUE = 0x2144DF1C


def record(inputs: np.ndarray, targets: np.ndarray) -> bytes:
    """Returns an example as it stands in a token file."""
    data = np.concatenate([inputs, targets]).astype("<i4").tobytes()
    return data + crc32(data).to_bytes(4, "little")


def record_words(lengths: np.ndarray) -> np.ndarray:
    """Words that records take, int64 [n]; `lengths` is int [n, 2]."""
    return lengths[:, 0].astype(np.int64) + lengths[:, 1] + 1


class TokenFiles:
    """Reads records of many token files, the last opened ones kept open.

    Args:
      paths: the files, known by their index from here on.
      limit: files kept open; None takes half of what the process may open, so that
        thousands of tasks work under any limit.
    """

    def __init__(self, paths: Sequence[str], limit: int | None = None):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._limit = limit or (most if most > 0 else 512)
        self._paths = paths
        self._files: list[_Descriptor | None] = [None] * len(paths)
        self._opened: deque[int] = deque()
        self._lock = threading.Lock()

    def read(
        self, files: Sequence[int], starts: Sequence[int], words: Sequence[int]
    ) -> list[bytes]:
        """Reads records, from any thread.

        Args:
          files: index of each record's file.
          starts: word of its file at which each begins.
          words: how many it has.

        Returns:
          The records' bytes, checksum included, in the order asked for.

        Raises:
          DataError: a file is missing, too short, or not what was written.
        """
        descriptors = [self._files[file] or self._add(file) for file in files]
        records = [
            os.pread(descriptor.number, count * WORD, start * WORD)
            for descriptor, start, count in zip(descriptors, starts, words, strict=True)
        ]
        for data, file, start, count in zip(records, files, starts, words, strict=True):
            if len(data) != count * WORD:
                what = f"it ends before byte {(start + count) * WORD:,}"
                raise damaged(self._paths[file], what)
            if crc32(data) != _RESIDUE:
                what = f"wrong checksum at byte {start * WORD:,}"
                raise damaged(self._paths[file], what)
        return records

    def _add(self, file: int) -> "_Descriptor":
        try:
            opened = _Descriptor(self._paths[file])
        except OSError as error:
            raise damaged(self._paths[file], str(error)) from error
        with self._lock:
            if len(self._opened) >= self._limit:
                self._files[self._opened.popleft()] = None
            self._files[file] = opened
            self._opened.append(file)
        return opened


class _Descriptor:
    """An open file, closed when its last reader lets go of it."""

    __slots__ = ("number",)

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


def damaged(path: str | Path, what: str) -> DataError:
    """Returns the error for a file of the store that cannot be used."""
    return DataError(
        f"cannot read prepared examples: {what}",
        where=str(path),
        fix=f"delete {Path(path).parent} and run `flanjax data prepare` again",
    )
