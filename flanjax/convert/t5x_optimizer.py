"""Adafactor's state out of a T5X checkpoint, slot by slot.

    read = adafactor_reader(source)
    read(entry, "v_row", (8, 512))     # one slot of a parameter, layers stacked

T5X keeps it as state/param_states/PARAMETER/{v_row, v_col, v, m}; a slot that a
parameter does not use is one zero. Which are used is a matter of the optimiser's
settings when the checkpoint was made, and has to be the run's too.
Source: https://github.com/google-research/t5x/blob/main/t5x/adafactor.py.
"""

from collections.abc import Callable

import numpy as np

from flanjax.convert.names import Entry
from flanjax.convert.t5x import T5XSource
from flanjax.convert.t5x_layout import SLOTS, split_name, take_layer
from flanjax.errors import CheckpointError

STATES = "state/param_states/"

SlotReader = Callable[[Entry, str, tuple[int, ...]], np.ndarray]


def adafactor_reader(source: T5XSource) -> SlotReader:
    """Returns (entry, slot, shape) -> float32 array of that shape.

    Raises:
      CheckpointError: the checkpoint holds no Adafactor state; and when reading, a slot
        is missing or of another shape than the run's optimiser has.
    """
    names = source.index.specs
    if not any(n.startswith(STATES) and n.endswith("/v_row") for n in names):
        raise CheckpointError(
            "the checkpoint holds no state of Adafactor",
            where=source.where,
            fix="set RestoreConfig.optimizer_state = False: the optimiser starts fresh",
        )

    def read(entry: Entry, slot: str, shape: tuple[int, ...]) -> np.ndarray:
        rows = [_row(source, name, slot) for name in entry.names]
        row = shape[1:] if entry.stacked else shape
        for name, got in zip(entry.names, rows, strict=True):
            if got.shape != row:
                raise CheckpointError(
                    f"Adafactor's {slot} of '{name}' has shape {got.shape}; the run's "
                    f"optimiser has {row}",
                    where=source.where,
                    fix=_fix(slot),
                )
        return np.stack(rows) if entry.stacked else rows[0]

    return read


def _row(source: T5XSource, name: str, slot: str) -> np.ndarray:
    """One layer's slot, as flanjax has it."""
    assert slot in SLOTS
    name, layer = split_name(name)
    array = source.index.read(f"{STATES}{name}/{slot}")
    if layer is not None:
        array = take_layer(name, slot, array, layer)
    return array.astype(np.float32)


def _fix(slot: str) -> str:
    if slot == "m":
        return "one of them has momentum, the other not: see OptimizerConfig.beta1"
    return (
        "the checkpoint's optimiser factored other matrices: set OptimizerConfig."
        "min_dim_size_to_factor, and factor_by_axes for the scanned network"
    )
