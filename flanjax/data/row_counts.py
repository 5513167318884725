"""How many rows each block of a plan has, remembered beside the store.

    counts = RowCounts(store_dir / "plans" / f"{plan.fingerprint}.rows")
    counts.put(7, 1204)
    counts.get(7)               # 1204, from now on in every process; None if unknown

Finding the place of batch 100,000 needs the rows of all blocks before it, and only
packing tells. So whoever packs a block, training above all, leaves the number here: 8
bytes at a place of the block's own, the count and its complement. Writing it twice, by
two processes at once, or being killed while writing changes nothing, and what is not
there or not whole is simply packed again.
"""

import contextlib
import os
from pathlib import Path

import numpy as np

_ENTRY = 8


class RowCounts:
    """Row counts by block number.

    Args:
      path: the file; None remembers in this process only, as does a store that cannot
        be written to.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self._path = None if path is None else Path(path)
        self._known: dict[int, int] = {}
        if self._path is not None and self._path.exists():
            data = self._path.read_bytes()
            words = np.frombuffer(data[: len(data) // _ENTRY * _ENTRY], "<u4")
            count, complement = words.reshape(-1, 2).T
            blocks = np.flatnonzero(count == ~complement)
            self._known = dict(
                zip(blocks.tolist(), count[blocks].tolist(), strict=True)
            )

    def get(self, block: int) -> int | None:
        """Returns the rows of a block, or None when nobody has packed it yet."""
        return self._known.get(block)

    def put(self, block: int, rows: int) -> None:
        """Remembers the rows of a block."""
        if block in self._known:
            return
        self._known[block] = rows
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                entry = np.array([rows, ~np.uint32(rows)], "<u4").tobytes()
                os.pwrite(file, entry, block * _ENTRY)
            finally:
                os.close(file)
