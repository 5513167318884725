"""Safetensors files: a model's tensors in one or several, read and written singly.

    with open_tensors(Path("flan_t5_small")) as tensors:
        tensors.read("shared.weight")
    write_tensors(Path("export"), listed, produce, "float32")

The library writes a file only from all its tensors at once; the format is simple enough
to write one tensor after another (https://github.com/huggingface/safetensors#format).
"""

import contextlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flanjax.errors import CheckpointError, ConfigError, nearest

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARD_BYTES = 5_000_000_000

# As configurations name them: numpy's type and the name in the file.
DTYPES = {
    "float32": (np.dtype(np.float32), "F32"),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), "BF16"),
}
_READABLE = ("F64", "F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_ROWS = 4096  # Compared at a time.


class TensorFiles:
    """Open safetensors files as one dictionary; nothing is read before it is asked for.

    Attributes:
      where: the directory, for messages.
      names: of all tensors.
    """

    def __init__(self, where: str, shards: dict[str, Any]):
        self.where = where
        self.names = frozenset(shards)
        self._shards = shards

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor as float32.

        Raises:
          CheckpointError: it is missing, or holds no floating-point numbers.
        """
        kind = self._slice(name).get_dtype()
        if kind not in _READABLE:
            raise CheckpointError(
                f"tensor '{name}' is of type {kind}; only {', '.join(_READABLE)} are "
                "read",
                where=self.where,
                fix="use the weights that were not quantised",
            )
        return np.asarray(self._shards[name].get_tensor(name), np.float32)

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors are the same, read some rows at a time."""
        a, b = self._slice(first), self._slice(second)
        if a.get_shape() != b.get_shape():
            return False
        rows = a.get_shape()[0]
        bounds = [(i, min(i + _ROWS, rows)) for i in range(0, rows, _ROWS)]
        return all(np.array_equal(a[i:j], b[i:j]) for i, j in bounds)

    def _slice(self, name: str) -> Any:
        if name not in self._shards:
            raise CheckpointError(
                f"tensor '{name}' is missing.{nearest(name, self.names)}",
                where=self.where,
                fix="check that config.json belongs to these weights",
            )
        return self._shards[name].get_slice(name)


@contextlib.contextmanager
def open_tensors(directory: Path) -> Iterator[TensorFiles]:
    """Opens model.safetensors, or the shards its index names.

    Raises:
      CheckpointError: there are none, a shard is missing, or a file is cut short or no
        safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    shards: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name in _files(directory):
            path = directory / name
            try:
                shard = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"cannot read: {error}",
                    where=str(path),
                    fix="the file is damaged or cut short; copy or download it again",
                ) from error
            shards |= dict.fromkeys(shard.keys(), shard)
        yield TensorFiles(str(directory), shards)


def _files(directory: Path) -> list[str]:
    index = directory / INDEX
    if not index.is_file():
        if not (directory / WEIGHTS).is_file():
            raise _missing(directory, WEIGHTS)
        return [WEIGHTS]
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"not an index of safetensors files: {error!r}", where=str(index)
        ) from error
    for name in files:
        if not (directory / name).is_file():
            raise _missing(directory, name)
    return files


def _missing(directory: Path, name: str) -> CheckpointError:
    pickles = sorted(p.name for glob in _PICKLES for p in directory.glob(glob))
    if pickles:
        return CheckpointError(
            f"weights are missing: no {name}, only pickled files such as "
            f"'{pickles[0]}', which are not read: opening one can run any code in it",
            where=str(directory),
            fix="convert files you trust: AutoModel.from_pretrained(DIRECTORY)"
            ".save_pretrained(NEW) of transformers writes safetensors",
        )
    return CheckpointError(
        f"weights are missing: no {name}",
        where=str(directory),
        fix="copy or download the directory again",
    )


def write_tensors(
    directory: Path,
    listed: Iterable[tuple[str, tuple[int, ...]]],
    produce: Callable[[str], np.ndarray],
    dtype: str,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes tensors one after another; one at a time is in memory.

    Args:
      directory: gets model.safetensors, or numbered shards and their index.
      listed: name and shape of every tensor, in the order to write them.
      produce: returns a tensor by its name.
      dtype: a key of DTYPES.
      shard_bytes: how large a file may become; one tensor may be larger.

    Raises:
      ConfigError: no such dtype.
    """
    if dtype not in DTYPES:
        raise ConfigError(
            f"weights cannot be written as '{dtype}'.{nearest(dtype, DTYPES)}",
            where="dtype",
            fix=f"one of {', '.join(DTYPES)}",
        )
    width = DTYPES[dtype][0].itemsize
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size, total = 0, 0
    for name, shape in listed:
        nbytes = math.prod(shape) * width
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size, total = size + nbytes, total + nbytes
    files = [
        f"model-{i:05}-of-{len(shards):05}.safetensors"
        for i in range(1, len(shards) + 1)
    ]
    files = [WEIGHTS] if len(shards) == 1 else files
    for file, shapes in zip(files, shards, strict=True):
        _write_file(directory / file, shapes, produce, dtype)
    if len(shards) > 1:
        weight_map = {n: f for f, s in zip(files, shards, strict=True) for n in s}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        text = json.dumps(index, indent=2) + "\n"
        (directory / INDEX).write_text(text, encoding="utf-8")


def _write_file(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    produce: Callable[[str], np.ndarray],
    dtype: str,
) -> None:
    numpy_type, name_in_file = DTYPES[dtype]
    # transformers 4 refuses a file that does not say which framework it is for.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * numpy_type.itemsize
        header[name] = {
            "dtype": name_in_file,
            "shape": list(shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Data are aligned to 8 bytes.
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            # No name holds a tensor while the next one is made.
            file.write(_stored(produce(name), shape, numpy_type))


def _stored(tensor: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> memoryview:
    if tensor.shape != shape:
        raise ValueError(f"a tensor is {tensor.shape}, its parameter {shape}")
    return np.ascontiguousarray(tensor, dtype).reshape(-1).view(np.uint8).data
