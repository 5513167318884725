"""Which example goes into which row of which batch, without reading any example.

    plan = Plan(members, layout, seed=0, block_examples=8192)
    rows, position = plan.rows(Position(0, 0), 32)   # batch 0, and where batch 1 starts
    rows, position = plan.rows(position, 32)         # batch 1

The order is a pure function of (members, layout, seed, block size), made in blocks.
Block b takes of every member its share of `block_examples`: floor differences of its
cumulative share, so that after any number of blocks the realised count of a member is
within one example of its share. Inside a member, examples follow a permutation per
epoch: one repeats only after all others were used. The block is packed from lengths
alone and its rows are shuffled. Batch k is rows [k*B, (k+1)*B) of the blocks joined
together, so a place in the data is two integers, resuming costs one block, and hosts
only decide who reads which rows.

All randomness comes from Philox counters keyed by what the numbers are for, read raw:
NumPy guarantees that stream for good, which it does not for `Generator` methods.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flanjax.data.assemble import ragged
from flanjax.data.layout import Layout
from flanjax.data.packing import pack
from flanjax.data.row_counts import RowCounts
from flanjax.errors import ConfigError, DataError

# Goes into every fingerprint; raise it with every change of the order.
PLAN_VERSION = 1
_PERMUTATION_STREAM, _ORDER_STREAM, _ROWS_STREAM, _PHASE_STREAM = range(4)
_KEPT_BLOCKS = 3

Row = list[tuple[int, int]]


class Position(NamedTuple):
    """A place in the data: the next row to use is `row` of block `block`."""

    block: int = 0
    row: int = 0


class PlanMember(NamedTuple):
    """One task of the mixture: its raw lengths int [n, 2] and its share (sum 1)."""

    name: str
    lengths: np.ndarray
    share: float
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """Packed rows, as a rule a block.

    Row r holds entries `starts[r]:starts[r + 1]` of the other two arrays.

    Attributes:
      members: int32 [n], index of the member each example is from.
      examples: int32 [n], index of the example in its member's store.
      starts: int64 [rows + 1].
    """

    members: np.ndarray
    examples: np.ndarray
    starts: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def slice(self, first: int, end: int) -> "Block":
        """Returns rows `first` to `end - 1`."""
        starts = self.starts[first : end + 1]
        here = slice(starts[0], starts[-1])
        return Block(self.members[here], self.examples[here], starts - starts[0])

    def row(self, index: int) -> Row:
        """Returns the (member, example) pairs of a row."""
        return self.slice(index, index + 1).rows()[0]

    def rows(self) -> list[Row]:
        """Returns the (member, example) pairs of every row."""
        pairs = list(zip(self.members.tolist(), self.examples.tolist(), strict=True))
        starts = self.starts.tolist()
        return [pairs[a:b] for a, b in itertools.pairwise(starts)]


def _joined(pieces: Sequence[Block]) -> Block:
    """Puts the rows of blocks one behind the other."""
    counts = [np.diff(piece.starts) for piece in pieces]
    return Block(
        np.concatenate([piece.members for piece in pieces]),
        np.concatenate([piece.examples for piece in pieces]),
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
    )


class Plan:
    """The order of all examples of a mixture.

    Args:
      members: the tasks; plain (name, lengths, share) tuples do as well.
      layout: how examples become rows; decides lengths and limits.
      seed: another seed is another order.
      block_examples: examples in a block, on average; a block's size differs from it
        by rounding, by fewer than the number of members.
      packing: False puts every example in a row of its own.

    Attributes:
      row_counts: rows of the blocks packed so far; one with a file may be put here.
      lengths: int32 [examples, 2], raw lengths, member after member.
      sizes, offsets: int64 [members], examples of each member, and those before it.

    Raises:
      ConfigError: shares that do not sum to 1, or a bad block size.
      DataError: a member without examples or with a share of zero.
    """

    def __init__(
        self,
        members: Sequence[PlanMember | tuple],
        layout: Layout,
        seed: int = 0,
        block_examples: int = 8192,
        packing: bool = True,
    ):
        self.members = [
            member if isinstance(member, PlanMember) else PlanMember(*member)
            for member in members
        ]
        self.layout, self.seed, self.packing = layout, int(seed), packing
        self.block_examples = int(block_examples)
        self._check()
        self.shares = np.array([member.share for member in self.members], np.float64)
        self.sizes = np.array([len(member.lengths) for member in self.members])
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.lengths = np.concatenate([member.lengths for member in self.members])
        self._bits = np.random.Philox(key=0)
        self._state: Any = self._bits.state
        # Members start at different places between two whole numbers: with all at 0,
        # every task with less than one example a block would be late by a block.
        places = self._shuffled(len(self.members), _PHASE_STREAM, 0, 0)
        self._phases = (places + 0.5) / len(self.members)
        self._permutations = _Permutations(self)
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self.row_counts = RowCounts()
        self._lock = threading.Lock()

    def _check(self):
        if self.block_examples < 1:
            raise ConfigError(
                f"block_examples is {self.block_examples}; need 1 or more"
            )
        for name, lengths, share, _ in self.members:
            if not len(lengths):
                raise DataError("task has no examples", where=name)
            if not share > 0:
                raise DataError(f"task has share {share}", where=name)
        total = sum(member.share for member in self.members)
        if abs(total - 1) > 1e-6:
            raise ConfigError(f"shares sum to {total}, not 1")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides the order, 16 hex digits."""
        parts = {
            "version": PLAN_VERSION,
            "seed": self.seed,
            "block_examples": self.block_examples,
            "packing": self.packing,
            "layout": dataclasses.asdict(self.layout),
            "members": [
                (m.name, m.fingerprint, float(m.share).hex(), _lengths_hash(m.lengths))
                for m in self.members
            ],
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def order_hash(self, first: int = 4096) -> str:
        """Hash of the names and indices of the first examples, in order of use."""
        digest, seen, number = hashlib.sha256(), 0, 0
        names = [member.name for member in self.members]
        while seen < first:
            block = self.block(number)
            ids = zip(block.members.tolist(), block.examples.tolist(), strict=True)
            for member, example in list(ids)[: first - seen]:
                digest.update(f"{names[member]}:{example}\n".encode())
            seen, number = seen + len(block.members), number + 1
        return digest.hexdigest()[:16]

    def drawn(self, blocks: int) -> np.ndarray:
        """Examples taken of each member by the first `blocks` blocks, int64 [m]."""
        exact = np.float64(blocks) * self.block_examples * self.shares
        return np.floor(exact + self._phases).astype(np.int64)

    def block(self, number: int) -> Block:
        """Returns a block; the last few are kept."""
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
            block = self._make_block(number)
            self._blocks[number] = block
            self.row_counts.put(number, block.num_rows)
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            return block

    def entries(self, position: Position, count: int) -> tuple[Block, Position]:
        """Returns `count` rows from a position on, and the position behind them."""
        number, row = position
        pieces: list[Block] = []
        while count > 0:
            block = self.block(number)
            end = min(row + count, block.num_rows)
            pieces.append(block.slice(row, end))
            count -= end - row
            number, row = (number, end) if end < block.num_rows else (number + 1, 0)
        return _joined(pieces), Position(number, row)

    def rows(self, position: Position, count: int) -> tuple[list[Row], Position]:
        """The same as `entries`, as lists of (member, example) pairs."""
        entries, position = self.entries(position, count)
        return entries.rows(), position

    def advance(self, position: Position, count: int) -> Position:
        """Returns the position `count` rows further on."""
        number, row = position[0], position[1] + count
        while row >= (rows := self._num_rows(number)):
            number, row = number + 1, row - rows
        return Position(number, row)

    def position_of(self, step: int, batch_size: int) -> Position:
        """Returns where batch `step` (from 0) starts.

        Packs the blocks before it, except those whose rows are in `row_counts`.
        """
        return self.advance(Position(0, 0), step * batch_size)

    def _num_rows(self, number: int) -> int:
        known = self.row_counts.get(number)
        return self.block(number).num_rows if known is None else known

    def _make_block(self, number: int) -> Block:
        members, examples = self._draw(number)
        if self.packing:
            raw = self.lengths[self.offsets[members] + examples]
            order, starts = pack(self.layout.sizes(raw), self.layout.limits)
        else:
            order, starts = np.arange(len(members)), np.arange(len(members) + 1)
        rows = self._shuffled(len(starts) - 1, _ROWS_STREAM, number, 0)
        lengths = np.diff(starts)[rows]
        new_starts = np.concatenate([[0], np.cumsum(lengths)])
        # Entry j of the shuffled block is entry j - its row's start + the old start.
        shift = np.repeat(starts[rows] - new_starts[:-1], lengths)
        order = order[np.arange(len(order)) + shift]
        return Block(members[order], examples[order], new_starts)

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the members and examples of a block, int32 [n] each, shuffled."""
        first, last = self.drawn(number), self.drawn(number + 1)
        counts = last - first
        members = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        examples = self._permutations.take(first, counts)
        order = self._shuffled(len(members), _ORDER_STREAM, number, 0)
        return members[order], examples[order]

    def _shuffled(self, size: int, stream: int, a: int, b: int) -> np.ndarray:
        """Returns a permutation of `size` that depends on (seed, stream, a, b)."""
        # Setting a generator's state takes a tenth of the time of making one.
        self._state["state"]["key"][:] = self.seed % 2**64, a
        self._state["state"]["counter"][:] = 0, 0, b, stream
        self._bits.state = self._state
        bits = self._bits.random_raw(size)
        # The number itself in the low bits: no ties, and sorting values is ten times
        # faster than argsort.
        mask = np.uint64((1 << max(size, 1).bit_length()) - 1)
        bits = (bits & ~mask) | np.arange(size, dtype=np.uint64)
        return (np.sort(bits) & mask).astype(np.int64)


class _Permutations:
    """One epoch's permutation of each member, the one used last."""

    def __init__(self, plan: Plan):
        self._plan = plan
        # By name, not by index: another member more does not reorder the others.
        self._keys = [_name_key(member.name) for member in plan.members]
        self._epochs = np.full(len(plan.members), -1, np.int64)
        # Permutations one behind the other; memory is used up as they are made.
        self._joined = np.empty(len(plan.lengths), np.int32)

    def take(self, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Returns examples number `starts` to `starts + counts` that members ever give.

        Args:
          starts: int [members].
          counts: int [members], how many to take of each.

        Returns:
          int32 [sum of counts], member after member.
        """
        sizes, offsets = self._plan.sizes, self._plan.offsets
        epochs = starts // sizes
        places = starts - epochs * sizes
        ends = np.cumsum(counts)
        found = np.empty(int(ends[-1]), np.int32)
        inside = places + counts <= sizes
        for member in np.flatnonzero(inside & (counts > 0) & (self._epochs != epochs)):
            self._make(int(member), int(epochs[member]))
        used = np.where(inside, counts, 0)
        into = ragged(ends - counts, used)
        found[into] = self._joined[ragged(offsets + places, used)]
        for member in np.flatnonzero(~inside).tolist():
            pieces = self._pieces(member, int(starts[member]), int(counts[member]))
            found[ends[member] - counts[member] : ends[member]] = np.concatenate(pieces)
        return found

    def _pieces(self, member: int, start: int, count: int) -> list[np.ndarray]:
        """What `take` gives of a member when an epoch ends within."""
        size, offset = int(self._plan.sizes[member]), int(self._plan.offsets[member])
        pieces, end = [], start + count
        while start < end:
            epoch, place = divmod(start, size)
            if self._epochs[member] != epoch:
                self._make(member, epoch)
            last = min(size, place + end - start)
            # A copy: the next epoch is written over this one.
            pieces.append(self._joined[offset + place : offset + last].copy())
            start += last - place
        return pieces

    def _make(self, member: int, epoch: int) -> None:
        size, offset = int(self._plan.sizes[member]), int(self._plan.offsets[member])
        stream = (_PERMUTATION_STREAM, self._keys[member], epoch)
        self._joined[offset : offset + size] = self._plan._shuffled(size, *stream)
        self._epochs[member] = epoch


def _name_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _lengths_hash(lengths: np.ndarray) -> str:
    data = np.ascontiguousarray(lengths, "<i4").tobytes()
    return hashlib.sha256(data).hexdigest()[:16]
