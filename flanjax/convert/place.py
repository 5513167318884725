"""Parameters out of a file, tensor by tensor: onto the host, or into a sharded mesh.

    with open_weights("flan_t5_small") as source:
        params = load_params(source)                   # whole, on the host
        params = place_params(source, shardings)       # each device gets its part

A large model is never whole anywhere: placing it takes, on the host, one tensor of the
file and this process's parts of one parameter.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flanjax.convert.names import Entry, unstacked
from flanjax.convert.weights import WeightSource
from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, build_model
from flanjax.train.trees import flatten, unflatten

Tree = dict[str, Any]


def load_params(source: WeightSource, *, stacked: bool = True) -> Tree:
    """Reads a whole model.

    Args:
      source: as `open_weights` gives it.
      stacked: layers as one `layers` subtree, else as `layers_0`, `layers_1`, ...

    Returns:
      Nested dict of float32 numpy arrays, without adapters.

    Raises:
      CheckpointError: a tensor is missing or has another shape than the configuration
        says.
    """
    shapes, params = _shapes(source, stacked), {}
    for entry in _entries(source, stacked):
        path = "/".join(entry.path)
        array = np.empty(shapes[path], np.float32)
        rows: Any = array if entry.stacked else array[None]
        _each_row(source, entry, rows.shape[1:], rows.__setitem__)
        params[path] = array
    return unflatten(params)


def place_params(source: WeightSource, shardings: Mapping[str, Any]) -> Tree:
    """Reads a model's parameters into a mesh, each device its own part.

    Args:
      source: as `open_weights` gives it.
      shardings: nested dict with a sharding for every parameter wanted; layers stacked
        or not. Parameters of the source that are not in it are not read, those that
        the source has not (adapters) are left out of the result.

    Returns:
      Nested dict of float32 `jax.Array`s; nothing else refers to their memory.

    Raises:
      CheckpointError: as `load_params`.
    """
    flat = flatten(shardings)
    stacked = not any(n.startswith("layers_") for path in flat for n in path.split("/"))
    shapes, params = _shapes(source, stacked), {}
    for entry in _entries(source, stacked):
        path = "/".join(entry.path)
        if path in flat:
            params[path] = _place(source, entry, shapes[path], flat[path])
    return unflatten(params)


def _place(
    source: WeightSource,
    entry: Entry,
    shape: tuple[int, ...],
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    """One parameter; devices that hold the same part share one host buffer."""
    parts = {
        device: tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    }
    buffers = {
        part: np.empty([end - start for start, end in part], np.float32)
        for part in set(parts.values())
    }

    def write(row: int, tensor: np.ndarray) -> None:
        for part, buffer in buffers.items():
            if not entry.stacked:
                buffer[...] = tensor[tuple(slice(*bounds) for bounds in part)]
            elif part[0][0] <= row < part[0][1]:
                cut = tuple(slice(*bounds) for bounds in part[1:])
                buffer[row - part[0][0]] = tensor[cut]

    _each_row(source, entry, shape[1:] if entry.stacked else shape, write)
    # Not the buffer itself: devices share it, and training steps donate their arrays.
    arrays = [
        jax.device_put(buffers[part], device, may_alias=False)
        for device, part in parts.items()
    ]
    array = jax.make_array_from_single_device_arrays(shape, sharding, arrays)
    return jax.block_until_ready(array)  # The buffers are free before the next one.


def _each_row(
    source: WeightSource,
    entry: Entry,
    shape: tuple[int, ...],
    write: Callable[[int, np.ndarray], None],
) -> None:
    """Calls `write(layer, tensor)` with each tensor, its axes as flanjax has them."""
    for row, name in enumerate(entry.names):
        tensor = source.read(name)
        tensor = tensor.T if entry.transposed else tensor
        if tensor.shape != shape:
            flip = slice(None, None, -1 if entry.transposed else None)
            raise CheckpointError(
                f"tensor '{name}' has shape {tensor.shape[flip]}; the configuration "
                f"says {shape[flip]}",
                where=source.where,
                fix="check that the configuration belongs to these weights",
            )
        write(row, tensor)


def _entries(source: WeightSource, stacked: bool) -> list[Entry]:
    entries = source.entries()
    return entries if stacked else unstacked(entries)


def _shapes(source: WeightSource, stacked: bool) -> dict[str, tuple[int, ...]]:
    config = dataclasses.replace(source.config, scan_layers=stacked)
    shapes = flatten(abstract_params(build_model(config))[0])
    return {path: tuple(leaf.shape) for path, leaf in shapes.items()}
