"""The vocabularies of `flanjax.data.vocabulary` as SeqIO vocabularies.

    set_default_vocabulary("gguf:smollm2")
    seqio.Feature(LazyVocabulary())   # what flanjax's tasks use

A task is registered once, but which vocabulary it is for is a choice of the run: a
`LazyVocabulary` is whatever `set_default_vocabulary` said last, and bytes before that.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flanjax.data.vocabulary import ByteVocabulary, Vocabulary, load_vocabulary

_default_spec = "bytes"
_load = functools.lru_cache(maxsize=8)(load_vocabulary)


def set_default_vocabulary(spec: str) -> None:
    """Makes a spec the vocabulary of every `LazyVocabulary`.

    Call it before a task's dataset is built: a built dataset keeps what it had.

    Raises:
      ConfigError: the spec, or the file it names, cannot be used.
    """
    global _default_spec
    _load(spec)
    _default_spec = spec


class SeqioVocabulary(seqio.Vocabulary):
    """A vocabulary for SeqIO; equal to another that gives the same ids."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(extra_ids=vocabulary.extra_ids)
        self._vocabulary = vocabulary

    @property
    def vocabulary(self) -> Vocabulary:
        """The wrapped vocabulary."""
        return self._vocabulary

    @property
    def extra_ids(self) -> int:
        """Ids at the top that no text is encoded to."""
        return self.vocabulary.extra_ids

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.size - self.vocabulary.extra_ids

    @property
    def pad_id(self) -> int:
        """Id that fills rows."""
        return self.vocabulary.pad_id

    @property
    def eos_id(self) -> int:
        """Id that ends a text."""
        return self.vocabulary.eos_id

    @property
    def bos_id(self) -> int | None:
        """Id that begins a text, or None."""
        return self.vocabulary.bos_id

    @property
    def unk_id(self) -> int | None:
        """Id of what cannot be encoded, or None."""
        return self.vocabulary.unk_id

    def _encode(self, s: str) -> Sequence[int]:
        return self.vocabulary.encode(tf.compat.as_text(s))

    def _decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
        """Returns int32 ids [length] of a scalar, ragged [batch, None] of a vector."""
        vocabulary = self.vocabulary
        if s.shape.rank == 0 and isinstance(vocabulary, ByteVocabulary):
            return tf.cast(tf.io.decode_raw(s, tf.uint8), tf.int32) + 3

        def encode(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = vocabulary.encode_batch([_text(t) for t in np.atleast_1d(texts)])
            lengths = np.array([len(row) for row in rows], np.int64)
            return np.array([i for row in rows for i in row], np.int32), lengths

        ids, lengths = tf.numpy_function(
            encode, [s], [tf.int32, tf.int64], stateful=False
        )
        ids.set_shape([None])
        lengths.set_shape([None])
        if s.shape.rank == 0:
            return ids
        ragged: Any = tf.RaggedTensor  # Without types.
        return ragged.from_row_lengths(ids, lengths)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        vocabulary = self.vocabulary

        def decode(values: np.ndarray) -> np.ndarray:
            rows = values.reshape(-1, values.shape[-1])
            texts = [vocabulary.decode(row.tolist()).encode("utf-8") for row in rows]
            return np.array(texts, object).reshape(values.shape[:-1])

        text = tf.numpy_function(decode, [ids], tf.string, stateful=False)
        text.set_shape(ids.shape[:-1])
        return text

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, SeqioVocabulary):
            return False
        return self.vocabulary.fingerprint() == other.vocabulary.fingerprint()

    def __reduce__(self):
        return SeqioVocabulary, (self.vocabulary,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocabulary.spec})"


class LazyVocabulary(SeqioVocabulary):
    """The run's vocabulary, whichever that is; pickled as what it is at that time."""

    def __init__(self):
        # The base class would ask for a vocabulary now; this one asks when used.
        pass

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that `set_default_vocabulary` named, or bytes."""
        return _load(_default_spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LazyVocabulary) or super().__eq__(other)


def _text(value: bytes | str) -> str:
    # Broken UTF-8 is data's fault, not a reason to stop a run of hours.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
