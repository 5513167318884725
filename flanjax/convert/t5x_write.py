"""Writes checkpoints that T5X restores.

    save_t5x("out", config, params, step=1_114_000)          # out/checkpoint_1114000
    save_t5x("out", config, params, step=n, optimizer=state.opt_state)

The minimal network's layout, or the scanned one's for a model with a table of relative
positions in every layer (`flanjax.convert.t5x` has both). Without Adafactor's state it
is what T5X saves of a model for inference. Index, array specs and chunks are T5X's own:
https://github.com/google-research/t5x/blob/main/t5x/checkpoints.py.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from flanjax.convert.names import Entry
from flanjax.convert.t5x_index import ARRAY_TYPE, INDEX, VERSION, numpy_dtype
from flanjax.convert.t5x_layout import SLOTS, join_layers, split_name, t5x_entries
from flanjax.errors import ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import stack_layers
from flanjax.models.t5 import T5Config
from flanjax.train.optim import AdafactorState
from flanjax.train.trees import flatten, unflatten

SAVE_DTYPES = ("float32", "bfloat16")
_CHUNK_BYTES = 64 * 2**20


def save_t5x(
    directory: str | os.PathLike[str],
    config: T5Config | DecoderConfig,
    params: Mapping[str, Any],
    *,
    step: int,
    optimizer: AdafactorState | None = None,
    dtype: str = "float32",
) -> Path:
    """Writes `directory`/checkpoint_`step`; one array is in memory at a time.

    Args:
      directory: may hold other checkpoints; one of the same step is replaced.
      config: the model's configuration.
      params: its parameters, without adapters, layers stacked or not.
      step: the optimiser's step, which T5X goes on from.
      optimizer: Adafactor's state of all parameters; None writes none.
      dtype: of the parameters in the files, "float32" or "bfloat16"; Adafactor's state
        is float32 always.

    Returns:
      The checkpoint's directory, which appears when all of it is written.

    Raises:
      ConfigError: T5X has no such model or dtype, the model still has adapters, or the
        directory holds something else by the checkpoint's name.
    """
    if dtype not in SAVE_DTYPES:
        raise ConfigError(
            f"parameters cannot be saved as '{dtype}'",
            fix=f"use one of: {', '.join(SAVE_DTYPES)}",
        )
    _check_model(config)
    flat = _flat(params)
    entries = t5x_entries(config)
    if extra := sorted(flat.keys() - {"/".join(e.path) for e in entries}):
        raise ConfigError(
            f"T5X's model has no parameter '{extra[0]}'",
            fix="merge adapters first: flanjax.models.lora.merge_lora",
        )
    final = Path(directory) / f"checkpoint_{step}"
    if final.exists() and not (final / INDEX).is_file():
        raise ConfigError("it is there and is no checkpoint", where=str(final))
    scratch = final.with_name(f".{final.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    target, states = {}, {}
    for name, array in _arrays(config, entries, "v", flat):
        array = array.astype(numpy_dtype(dtype))
        target[name] = _write(scratch, f"target/{name}", array)
    state: dict[str, Any] = {"step": _inline(np.asarray(step, np.int32))}
    if optimizer is not None:
        for slot in SLOTS:
            leaves = _flat(getattr(optimizer, slot))
            for name, array in _arrays(config, entries, slot, leaves):
                path = f"state/param_states/{name}/{slot}"
                unused = array.shape == (1,)
                spec = _inline(array) if unused else _write(scratch, path, array)
                states[f"{name}/{slot}"] = spec
        state["param_states"] = unflatten(states)
    optimizer_tree = {"target": unflatten(target), "state": state}
    index = {"version": VERSION, "optimizer": _sorted(optimizer_tree)}
    (scratch / INDEX).write_bytes(_packed(index))
    if final.exists():
        shutil.rmtree(final)
    scratch.replace(final)
    return final


def _check_model(config: T5Config | DecoderConfig) -> None:
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


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    if not any("/layers/" in name for name in flatten(params)):
        params = stack_layers(dict(params))
    return flatten(params)


def _arrays(
    config: T5Config | DecoderConfig,
    entries: list[Entry],
    slot: str,
    leaves: Mapping[str, Any],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields T5X's arrays of the parameters, or of one slot, with their names."""
    for entry in entries:
        array = np.asarray(leaves["/".join(entry.path)])
        name, layer = split_name(entry.names[0])
        if not entry.stacked:
            yield name, array
        elif layer is None:
            yield from zip(entry.names, array, strict=True)
        else:
            used = array.shape[1:] != (1,)
            yield name, join_layers(name, slot, array, config.head_dim, used)


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
    """Even parts of at most 64 MiB, the largest dimension split first."""
    chunks, limit = list(shape), _CHUNK_BYTES // itemsize
    while int(np.prod(chunks)) > limit:
        largest = max(range(len(chunks)), key=lambda axis: chunks[axis])
        size = chunks[largest]
        divisor = next(d for d in range(2, size + 1) if size % d == 0)
        chunks[largest] = size // divisor
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
