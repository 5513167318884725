"""What padding costs a mixture, and the feature lengths at which it costs least.

    costs = search(layout, raw_lengths)     # cheapest first; raw lengths as drawn
    costs[0].layout.inputs_length, costs[0].flops / measure(layout, raw_lengths).flops

A row is computed whole, padding included, so a mixture's price per example is rows
needed times the price of a row. Equal fill of both sides is not the aim: a shorter
target limit fills the decoder better, but then long targets with short inputs take rows
of their own, and the number of rows is what is paid for. So every candidate is packed.

Operations are those of the forward pass of a model of T5 1.1's proportions (width
1,024, 24 layers, vocabulary 32,128), for a decoder the same without encoder. Only
ratios between lengths are meant; with another width attention weighs a little
differently.
"""

import dataclasses
import itertools

import numpy as np

from flanjax.data.layout import Layout
from flanjax.data.packing import pack

_WIDTH, _LAYERS, _VOCABULARY = 1024, 24, 32_128
_FEED_FORWARD = 3 * 2.75 * _WIDTH**2
_INPUTS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
_TARGETS = (1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0)
_MULTIPLE = 16
# Fraction of the examples that a candidate may always cut off.
_TOLERATED = 0.01


@dataclasses.dataclass(frozen=True)
class Cost:
    """What examples cost in rows of some lengths.

    Attributes:
      layout: with these lengths.
      rows: rows for the examples measured.
      inputs_fill, targets_fill: real tokens of all tokens of a side; of a decoder's one
        sequence each side's part, so that both together are its fill.
      cut: fraction of the examples that lose tokens.
      tokens: padded tokens an example takes.
      flops: forward operations an example takes, padding included, in the model above.
    """

    layout: Layout
    rows: int
    inputs_fill: float
    targets_fill: float
    cut: float
    tokens: float
    flops: float


def measure(layout: Layout, raw: np.ndarray) -> Cost:
    """Packs examples of raw lengths int [n, 2] and says what their rows cost."""
    _, starts = pack(layout.sizes(raw), layout.limits)
    rows, count = len(starts) - 1, len(raw)
    inputs, targets = layout.inputs_length, layout.targets_length
    used = layout.lengths(raw).sum(axis=0) / rows
    whole = (inputs + targets,) * 2 if layout.kind == "decoder" else (inputs, targets)
    room = np.array([layout.inputs_room, layout.targets_room])
    return Cost(
        layout=layout,
        rows=rows,
        inputs_fill=float(used[0] / whole[0]),
        targets_fill=float(used[1] / whole[1]),
        cut=float((raw > room).any(axis=1).mean()),
        tokens=rows * (inputs + targets) / count,
        flops=rows * row_flops(layout) / count,
    )


def row_flops(layout: Layout) -> float:
    """Forward operations of one row: two per weight and token, four per attended pair.

    Every position attends to the whole row, as dense attention computes it.
    """
    inputs, targets = layout.inputs_length, layout.targets_length
    block = 4 * _WIDTH**2 + _FEED_FORWARD
    if layout.kind == "decoder":
        length = inputs + targets
        weights, pairs = block * length, length * length
        logits = _VOCABULARY * _WIDTH * length
    else:
        # Cross-attention: its keys and values are of the inputs, the rest of targets.
        cross = 2 * _WIDTH**2
        weights = (block + cross) * (inputs + targets)
        pairs = inputs * inputs + targets * targets + targets * inputs
        logits = _VOCABULARY * _WIDTH * targets
    return _LAYERS * (2 * weights + 4 * _WIDTH * pairs) + 2 * logits


def search(layout: Layout, raw: np.ndarray) -> list[Cost]:
    """Packs the examples in rows of many lengths; the cheapest in operations first.

    Args:
      layout: the present lengths; candidates lie around them.
      raw: int [n, 2], raw lengths of examples as the mixture draws them.

    Returns:
      Candidates that cut off no larger fraction of the examples than the present
      lengths do, or than 1 %; the present lengths are among them.
    """
    present = measure(layout, raw)
    pairs = {
        (
            _round(layout.inputs_length * wide),
            _round(layout.inputs_length * wide * part),
        )
        for wide, part in itertools.product(_INPUTS, _TARGETS)
    }
    pairs |= {
        (_round(layout.inputs_length * w), layout.targets_length) for w in _INPUTS
    }
    pairs.discard((layout.inputs_length, layout.targets_length))
    shortest = layout.inputs_length - layout.inputs_room
    found = [
        measure(
            dataclasses.replace(layout, inputs_length=inputs, targets_length=targets),
            raw,
        )
        for inputs, targets in sorted(pairs)
        if inputs > shortest
    ]
    most = max(present.cut, _TOLERATED)
    return sorted(
        [present, *(cost for cost in found if cost.cut <= most)],
        key=lambda cost: cost.flops,
    )


def _round(length: float) -> int:
    return max(_MULTIPLE, round(length / _MULTIPLE) * _MULTIPLE)
