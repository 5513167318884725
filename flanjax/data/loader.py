"""Batches by plan: reads the store with Grain's threads ahead of the accelerator.

    loader = make_loader(resolved, store_dir, layout, batch_size=32, seed=0)
    for batch in loader:
        state, metrics = train_step(state, batch.features)
        position = batch.position          # goes into the checkpoint; resume from it

Grain sees the plan as a random-access source of batches, reads several at once and
hands them out in order. Its own state is not needed: every batch carries the position
behind it. With several hosts each one reads only its rows, a contiguous slice; hash,
counts and position are of the global batch, so all hosts can compare them.
"""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grain
import numpy as np

from flanjax.data.assemble import Segments, assemble
from flanjax.data.layout import Layout
from flanjax.data.plan import Block, Plan, Position, Row
from flanjax.data.reading import MixtureReader
from flanjax.data.row_counts import RowCounts
from flanjax.data.store import Member, ResolvedMixture, plan_members
from flanjax.errors import ConfigError

# Grain wants a length; the plan has none. No run comes near it.
_ENDLESS = 1 << 40


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of one host.

    Attributes:
      features: SeqIO feature name -> int32 [rows of this host, length].
      position: where the next batch starts.
      examples: (member, example) pairs, row by row, of this host's rows.
      hash: of the example ids of the whole batch, the same on every host.
      counts: int64 [members], examples of each in the whole batch.
    """

    features: dict[str, np.ndarray]
    position: Position
    examples: list[Row]
    hash: str
    counts: np.ndarray


class BatchSource:
    """Batches of a plan by number, counted from a position; any order, any thread.

    Args:
      plan: decides what is in each row.
      members: stored members in the plan's order.
      store_dir: where their examples are.
      batch_size: rows of the global batch.
      position: of batch 0.
      hosts: (index, count) of this host.

    Raises:
      ConfigError: `batch_size` cannot be divided by the number of hosts.
    """

    def __init__(
        self,
        plan: Plan,
        members: Sequence[Member],
        store_dir: str | os.PathLike,
        batch_size: int,
        position: Position,
        hosts: tuple[int, int] = (0, 1),
    ):
        index, count = hosts
        if batch_size < 1 or batch_size % count:
            raise ConfigError(
                f"batch size {batch_size} is not divisible by {count} host(s)",
                where="BATCH_SIZE",
                fix=f"use a multiple of {count}",
            )
        self._plan = plan
        self._reader = MixtureReader(members, plan, store_dir)
        self._batch_size = batch_size
        rows = batch_size // count
        self._mine = slice(index * rows, (index + 1) * rows)
        self._positions = [Position(*position)]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Batch:
        start = self._position(int(index))
        entries, end = self._plan.entries(start, self._batch_size)
        mine = entries.slice(self._mine.start, self._mine.stop)
        return Batch(
            features=self._features(mine),
            position=end,
            examples=mine.rows(),
            hash=_hash(entries),
            counts=np.bincount(entries.members, minlength=len(self._plan.members)),
        )

    def _position(self, number: int) -> Position:
        """Where a batch starts; walks on from the last one known."""
        with self._lock:
            while len(self._positions) <= number:
                last = self._positions[-1]
                self._positions.append(self._plan.advance(last, self._batch_size))
            return self._positions[number]

    def _features(self, rows: Block) -> dict[str, np.ndarray]:
        """Reads the examples of rows and lays them out."""
        tokens, starts = self._reader.read(rows.members, rows.examples)
        plan = self._plan
        segments = Segments(
            tokens,
            starts,
            lengths=plan.lengths[plan.offsets[rows.members] + rows.examples],
            rows=np.repeat(np.arange(rows.num_rows), np.diff(rows.starts)),
        )
        return assemble(plan.layout, segments, rows.num_rows)


class Loader:
    """Iterator of `Batch` with reading ahead; close it, or use it in a `with`.

    Args:
      source: the batches.
      prefetch: batches to have ready; 0 reads in the calling thread.
      threads: batches to read at once; more than one only helps where a read waits
        (a network file system): from local files two cost a third more processor time.
    """

    def __init__(self, source: BatchSource, prefetch: int, threads: int):
        options = grain.ReadOptions(
            num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch
        )
        dataset = grain.MapDataset.source(source).to_iter_dataset(options)
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Ends the reading threads."""
        self._iterator.close()


def make_plan(
    resolved: ResolvedMixture,
    store_dir: str | os.PathLike,
    layout: Layout,
    seed: int,
    block_examples: int = 8192,
    packing: bool = True,
) -> Plan:
    """Returns the plan of a prepared mixture's training members."""
    members = plan_members(resolved.members, store_dir)
    plan = Plan(members, layout, seed, block_examples, packing)
    plan.row_counts = RowCounts(Path(store_dir) / "plans" / f"{plan.fingerprint}.rows")
    return plan


def make_loader(
    resolved: ResolvedMixture,
    store_dir: str | os.PathLike,
    layout: Layout,
    batch_size: int,
    seed: int,
    block_examples: int = 8192,
    position: Position | None = None,
    host_index: int = 0,
    host_count: int = 1,
    packing: bool = True,
    prefetch: int = 4,
    threads: int = 1,
    plan: Plan | None = None,
) -> Loader:
    """Returns the training batches of a prepared mixture, endless.

    Args:
      resolved: the prepared mixture.
      store_dir: its store.
      layout: how examples become features.
      batch_size: rows of the global batch.
      seed: of the order.
      block_examples: examples packed together.
      position: where to go on; None is the start.
      host_index: which of `host_count` contiguous slices to read.
      host_count: number of hosts.
      packing: False puts every example in a row of its own.
      prefetch: batches to have ready.
      threads: batches to read at once; more than one only helps where a read waits
        (a network file system): from local files two cost a third more processor time.
      plan: from `make_plan` with the same arguments, if the caller has it already.

    Returns:
      A `Loader`.

    Raises:
      ConfigError: batch size not divisible by the hosts.
      DataError: the store is damaged.
    """
    plan = plan or make_plan(resolved, store_dir, layout, seed, block_examples, packing)
    source = BatchSource(
        plan,
        resolved.members,
        store_dir,
        batch_size,
        position or Position(),
        (host_index, host_count),
    )
    return Loader(source, prefetch, threads)


def _hash(rows: Block) -> str:
    ids = np.stack([rows.members, rows.examples], axis=1).astype("<i8")
    digest = hashlib.sha256(ids.tobytes())
    digest.update(np.diff(rows.starts).astype("<i8").tobytes())
    return digest.hexdigest()[:16]
