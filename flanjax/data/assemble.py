"""Builds a batch's features from the tokens of all its examples at once.

No loop over rows, examples or tokens: every array operation here runs over a whole
batch, so that assembling costs a few nanoseconds a token whatever the rows hold.
"""

from typing import NamedTuple

import numpy as np


class Segments(NamedTuple):
    """The examples of a batch, row by row.

    Attributes:
      tokens: int32 [any]; holds the token ids.
      starts: int [n], where each example's inputs begin in it; its targets follow.
      lengths: int [n, 2], raw tokens of inputs and targets.
      rows: int [n], ascending: the row each example is in.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray


def assemble(layout, segments: Segments, num_rows: int) -> dict[str, np.ndarray]:
    """Returns features int32 [num_rows, length]; an empty row is all padding.

    Args:
      layout: a `flanjax.data.layout.Layout`.
      segments: the examples, in the order they have in their rows.
      num_rows: rows of the batch.
    """
    batch = {
        name: np.full(
            (num_rows, length), layout.pad_id if name.endswith("_tokens") else 0, "i4"
        )
        for name, length in layout.features.items()
    }
    flat = {name: value.reshape(-1) for name, value in batch.items()}
    order = _order(segments.rows, num_rows)
    prompts, targets = _parts(layout, segments)
    write = _write_decoder if layout.kind == "decoder" else _write_pair
    write(layout, flat, segments.rows, order, prompts, targets)
    return batch


class _Parts(NamedTuple):
    """Pieces of tokens one behind the other; piece i has `lengths[i]` of `tokens`."""

    tokens: np.ndarray
    lengths: np.ndarray


def _parts(layout, segments: Segments) -> tuple[_Parts, _Parts]:
    """The inputs part (wrapped) and the targets part (with EOS) of every example."""
    raw = segments.lengths.astype(np.int64)
    starts = segments.starts.astype(np.int64)
    inputs = np.minimum(raw[:, 0], layout.inputs_room)
    targets = np.minimum(raw[:, 1], layout.targets_room)
    before, after = layout.prefix_ids, layout.suffix_ids
    return (
        _wrapped(segments.tokens, starts, inputs, before, after),
        _wrapped(segments.tokens, starts + raw[:, 0], targets, (), (layout.eos_id,)),
    )


def _wrapped(tokens, starts, lengths, before, after) -> _Parts:
    """Takes a slice of `tokens` for each example and puts ids around it."""
    wide = lengths + len(before) + len(after)
    ends = np.cumsum(wide)
    first = ends - wide
    found = np.empty(int(wide.sum()), np.int32)
    inner = ragged(first + len(before), lengths)
    found[inner] = tokens[ragged(starts, lengths)]
    for place, token in enumerate(before):
        found[first + place] = token
    for place, token in enumerate(reversed(after), start=1):
        found[ends - place] = token
    return _Parts(found, wide)


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the indices starts[i], starts[i] + 1, ... of all slices, joined."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def _order(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Place of each example in its row, from 1: its segment id."""
    counts = np.bincount(rows, minlength=num_rows)
    return np.arange(1, len(rows) + 1) - (np.cumsum(counts) - counts)[rows]


def _places(rows: np.ndarray, order: np.ndarray, lengths: np.ndarray, width: int):
    """Index into flat [rows, width] at which each example's part begins: int64 [n]."""
    before = np.cumsum(lengths) - lengths
    # What lies before the row's first example does not count.
    return rows * width + before - before[np.arange(len(rows)) - order + 1]


def _write_pair(layout, flat, rows, order, prompts: _Parts, targets: _Parts) -> None:
    where = _places(rows, order, prompts.lengths, layout.inputs_length)
    at = ragged(where, prompts.lengths)
    flat["encoder_input_tokens"][at] = prompts.tokens
    flat["encoder_segment_ids"][at] = np.repeat(order, prompts.lengths)
    flat["encoder_positions"][at] = at - np.repeat(where, prompts.lengths)
    where = _places(rows, order, targets.lengths, layout.targets_length)
    at = ragged(where, targets.lengths)
    flat["decoder_target_tokens"][at] = targets.tokens
    read = np.roll(targets.tokens, 1)
    read[np.cumsum(targets.lengths) - targets.lengths] = layout.start_id
    flat["decoder_input_tokens"][at] = read
    flat["decoder_loss_weights"][at] = 1
    flat["decoder_segment_ids"][at] = np.repeat(order, targets.lengths)
    flat["decoder_positions"][at] = at - np.repeat(where, targets.lengths)


def _write_decoder(layout, flat, rows, order, prompts: _Parts, targets: _Parts) -> None:
    joined = prompts.lengths + targets.lengths
    first = np.cumsum(joined) - joined
    tokens = np.empty(len(prompts.tokens) + len(targets.tokens), np.int32)
    tokens[ragged(first, prompts.lengths)] = prompts.tokens
    tokens[ragged(first + prompts.lengths, targets.lengths)] = targets.tokens
    # Without a start token a segment predicts all its tokens but the first.
    skipped = 1 if layout.start_id is None else 0
    lengths = joined - skipped
    source = ragged(first + skipped, lengths)
    read = np.roll(tokens, 1)
    if layout.start_id is not None:
        read[first] = layout.start_id
    where = _places(rows, order, lengths, layout.inputs_length + layout.targets_length)
    at = ragged(where, lengths)
    flat["decoder_target_tokens"][at] = tokens[source]
    flat["decoder_input_tokens"][at] = read[source]
    flat["decoder_segment_ids"][at] = np.repeat(order, lengths)
    flat["decoder_positions"][at] = at - np.repeat(where, lengths)
    first_loss = prompts.lengths - skipped
    flat["decoder_loss_weights"][ragged(where + first_loss, targets.lengths)] = 1
    # The positions where the inputs are read, and so with a start token one more than
    # there are input tokens, as in SeqIO's PrefixLM converter.
    flat["decoder_causal_attention"][ragged(where, first_loss + 1)] = 1
