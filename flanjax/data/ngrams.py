"""Hashes of word n-grams, many texts at once.

    grams = hash_ngrams([normalise("Who wrote Hamlet?"), ...], words=13)
    grams.hashes, grams.texts        # one entry for each run of 13 words

A text is normalised to lower-case words joined by single spaces; scripts that are
written without spaces (Han, kana, Thai) count every character as a word. The hash of a
run is a polynomial over its bytes modulo 2^64, taken from running sums, so that all
runs of a megabyte of text are a few NumPy operations.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NO_WORD = re.compile(r"[\W_]+")
_UNSPACED = re.compile(r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff])")
_BASE = 0x9E3779B97F4A7C15  # Odd, so that it has an inverse modulo 2^64.
_MODULUS = 1 << 64
_SPACE, _NEWLINE = 32, 10


@dataclass(frozen=True)
class Ngrams:
    """All runs of some number of words in some texts.

    Attributes:
      hashes: uint64 [runs].
      texts: int64 [runs], index of the text each run is from.
      starts: int64 [runs], its first byte in `joined`.
      ends: int64 [runs], the byte behind it.
      joined: the texts as UTF-8, newlines between them.
    """

    hashes: np.ndarray
    texts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    joined: bytes

    def words(self, run: int) -> str:
        """Returns the words of a run."""
        return self.joined[self.starts[run] : self.ends[run]].decode("utf-8")


def normalise(text: str) -> str:
    """Returns the words of a text: no case, no punctuation, single spaces."""
    text = text.casefold()
    if not text.isascii():
        text = _UNSPACED.sub(r" \1 ", text)
    return _NO_WORD.sub(" ", text).strip()


def hash_ngrams(texts: Sequence[str], words: int) -> Ngrams:
    """Hashes every run of `words` words that lies inside one text.

    Args:
      texts: normalised texts.
      words: length of a run, 1 or more.
    """
    joined = "\n".join(texts).encode("utf-8")
    data = np.frombuffer(joined, np.uint8)
    gaps = (data == _SPACE) | (data == _NEWLINE)
    edges = np.diff(np.concatenate([[True], gaps, [True]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
    lines = np.concatenate([[0], np.cumsum(data == _NEWLINE)])[starts]
    runs = max(0, len(starts) - words + 1)
    inside = lines[:runs] == lines[len(lines) - runs :] if runs else np.zeros(0, bool)
    starts = starts[:runs][inside]
    ends = ends[len(ends) - runs :][inside]
    return Ngrams(
        _hashes(data, starts, ends), lines[:runs][inside], starts, ends, joined
    )


def _hashes(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    powers, inverses = _powers(1 << max(10, len(data).bit_length()))
    terms = _byte_values()[data] * powers[: len(data)]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    found = (sums[ends] - sums[starts]) * inverses[starts]
    # The low bits of a polynomial modulo 2^64 are weak; spread the high ones.
    found ^= found >> np.uint64(29)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    return found ^ (found >> np.uint64(32))


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint64 [size] twice: _BASE^i and its inverse modulo 2^64."""
    factors = np.empty((2, size), np.uint64)
    factors[:, 0] = 1
    factors[0, 1:] = _BASE
    factors[1, 1:] = pow(_BASE, -1, _MODULUS)
    powers = np.cumprod(factors, axis=1, dtype=np.uint64)
    return powers[0], powers[1]


@functools.cache
def _byte_values() -> np.ndarray:
    return np.random.Philox(key=13).random_raw(256) | np.uint64(1)
