"""Reads T5X's own checkpoints, and writes them again, against what it says is in them.

    for row in golden_checkpoints(Golden.open("../shared/golden/t5x")):
        print(row)

`t5x_checkpoint_float32` and `t5x_checkpoint_bfloat16`, directories or .tar.gz archives,
were saved after the last step of `traj`: they hold traj_final_params.npz (rounded to
bfloat16 in one of them) and traj_final_opt_state.npz. Nothing may differ by a bit.
"""

import contextlib
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.place import load_params
from flanjax.convert.t5x import T5XSource, open_t5x
from flanjax.convert.t5x_index import INDEX, find_checkpoint, numpy_dtype
from flanjax.convert.t5x_layout import SLOTS
from flanjax.convert.t5x_optimizer import adafactor_reader
from flanjax.convert.t5x_write import SAVE_DTYPES, save_t5x
from flanjax.models.layers import stack_layers, unstack_layers
from flanjax.ops.compare import Row, compare, compare_trees
from flanjax.ops.golden_files import Golden
from flanjax.train.optim import AdafactorState
from flanjax.train.trees import flatten, unflatten


def golden_checkpoints(golden: Golden) -> Iterator[Row]:
    """Yields the comparisons for each of the two checkpoints."""
    for dtype in SAVE_DTYPES:
        name = f"t5x_checkpoint_{dtype}"
        with _unpacked(golden.directory / name) as directory:
            yield from _checks(golden, f"checkpoint {dtype}", directory, dtype)


def _checks(golden: Golden, name: str, directory: Path, dtype: str) -> Iterator[Row]:
    rounded = numpy_dtype(dtype)
    wanted = {
        path: value.astype(rounded).astype(np.float32)
        for path, value in golden.arrays("traj_final_params.npz").items()
    }
    recorded = dict(golden.arrays("traj_final_opt_state.npz"))
    with open_t5x(directory) as source:
        step = golden.meta[f"checkpoint_{dtype}"]["step"]
        yield compare(f"{name}: step", source.index.step, step)
        params, state = load_params(source), _state(source, recorded)
        yield compare_trees(f"{name}: parameters", params, wanted)
        yield compare_trees(f"{name}: optimiser state", _by_slot(state), recorded)
        with tempfile.TemporaryDirectory() as again:
            written = save_t5x(
                again, source.config, params, step=step, optimizer=state, dtype=dtype
            )
            theirs = (find_checkpoint(directory) / INDEX).read_bytes()
            same = (written / INDEX).read_bytes() == theirs
            yield Row(f"{name}: index as T5X writes it", float(not same), 0.0, same)
            with open_t5x(written) as copy:
                check = f"{name}: written and read again"
                yield compare_trees(check, load_params(copy), wanted)


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The directory, or its archive's contents for as long as they are needed."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(f"{path}.tar.gz") as archive:
            # Refuses members and links that would lie outside.
            archive.extractall(scratch, filter="data")
        yield Path(scratch) / path.name


def _state(source: T5XSource, recorded: dict[str, np.ndarray]) -> AdafactorState:
    read = adafactor_reader(source)
    shapes = {}
    for slot in SLOTS:
        ending = f"/{slot}"
        values = {
            name.removesuffix(ending): value
            for name, value in recorded.items()
            if name.endswith(ending)
        }
        shapes[slot] = flatten(stack_layers(unflatten(values)))
    slots: dict[str, Any] = {
        slot: unflatten(
            {
                (path := "/".join(entry.path)): read(entry, slot, leaves[path].shape)
                for entry in source.entries()
            }
        )
        for slot, leaves in shapes.items()
    }
    return AdafactorState(count=source.index.step, **slots)


def _by_slot(state: AdafactorState) -> dict[str, Any]:
    """The state under T5X's names: the parameter's, then the slot's."""
    return unflatten(
        {
            f"{path}/{slot}": value
            for slot in SLOTS
            for path, value in flatten(unstack_layers(getattr(state, slot))).items()
        }
    )
