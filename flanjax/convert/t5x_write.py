"""Writes checkpoints that T5X restores.

    save_t5x("out", config, params, step=1_114_000)          # out/checkpoint_1114000
    save_t5x("out", config, params, step=n, optimizer=state.opt_state)

The minimal network's layout, or the scanned one's for a model with a table of relative
positions in every layer (`flanjax.convert.t5x` has both). Without Adafactor's state it
is what T5X saves of a model for inference. Index, array specs and chunks are T5X's own:
https://github.com/google-research/t5x/blob/main/t5x/checkpoints.py.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from flanjax.convert.place import Tree, parameter_reader
from flanjax.convert.t5x_index import ARRAY_TYPE, INDEX, VERSION, numpy_dtype
from flanjax.convert.t5x_layout import SLOTS, join_layers, split_name, t5x_entries
from flanjax.convert.weights import WeightSource
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import is_lora
from flanjax.models.t5 import T5Config
from flanjax.train.optim import AdafactorState
from flanjax.train.trees import flatten, unflatten

SAVE_DTYPES = ("float32", "bfloat16")
_CHUNK_BYTES = 64 * 2**20


def save_t5x(
    directory: str | os.PathLike[str],
    config: T5Config | DecoderConfig,
    weights: Tree | WeightSource,
    *,
    step: int,
    optimizer: AdafactorState | None = None,
    dtype: str = "float32",
) -> Path:
    """Writes `directory`/checkpoint_`step`, array by array.

    Args:
      directory: may hold other checkpoints; one of the same step is replaced.
      config: the model's configuration.
      weights: its parameters, adapters merged (flanjax.models.lora.merge_lora), or an
        open source.
      step: the optimiser's step, which T5X goes on from.
      optimizer: Adafactor's state of all parameters; None writes none.
      dtype: of the parameters in the files, "float32" or "bfloat16"; Adafactor's state
        is float32 always.

    Returns:
      The checkpoint's directory, which appears when all of it is written.

    Raises:
      ConfigError: T5X has no such model or dtype, the model still has adapters, or the
        directory holds something else by the checkpoint's name.
      CheckpointError: it cannot be written.
    """
    if dtype not in SAVE_DTYPES:
        raise ConfigError(
            f"parameters cannot be saved as '{dtype}'",
            fix=f"use one of: {', '.join(SAVE_DTYPES)}",
        )
    _check_model(config, weights)
    final = Path(directory) / f"checkpoint_{step}"
    if final.exists() and not (final / INDEX).is_file():
        raise ConfigError(
            "the directory to write holds something else",
            where=str(final),
            fix="give a new directory",
        )
    with _replacing(final) as scratch:
        target = {
            name: _write(scratch, f"target/{name}", array.astype(numpy_dtype(dtype)))
            for name, array in _arrays(config, "v", weights)
        }
        state: dict[str, Any] = {"step": _inline(np.asarray(step, np.int32))}
        if optimizer is not None:
            state["param_states"] = unflatten(_write_slots(scratch, config, optimizer))
        tree = {"target": unflatten(target), "state": state}
        index = {"version": VERSION, "optimizer": _sorted(tree)}
        (scratch / INDEX).write_bytes(_packed(index))
    return final


@contextlib.contextmanager
def _replacing(final: Path) -> Iterator[Path]:
    """A directory that takes the place of `final` once all of it is written."""
    scratch = final.with_name(f".{final.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if final.exists():
            shutil.rmtree(final)
        scratch.replace(final)
    except (OSError, ValueError) as error:  # TensorStore's errors are ValueErrors.
        raise CheckpointError(
            f"the checkpoint cannot be written: {str(error).split(' [')[0]}",
            where=str(final),
            fix="make room, or give another directory; what was there is unchanged",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_slots(
    directory: Path, config: T5Config | DecoderConfig, optimizer: AdafactorState
) -> dict[str, Any]:
    """Writes Adafactor's slots; an unused one stands in the index, as T5X has it."""
    specs = {}
    for slot in SLOTS:
        for name, array in _arrays(config, slot, getattr(optimizer, slot)):
            path = f"state/param_states/{name}/{slot}"
            inline = array.shape == (1,)
            specs[f"{name}/{slot}"] = (
                _inline(array) if inline else _write(directory, path, array)
            )
    return specs


def _check_model(
    config: T5Config | DecoderConfig, weights: Tree | WeightSource
) -> None:
    if isinstance(weights, Mapping) and any(
        is_lora(path.split("/")) for path in flatten(weights)
    ):
        raise ConfigError(
            "the model still has adapters",
            fix="merge them first: flanjax.models.lora.merge_lora",
        )
    if isinstance(config, T5Config):
        return
    theirs = {
        "positions": "relative",
        "scale_attention": False,
        "num_kv_heads": config.num_heads,
        "parallel_block": False,
        "qkv_bias": False,
        "sliding_window": None,
        "scale_tied_logits": config.logits_via_embedding,
    }
    differing = [n for n, value in theirs.items() if getattr(config, n) != value]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"T5X's decoder has {name} = {theirs[name]}; this model has "
            f"{getattr(config, name)}",
            where=f"DecoderConfig.{name}",
            fix="export it as a Hugging Face directory",
        )


def _arrays(
    config: T5Config | DecoderConfig,
    slot: str,
    values: Tree | WeightSource,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields T5X's arrays of the parameters, or of one slot, with their names."""
    read = parameter_reader(values)
    for entry in t5x_entries(config):
        path, layers = "/".join(entry.path), range(len(entry.names))
        name, index = split_name(entry.names[0])
        if not entry.stacked:
            yield name, read(path, None)
        elif index is None:
            for layer in layers:
                yield entry.names[layer], read(path, layer)
        else:
            rows = [read(path, layer) for layer in layers]
            used = rows[0].shape != (1,)
            yield name, join_layers(name, slot, np.stack(rows), config.head_dim, used)


def _write(directory: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    """Writes an array; returns its spec, which names it relative to the directory."""
    import tensorstore as ts

    folder = name.replace("/", ".")
    spec = {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "metadata": {
            "chunks": _chunks(array.shape, array.dtype.itemsize),
            "compressor": {"id": "gzip", "level": 1},
            "shape": list(array.shape),
        },
    }
    there = {"driver": "file", "path": f"{directory / folder}/"}
    ts.open(spec | {"kvstore": there}, create=True).result().write(array).result()
    return spec


def _chunks(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """Parts of at most 64 MiB, the largest dimensions split first."""
    chunks, limit = list(shape), _CHUNK_BYTES // itemsize
    for axis in sorted(range(len(chunks)), key=lambda axis: -shape[axis]):
        others = math.prod(chunks) // chunks[axis]
        parts = math.ceil(shape[axis] / max(1, limit // others))
        chunks[axis] = math.ceil(shape[axis] / parts)
    return chunks


def _inline(array: np.ndarray) -> msgpack.ExtType:
    packed = _packed((array.shape, array.dtype.name, array.tobytes()))
    return msgpack.ExtType(ARRAY_TYPE, packed)


def _packed(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert packed is not None
    return packed


def _sorted(tree: Any) -> Any:
    """The same tree with its keys in order, as T5X's have passed through JAX."""
    if not isinstance(tree, dict):
        return tree
    return {key: _sorted(tree[key]) for key in sorted(tree)}
