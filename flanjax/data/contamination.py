"""Which training rows stand in a held-out set: whole rows, and shared runs of words.

    index = HeldOutIndex({"mmlu_anatomy": rows, ...}, ngram=13)
    overlaps = index.compare("niv2_task001", training_rows)
    overlaps[0].held_out, overlaps[0].exact_rows, overlaps[0].quotes

Rows are compared by what they say, not by the name of their task, and before any
template is put around them. Two rows are the same when their input texts are the same
words, whatever the case, the spacing, the punctuation and the names of the fields. A
shared run is `ngram` words (13, as Brown et al. 2020, appendix C, count them) of any
text of the row; held-out texts shorter than that count whole from 8 words on. A run
that stands in many rows of one held-out set is its wording, not its content, and is
left out. https://arxiv.org/abs/2005.14165
"""

import collections
import functools
import hashlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flanjax.data.ngrams import Ngrams, hash_ngrams, normalise

NGRAM = 13
_SHORTEST = 8
_WORDING_ROWS, _WORDING_SHARE = 10, 0.05
_BATCH_CHARACTERS = 1 << 21
_QUOTES = 3
_QUOTE_CHARACTERS = 240


@dataclass(frozen=True)
class RowTexts:
    """What a row says.

    Attributes:
      row_id: of the row.
      inputs: texts of its inputs, answer and options left out; what makes two rows
        the same.
      others: its other texts: options, answer, rationale.
    """

    row_id: str
    inputs: tuple[str, ...]
    others: tuple[str, ...] = ()

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """Its texts, normalised: the inputs, then the others."""
        return tuple(map(normalise, (*self.inputs, *self.others)))

    def key(self) -> int | None:
        """Returns a hash of the inputs' words; None for fewer than three words."""
        words = "\n".join(sorted(filter(None, self.words[: len(self.inputs)])))
        if len(words.split()) < 3:
            return None
        return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Quote:
    """One match: the words that both rows have."""

    training_row: str
    held_out_row: str
    text: str


@dataclass
class Overlap:
    """What one training task shares with one held-out set.

    Attributes:
      task: the training task.
      held_out: the held-out set.
      exact_rows: training rows equal to a held-out row.
      shared_rows: training rows that share a run of words with it, or are equal.
      held_out_rows: held-out rows that are touched.
      held_out_total: rows of the set.
      quotes: the first few matches, equal rows before shared runs.
    """

    task: str
    held_out: str
    exact_rows: int = 0
    shared_rows: int = 0
    held_out_rows: int = 0
    held_out_total: int = 0
    quotes: list[Quote] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Fraction of the held-out rows that are touched."""
        return self.held_out_rows / max(self.held_out_total, 1)

    def failed(self, most_shared: float) -> bool:
        """Whether it has equal rows, or more touched rows than a fraction."""
        return self.exact_rows > 0 or self.share > most_shared


class HeldOutIndex:
    """Held-out sets by the hashes of their rows and runs of words.

    Args:
      sets: name -> its rows.
      ngram: words of a run.
    """

    def __init__(self, sets: Mapping[str, Iterable[RowTexts]], ngram: int = NGRAM):
        self.names: list[str] = []
        self.totals: list[int] = []
        self._row_ids: list[str] = []
        self._set_of: list[int] = []
        self._keys: dict[int, list[int]] = collections.defaultdict(list)
        self._ngram = ngram
        found: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        for name, rows in sets.items():
            self._add(name, list(rows), found)
        self._runs = {
            words: _Runs(np.concatenate(parts, axis=1))
            for words, parts in found.items()
        }

    def _add(
        self, name: str, rows: list[RowTexts], found: dict[int, list[np.ndarray]]
    ) -> None:
        first = len(self._row_ids)
        self.names.append(name)
        self.totals.append(len(rows))
        self._row_ids += [row.row_id for row in rows]
        self._set_of += [len(self.names) - 1] * len(rows)
        by_length: dict[int, list[tuple[int, str]]] = collections.defaultdict(list)
        for number, row in enumerate(rows, start=first):
            key = row.key()
            if key is not None:
                self._keys[key].append(number)
            for text in row.words:
                words = min(len(text.split()), self._ngram)
                if words >= min(_SHORTEST, self._ngram):
                    by_length[words].append((number, text))
        wording = max(_WORDING_ROWS, int(_WORDING_SHARE * len(rows)))
        for words, texts in by_length.items():
            found[words].append(_content_runs(texts, words, wording))

    def compare(self, task: str, rows: Iterable[RowTexts]) -> list[Overlap]:
        """Returns what a training task shares with each held-out set it touches."""
        result: dict[int, Overlap] = {}
        touched: dict[int, set[int]] = collections.defaultdict(set)

        def note(held_out: int, row: RowTexts, text: str) -> Overlap:
            number = self._set_of[held_out]
            if number not in result:
                result[number] = Overlap(task, self.names[number])
                result[number].held_out_total = self.totals[number]
            touched[number].add(held_out)
            overlap = result[number]
            if len(overlap.quotes) < _QUOTES and text:
                quote = Quote(row.row_id, self._row_ids[held_out], text)
                overlap.quotes.append(quote)
            return overlap

        for batch in _batches(rows):
            self._compare_batch(batch, note)
        for number, overlap in result.items():
            overlap.held_out_rows = len(touched[number])
        return sorted(
            result.values(), key=lambda o: (-o.exact_rows, -o.share, o.held_out)
        )

    def _compare_batch(self, batch: Sequence[RowTexts], note) -> None:
        exact: set[tuple[int, int]] = set()
        shared: dict[tuple[int, int], Overlap] = {}
        for index, row in enumerate(batch):
            for held_out in self._equal(row):
                text = textwrap.shorten(
                    " ".join(row.inputs), _QUOTE_CHARACTERS, placeholder=" ..."
                )
                seen = (index, self._set_of[held_out])
                overlap = note(held_out, row, "" if seen in exact else text)
                overlap.exact_rows += seen not in exact
                exact.add(seen)
                shared[seen] = overlap
        for grams, run, held_out, owner in self._matches(batch):
            seen = (owner, self._set_of[held_out])
            text = "" if seen in shared else grams.words(run)
            shared[seen] = note(held_out, batch[owner], text)
        for overlap in shared.values():
            overlap.shared_rows += 1

    def _equal(self, row: RowTexts) -> Sequence[int]:
        """Returns the held-out rows that a row is equal to."""
        key = row.key()
        return () if key is None else self._keys.get(key, ())

    def _matches(
        self, batch: Sequence[RowTexts]
    ) -> Iterator[tuple[Ngrams, int, int, int]]:
        """Yields (n-grams, run, held-out row, index in the batch) of shared runs."""
        texts = [(index, text) for index, row in enumerate(batch) for text in row.words]
        owners = [index for index, _ in texts]
        for words, runs in self._runs.items():
            grams = hash_ngrams([text for _, text in texts], words)
            for run, held_out in runs.find(grams.hashes):
                yield grams, run, held_out, owners[grams.texts[run]]


class _Runs:
    """Sorted hashes with the rows they are from.

    Args:
      pairs: uint64 [2, runs], hashes and row numbers.
    """

    def __init__(self, pairs: np.ndarray):
        order = np.argsort(pairs[0], kind="stable")
        self._hashes, self._rows = pairs[0][order], pairs[1][order].astype(np.int64)
        # Nearly every training run is none of these: one bit says so at once.
        bits = max(16, len(order).bit_length() + 3)
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, bool)
        self._filter[self._hashes >> self._shift] = True

    def find(self, hashes: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yields (index into `hashes`, row number) of every match."""
        maybe = np.flatnonzero(self._filter[hashes >> self._shift])
        first = np.searchsorted(self._hashes, hashes[maybe], "left")
        last = np.searchsorted(self._hashes, hashes[maybe], "right")
        for index in np.flatnonzero(last > first):
            for place in range(first[index], last[index]):
                yield int(maybe[index]), int(self._rows[place])


def _content_runs(
    texts: Sequence[tuple[int, str]], words: int, wording: int
) -> np.ndarray:
    """Returns uint64 [2, runs]: each run of each row once, the set's wording left out.

    Args:
      texts: (row number, normalised text).
      words: of a run.
      wording: runs that stand in more rows than this are left out.
    """
    grams = hash_ngrams([text for _, text in texts], words)
    numbers = np.array([number for number, _ in texts], np.uint64)
    pairs = np.unique(np.stack([grams.hashes, numbers[grams.texts]]), axis=1)
    _, inverse, counts = np.unique(pairs[0], return_inverse=True, return_counts=True)
    return pairs[:, counts[inverse] <= wording]


def _batches(rows: Iterable[RowTexts]) -> Iterator[list[RowTexts]]:
    batch: list[RowTexts] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row.inputs)) + sum(map(len, row.others))
        if size > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
