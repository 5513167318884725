"""Packs examples into rows from their lengths alone.

    order, starts = pack(sizes, limits=(1024, 256))
    first_row = order[starts[0]:starts[1]]      # indices of the examples in row 0

An example has two sizes (inputs and targets for an encoder-decoder; the whole segment
and 0 for a decoder), a row has two budgets. One row is filled at a time. It starts with
the example that is longest on the less scarce side among those left: such examples are
the hard ones to place, and left to the end they would each take a row of their own.
Then the largest example on the scarce side that still fits is taken, and among those of
equal size the one whose other side is in proportion to what is left of both budgets.
With one budget this is best fit. Deterministic, no randomness; about a million examples
a second, 99 % of the bound for inputs of mean 150 and targets of mean 20 in rows of
1024/256 (in stream order, as SeqIO packs, it is 83 %).
"""

from bisect import bisect_right

import numpy as np

# How many sizes are tried, from the largest that fits downwards, before a row is closed
# because the other budget is used up. More would raise the fill by under 1 %.
_PROBES = 64
_ID_BITS = 32
_ID_MASK = (1 << _ID_BITS) - 1


def pack(sizes: np.ndarray, limits: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Assigns every example to exactly one row without exceeding either limit.

    Args:
      sizes: int [n, 2], tokens an example takes of each budget.
      limits: the two budgets of a row.

    Returns:
      `order` int64 [n], the example indices row after row, and `starts` int64
      [rows + 1]; row r holds `order[starts[r]:starts[r + 1]]`.

    Raises:
      ValueError: an example alone exceeds a limit (the layout trims before packing).
    """
    sizes = np.asarray(sizes, np.int64).reshape(-1, 2)
    if (sizes > np.asarray(limits)).any() or (sizes < 0).any():
        raise ValueError(f"sizes must lie between 0 and {limits}")
    limits = int(limits[0]), int(limits[1])
    demand = sizes.sum(axis=0) / np.maximum(limits, 1)
    if demand[1] > demand[0]:
        sizes, limits = sizes[:, ::-1], (limits[1], limits[0])
    rows = _fill_rows(sizes, limits)
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    order = np.fromiter((i for row in rows for i in row), np.int64, count=len(sizes))
    return order, starts


def _fill_rows(sizes: np.ndarray, limits: tuple[int, int]) -> list[list[int]]:
    """Fills rows one by one; column 0 of `sizes` is the scarce side."""
    left = _Examples(sizes)
    ids = np.arange(len(sizes))
    by_other_side = np.lexsort((-ids, -sizes[:, 0], -sizes[:, 1])).tolist()
    size_of = sizes[:, 0].tolist()
    rows = []
    for first in by_other_side:
        if left.taken[first]:
            continue
        # By this order, the next one is always the last of its bucket.
        index, other = left.take(size_of[first], -1)
        row = [index]
        room, other_room = limits[0] - size_of[first], limits[1] - other
        while (found := left.find(room, other_room)) is not None:
            size, place = found
            index, other = left.take(size, place)
            row.append(index)
            room -= size
            other_room -= other
        rows.append(row)
    return rows


class _Examples:
    """The examples not yet in a row, in buckets by their scarce side.

    A bucket is a sorted list of `other_side << 32 | index`; the sizes that have a
    non-empty bucket are the set bits of one integer, so that the largest size that fits
    is one mask and one `bit_length`.
    """

    def __init__(self, sizes: np.ndarray):
        ids = np.arange(len(sizes))
        order = np.lexsort((ids, sizes[:, 1], sizes[:, 0]))
        keys = ((sizes[order, 1] << _ID_BITS) | order).tolist()
        counts = np.bincount(sizes[:, 0])
        ends = np.cumsum(counts)
        self.buckets: dict[int, list[int]] = {}
        self.present = 0
        for size in np.flatnonzero(counts).tolist():
            self.buckets[size] = keys[ends[size] - counts[size] : ends[size]]
            self.present |= 1 << size
        self.taken = bytearray(len(sizes))

    def take(self, size: int, place: int) -> tuple[int, int]:
        """Removes and returns (index, other side) of a bucket's entry."""
        bucket = self.buckets[size]
        key = bucket.pop(place)
        if not bucket:
            self.present ^= 1 << size
        index = key & _ID_MASK
        self.taken[index] = 1
        return index, key >> _ID_BITS

    def find(self, room: int, other_room: int) -> tuple[int, int] | None:
        """Returns (size, place in its bucket) of the best example that fits."""
        fitting = self.present & ((2 << room) - 1)
        for _ in range(_PROBES):
            if not fitting:
                return None
            size = fitting.bit_length() - 1
            bucket = self.buckets[size]
            wanted = other_room * size // room if room else other_room
            place = bisect_right(bucket, (wanted << _ID_BITS) | _ID_MASK)
            place = max(place - 1, 0)
            if bucket[place] >> _ID_BITS <= other_room:
                return size, place
            fitting ^= 1 << size
        return None
