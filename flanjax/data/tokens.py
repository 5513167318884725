"""Token files: the token ids of a task's examples, one behind the other.

    write: file.write(record(inputs, targets))
    read:  TokenFiles().read([path], starts=[0], words=[61])

A record is inputs, targets and the CRC-32 of both, all little-endian 32-bit words, so
its place follows from the lengths of those before it, and one `pread` gets it. Only
tokens are here: what training reads of an example it reads in one short call, and the
provenance, which only a person looks at, lies in another file.
"""

import os
import resource
import threading
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
      limit: files kept open; None takes half of what the process may open, so that
        thousands of tasks work under any limit.
    """

    def __init__(self, limit: int | None = None):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._limit = limit or (most if most > 0 else 512)
        self._open: dict[str, _Descriptor] = {}
        self._lock = threading.Lock()

    def read(
        self, paths: Sequence[str], starts: Sequence[int], words: Sequence[int]
    ) -> list[bytes]:
        """Reads records, from any thread.

        Args:
          paths: the token file of each record.
          starts: word of its file at which each begins.
          words: how many it has.

        Returns:
          The records' bytes, checksum included, in the order asked for.

        Raises:
          DataError: a file is missing, too short, or not what was written.
        """
        files = [self._open.get(path) or self._add(path) for path in paths]
        records = [
            os.pread(file.number, count * WORD, start * WORD)
            for file, start, count in zip(files, starts, words, strict=True)
        ]
        for data, path, start, count in zip(records, paths, starts, words, strict=True):
            if len(data) != count * WORD:
                raise damaged(path, f"it ends before byte {(start + count) * WORD:,}")
            if crc32(data) != _RESIDUE:
                raise damaged(path, f"wrong checksum at byte {start * WORD:,}")
        return records

    def _add(self, path: str) -> "_Descriptor":
        with self._lock:
            if len(self._open) >= self._limit:
                del self._open[next(iter(self._open))]
            try:
                file = self._open[path] = _Descriptor(path)
            except OSError as error:
                raise damaged(path, str(error)) from error
            return file


class _Descriptor:
    """An open file, closed when its last reader lets go of it."""

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
