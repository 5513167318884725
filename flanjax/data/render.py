"""Examples of a task as a TensorFlow dataset: rendered in Python, a chunk at a time.

Filling templates is text work that TensorFlow's string operations do more slowly, after
a graph has been built for every task. Here the graph is one call of a function that
returns a chunk of texts, whatever the templates are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from flanjax.data.examples import LISTS, TEXTS, ExampleRenderer

_CHUNK = 64


def examples_dataset(renderer: ExampleRenderer) -> tf.data.Dataset:
    """Returns a dataset of `TEXTS`, scalars, and `LISTS`, vectors of strings."""

    def chunk(start: np.ndarray) -> list[np.ndarray]:
        begin = int(start)
        examples = renderer.examples(begin, min(begin + _CHUNK, len(renderer)))
        columns = [_bytes([e[name] for e in examples]) for name in TEXTS]
        for name in LISTS:
            columns.append(_bytes([text for e in examples for text in e[name]]))
            columns.append(np.array([len(e[name]) for e in examples], np.int64))
        return columns

    types = [tf.string] * len(TEXTS) + [tf.string, tf.int64] * len(LISTS)

    def columns(start: tf.Tensor) -> dict[str, Any]:
        found = tf.numpy_function(chunk, [start], types, stateful=False)
        for column in found:
            column.set_shape([None])
        texts = dict(zip(TEXTS, found, strict=False))
        rest = found[len(TEXTS) :]
        ragged: Any = tf.RaggedTensor  # Without types.
        lists = [
            ragged.from_row_lengths(values, lengths, validate=False)
            for values, lengths in zip(rest[::2], rest[1::2], strict=True)
        ]
        return {**texts, **dict(zip(LISTS, lists, strict=True))}

    # AutoGraph has nothing to do here, and its first use costs half a second.
    columns = tf.autograph.experimental.do_not_convert(columns)
    starts = tf.data.Dataset.range(0, len(renderer), _CHUNK)
    return starts.map(columns).unbatch()


def _bytes(texts: Sequence[str]) -> np.ndarray:
    # NumPy's own array of texts would be as wide as the longest.
    return np.array([text.encode("utf-8") for text in texts], object)
