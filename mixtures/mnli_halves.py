"""MNLI's training rows, divided between its two tasks.

    source = first_half(DatasetSource("muffin/mnli_matched", ...))

A row belongs to the half that a hash of its two texts says, whatever file it is read
from and in whatever order: the halves never share a row and together are the whole.
The public code gives all rows to both tasks; the switch `mnli_doubled` of
`flanjax.data.faithful` does the same.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from flanjax.data.catalog import has_data
from flanjax.data.faithful import active
from flanjax.data.identity import digest
from flanjax.data.readers import Row
from flanjax.data.sources import Source


@dataclass(frozen=True, eq=False)
class MnliHalf:
    """One half of the split "train" of a source; other splits are left whole.

    Args:
      base: rows with the fields `premise` and `hypothesis`.
      half: 0 or 1.
    """

    base: Source
    half: int

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.base.splits

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        rows = self.base.rows(split)
        if not self._divides(split):
            return rows
        return (row for row in rows if _half_of(row) == self.half)

    def fingerprint(self, split: str) -> str:
        """See `Source`; another one where the rows are not divided."""
        half = self.half if self._divides(split) else None
        return digest(self.base.fingerprint(split), "mnli half", half)

    def where(self, split: str) -> str:
        """See `Source`."""
        return self.base.where(split)

    def present(self, split: str) -> bool:
        """Whether the data of a split seems to be on this machine."""
        return has_data(self.base, split)

    def _divides(self, split: str) -> bool:
        # Asked when rows are read: the switch may be set after tasks are registered.
        return split == "train" and "mnli_doubled" not in active()


def _half_of(row: Row) -> int:
    texts = f"{row['premise']}\0{row['hypothesis']}"
    return hashlib.sha256(texts.encode()).digest()[0] % 2


first_half = functools.partial(MnliHalf, half=0)
second_half = functools.partial(MnliHalf, half=1)
