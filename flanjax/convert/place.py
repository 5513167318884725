"""Parameters out of a file, tensor by tensor: onto the host, or into a sharded mesh.

    with open_weights("flan_t5_small") as source:
        params = load_params(source)                   # whole, on the host
        params = place_params(source, shardings)       # each device gets its part
        read = parameter_reader(source)                # or parameter_reader(params)
        read("encoder/layers/mlp/wo/kernel", 3)        # of one layer

A large model is never whole anywhere: placing it takes, on the host, one tensor of the
file and this process's parts of one parameter.
"""

import dataclasses
import gc
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flanjax.convert.names import Entry, unstacked
from flanjax.convert.weights import WeightSource
from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.models.t5 import T5Config
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
    shapes, params = parameter_shapes(source.config, stacked), {}
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
    shapes, params = parameter_shapes(source.config, stacked), {}
    for entry in _entries(source, stacked):
        path = "/".join(entry.path)
        if path in flat:
            params[path] = _place(source, entry, shapes[path], flat[path])
            gc.collect(0)  # When JAX lets go of the host memory it has read.
    return unflatten(params)


def parameter_reader(
    weights: WeightSource | Tree,
) -> Callable[[str, int | None], np.ndarray]:
    """Returns what reads single parameters for writing them to another file.

    Args:
      weights: an open source, or parameters with layers stacked or not.

    Returns:
      A function of a path ("decoder/layers/mlp/wo/kernel") and a layer (None: the
      parameter is of no layer) to float32 values, axes as flanjax has them. It raises
      CheckpointError as `load_params` does.
    """
    if isinstance(weights, Mapping):
        flat = flatten(weights)

        def from_tree(path: str, layer: int | None) -> np.ndarray:
            alone = path.replace("/layers/", f"/layers_{layer}/")
            if alone != path and alone in flat:
                return np.asarray(flat[alone], np.float32)
            leaf = flat[path]
            if layer is not None and isinstance(leaf, jax.Array):
                # On its devices, and compiled once for all layers.
                leaf = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
            elif layer is not None:
                leaf = leaf[layer]
            return np.asarray(leaf, np.float32)

        return from_tree

    entries = {"/".join(entry.path): entry for entry in weights.entries()}
    shapes = parameter_shapes(weights.config)

    def from_source(path: str, layer: int | None) -> np.ndarray:
        entry = entries[path]
        shape = shapes[path][entry.stacked :]
        return _turned(weights, entry, entry.names[layer or 0], shape)

    return from_source


def parameter_shapes(
    config: T5Config | DecoderConfig, stacked: bool = True
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by its path, adapters left out."""
    config = dataclasses.replace(config, scan_layers=stacked, lora=LoraConfig())
    shapes = flatten(abstract_params(build_model(config))[0])
    return {path: tuple(leaf.shape) for path, leaf in shapes.items()}


def _place(
    source: WeightSource,
    entry: Entry,
    shape: tuple[int, ...],
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    """One parameter; devices that hold the same part share one host buffer."""
    where = sharding.addressable_devices_indices_map(shape)
    parts = {
        device: tuple(s.indices(n)[:2] for s, n in zip(index or (), shape, strict=True))
        for device, index in where.items()
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
    # CPU devices may take the buffer itself; JAX overwrites no memory it was lent.
    arrays = [jax.device_put(buffers[part], device) for device, part in parts.items()]
    array = jax.make_array_from_single_device_arrays(shape, sharding, arrays)
    return jax.block_until_ready(array)


def _each_row(
    source: WeightSource,
    entry: Entry,
    shape: tuple[int, ...],
    write: Callable[[int, np.ndarray], None],
) -> None:
    """Calls `write(layer, tensor)` with each tensor, its axes as flanjax has them."""
    for row, name in enumerate(entry.names):
        # No name holds the tensor while the next one is read.
        write(row, _turned(source, entry, name, shape))


def _turned(
    source: WeightSource, entry: Entry, name: str, shape: tuple[int, ...]
) -> np.ndarray:
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
    return tensor


def _entries(source: WeightSource, stacked: bool) -> list[Entry]:
    entries = source.entries()
    return entries if stacked else unstacked(entries)
