"""Compares numbers with recorded ones, as rows of a table.

    compare("logits", got, want, rtol=1e-4, atol=2e-5)
    # Row(check="logits", max_error=4.9e-06, tolerance=0.0001, ok=True)

Where a tolerance has a relative and an absolute part, the error is the largest
|difference| / (|expected| + atol / rtol), to be held against the relative part.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flanjax.models.layers import unstack_layers
from flanjax.train.trees import flatten


class Row(NamedTuple):
    """One line of the table; no error or tolerance where nothing could be compared."""

    check: str
    max_error: float | None
    tolerance: float | None
    ok: bool


def compare(
    check: str,
    got: Any,
    want: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    where: np.ndarray | None = None,
) -> Row:
    """Compares two arrays; with neither tolerance they must be equal.

    Args:
      check: name of the row.
      got: array.
      want: what it should be.
      rtol: relative part of the tolerance.
      atol: absolute part of the tolerance.
      where: bool, which leading positions count.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        note = f"{check}: shape {got.shape}, expected {want.shape}"
        return Row(note, None, None, False)
    if where is not None:
        got, want = got[where], want[where]
    error = np.abs(got - want)
    if rtol:
        scale = np.abs(want) + atol / rtol
        error = np.where(error == 0, 0.0, error / np.maximum(scale, 1e-300))
    worst, tolerance = float(np.max(error, initial=0.0)), rtol or atol
    return Row(check, worst, tolerance, worst <= tolerance)


def compare_trees(
    check: str,
    got: Any,
    want: Mapping[str, np.ndarray],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    relative_to_largest: bool = False,
) -> Row:
    """Compares nested parameters with recorded ones by T5X's unscanned names.

    Args:
      check: name of the row.
      got: nested dicts, layers stacked or not.
      want: {"encoder/layers_0/...": array}.
      rtol: relative part of the tolerance.
      atol: absolute part of the tolerance.
      relative_to_largest: `atol` is a share of each array's largest value.

    Returns:
      The row of the worst array, which it names.
    """
    flat = flatten(unstack_layers(got))
    if flat.keys() != want.keys():
        names = ", ".join(sorted(flat.keys() ^ want.keys())[:3])
        return Row(f"{check}: only on one side: {names}", None, None, False)
    rows = []
    for name, value in want.items():
        largest = float(np.max(np.abs(value), initial=0.0))
        absolute = atol * largest if relative_to_largest else atol
        rows.append(compare(name, flat[name], value, rtol=rtol, atol=absolute))
    # What has another shape or is not a number is worse than any error.
    worst = max(rows, key=lambda row: (not row.ok, row.max_error or 0.0))
    return worst._replace(check=f"{check} (worst: {worst.check})")
