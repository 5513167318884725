"""The files of a T5X checkpoint: its index, and the arrays it names.

    with open_index("flan_t5_small/checkpoint_1198000") as index:
        index.step, index.specs["target/encoder/encoder_norm/scale"].shape
        index.read("target/encoder/encoder_norm/scale")     # float32

`checkpoint` is a msgpack dict {"version": 3, "optimizer": {"target", "state"}} whose
leaves are TensorStore specs of zarr arrays below the directory, or small arrays. None
of it is trusted: a spec only says where below the directory an array lies and what
shape it has, and of msgpack's extensions only arrays of numbers are read.
Source: https://github.com/google-research/t5x/blob/main/t5x/checkpoints.py.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from flanjax.errors import CheckpointError, ConfigError, nearest

INDEX = "checkpoint"
VERSION = 3
DTYPES = ("float32", "bfloat16", "float16", "float64", "int32", "int64", "uint32")
# Extension types of flax.serialization.
ARRAY_TYPE, SCALAR_TYPE = 1, 3
_SPEC_KEYS = {"driver", "kvstore", "metadata"}
# Where T5X writes from: Google's file systems and the local one.
_DRIVERS = ("file", "gfile", "gcs")


@dataclasses.dataclass(frozen=True)
class Spec:
    """One array of a checkpoint.

    Attributes:
      shape: its dimensions.
      dtype: one of DTYPES.
      path: directory of its zarr array; None where `value` is the array.
      value: the array, where it stands in the index.
    """

    shape: tuple[int, ...]
    dtype: str
    path: Path | None = None
    value: np.ndarray | None = None


class Index:
    """What a checkpoint's index says, and the arrays behind it.

    Attributes:
      where: the checkpoint's directory.
      specs: {"target/...": Spec} and {"state/param_states/...": Spec}.
      step: the optimiser's step.
    """

    def __init__(self, directory: Path):
        self.where = str(directory)
        tree = _decoded(directory / INDEX)
        leaves: dict[str, Any] = {}
        _flatten(tree, "", leaves)
        self.specs = {
            name: _spec(name, leaf, directory.resolve())
            for name, leaf in leaves.items()
        }
        self.step = self._step()
        self._last: tuple[str, np.ndarray] | None = None

    def read(self, name: str) -> np.ndarray:
        """Returns an array in its own dtype; keeps the one read last.

        Raises:
          CheckpointError: it is missing, damaged or not what the index says.
        """
        if self._last is None or self._last[0] != name:
            self._last = None  # Gone before the next one comes.
            self._last = name, self._read(name)
        return self._last[1]

    def _read(self, name: str) -> np.ndarray:
        if name not in self.specs:
            raise CheckpointError(
                f"array '{name}' is missing.{nearest(name, self.specs)}",
                where=self.where,
            )
        spec = self.specs[name]
        return _read_zarr(name, spec) if spec.value is None else spec.value

    def _step(self) -> int:
        spec = self.specs.get("state/step")
        if spec is None:
            raise CheckpointError("the index has no 'state/step'", where=self.where)
        value = np.asarray(self._read("state/step"))
        if value.size != 1 or value.dtype.kind not in "iu" or value.ravel()[0] < 0:
            raise CheckpointError(f"state/step is {value}", where=self.where)
        return int(value.ravel()[0])


def find_checkpoint(directory: str | Path) -> Path:
    """Returns the checkpoint directory: itself, or its newest checkpoint_N.

    Raises:
      ConfigError: there is no checkpoint.
    """
    directory = Path(directory)
    if (directory / INDEX).is_file():
        return directory
    steps = {}
    if directory.is_dir():
        for path in directory.iterdir():
            match = re.fullmatch(r"checkpoint_(\d+)", path.name)
            if match and (path / INDEX).is_file():
                steps[int(match[1])] = path
    if not steps:
        what = f"neither a file '{INDEX}' nor checkpoint_N/{INDEX}"
        raise ConfigError(
            f"no T5X checkpoint: {what if directory.is_dir() else 'no such directory'}",
            where=str(directory),
            fix="give the directory checkpoint_N, or the one that holds it",
        )
    return steps[max(steps)]


def _decoded(path: Path) -> Mapping[str, Any]:
    """Returns the index's `optimizer` part."""
    try:
        tree = msgpack.unpackb(
            path.read_bytes(), ext_hook=_array, raw=False, strict_map_key=True
        )
    except (ValueError, TypeError, msgpack.UnpackException, OSError) as error:
        raise CheckpointError(
            f"the index cannot be read: {type(error).__name__}: {error}",
            where=str(path),
            fix="copy the checkpoint anew: the file is cut off or not T5X's",
        ) from error
    version = tree.get("version") if isinstance(tree, dict) else None
    if version != VERSION:
        raise CheckpointError(
            f"the index has version {version}; version {VERSION} can be read",
            where=str(path),
            fix="restore and save it with a current T5X",
        )
    optimizer = tree.get("optimizer")
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("target"), dict):
        raise CheckpointError("the index has no optimizer/target", where=str(path))
    return optimizer


def _array(code: int, data: bytes) -> np.ndarray:
    """Turns flax's extension types into arrays of numbers, and refuses any other."""
    if code not in (ARRAY_TYPE, SCALAR_TYPE):
        raise ValueError(f"extension type {code}")
    shape, dtype, raw = msgpack.unpackb(data, raw=False)
    if dtype not in DTYPES:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(raw, numpy_dtype(dtype)).reshape(shape)


def numpy_dtype(name: str) -> np.dtype:
    """Returns the dtype of a name in DTYPES; numpy itself has no bfloat16."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _flatten(tree: Mapping[str, Any], prefix: str, leaves: dict[str, Any]) -> None:
    """Fills {names joined by "/": leaf}; what is None or empty holds nothing."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not _SPEC_KEYS <= value.keys():
            _flatten(value, f"{name}/", leaves)
        elif value is not None:
            leaves[name] = value


def _spec(name: str, leaf: Any, directory: Path) -> Spec:
    where = f"{directory / INDEX}: {name}"
    if isinstance(leaf, int):
        leaf = np.asarray(leaf, np.int64)
    if isinstance(leaf, np.ndarray):
        return Spec(leaf.shape, leaf.dtype.name, value=leaf)
    try:
        store, metadata = leaf["kvstore"], leaf["metadata"]
        driver, path = (leaf["driver"], store["driver"]), store["path"]
        shape = tuple(int(n) for n in metadata["shape"])
        dtype = leaf["dtype"]
        known = driver[0] == "zarr" and driver[1] in _DRIVERS and dtype in DTYPES
        target = (directory / path).resolve()
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"not a TensorStore spec: {type(error).__name__}: {error}", where=where
        ) from error
    if not known:
        raise CheckpointError(
            f"the array is {dtype} in {' on '.join(map(str, driver))}; arrays of "
            f"{', '.join(DTYPES)} in zarr files can be read",
            where=where,
        )
    if not target.is_relative_to(directory) or target == directory:
        raise CheckpointError(
            f"the array lies outside the checkpoint: {path}",
            where=where,
            fix="arrays must lie below the checkpoint's directory; do not trust this "
            "file if you do not know why it points elsewhere",
        )
    return Spec(shape, dtype, path=target)


def _read_zarr(name: str, spec: Spec) -> np.ndarray:
    import tensorstore as ts

    try:
        array = ts.open(
            {
                "driver": "zarr",
                "kvstore": {"driver": "file", "path": f"{spec.path}/"},
                # A chunk that is not there would read as zeros.
                "fill_missing_data_reads": False,
            },
            open=True,
            read=True,
        ).result()
        if tuple(array.shape) != spec.shape or array.dtype.name != spec.dtype:
            raise CheckpointError(
                f"array '{name}' is {array.dtype.name} {tuple(array.shape)}; the "
                f"index says {spec.dtype} {spec.shape}",
                where=str(spec.path),
            )
        return array.read().result()
    except ValueError as error:
        reason = str(error).split(" [")[0]
        raise CheckpointError(
            f"array '{name}' cannot be read: {reason}",
            where=str(spec.path),
            fix="copy the checkpoint anew: files are missing or damaged",
        ) from error
