"""Devices as a mesh, and where arrays lie on it.

    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    shardings = param_shardings(axes, abstract_params, mesh)
    with laid_out(mesh): ...       # what is traced here follows the rules

Models name the axes of their parameters and activations; RULES alone says which mesh
axes shard which name. Data-parallel, FSDP, tensor-parallel, sequence-parallel and their
products are mesh shapes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flanjax.errors import ConfigError, nearest
from flanjax.models.partitioning import partitioned

# The last ones are neighbours: the tensor axis talks most.
MESH_AXES = ("data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("data", "fsdp")

# Logical axis -> mesh axes that shard it (none: whole on every device).
RULES: dict[str, tuple[str, ...]] = {
    # Parameters as they are stored, their gradients and their optimiser state.
    "embed": ("fsdp",),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "joined_kv": ("tensor",),
    "mlp": ("tensor",),
    "kv": (),
    "layers": (),
    "relpos_buckets": (),
    "lora_rank": (),
    # Activations; a parameter in use lies along "activation_<its axis>".
    "batch": BATCH_AXES,
    "length": ("sequence",),
    # Between blocks each tensor-parallel device keeps a part of the positions, where
    # otherwise all would keep the same numbers (https://arxiv.org/abs/2205.05198).
    "stream_length": ("sequence", "tensor"),
    # Rows by copy of the model: those that all parts of one copy work on.
    "copy_batch": ("data",),
    # What a query looks at is gathered.
    "keys": (),
    # The loss moves positions within rows, so rows are split further, not positions.
    "loss_batch": (*BATCH_AXES, "sequence"),
    "activation_embed": (),
    "activation_vocab": ("tensor",),
    "activation_heads": ("tensor",),
    "activation_joined_kv": ("tensor",),
    "activation_mlp": ("tensor",),
    "activation_kv": (),
    "activation_relpos_buckets": (),
    "activation_lora_rank": (),
}


@dataclass(frozen=True)
class MeshConfig:
    """How many devices along each axis of the mesh; their product is all devices."""

    data: int = -1
    """Copies of the model in a slice, each with its part of the batch; -1: all that
    are left."""
    fsdp: int = 1
    """Devices that share one copy's parameters and split its batch."""
    tensor: int = 1
    """Devices that split the matrices of each layer."""
    sequence: int = 1
    """Devices that split the positions of each row."""
    slices: int = 1
    """Groups of devices joined by a slower network (TPU slices, or racks). Each is a
    data-parallel copy of the mesh: only gradients go from one to another."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh over `devices` (default: all of them).

    Raises:
      ConfigError: the shape does not use every device exactly once, or the devices do
        not lie in that many slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    inner = (config.fsdp, config.sequence, config.tensor)
    fixed = config.slices * math.prod(inner)
    data = len(devices) // fixed if config.data == -1 and fixed > 0 else config.data
    shape = (data, *inner)
    if min(*shape, config.slices) < 1 or math.prod(shape) * config.slices != len(
        devices
    ):
        raise ConfigError(
            f"a mesh of {_said(config)} does not fit {len(devices)} device(s)",
            where="MeshConfig",
            fix=f"choose sizes whose product is {len(devices)}; data=-1 takes the rest",
        )
    # Explicit axis types, now JAX's default, would make every model state shardings.
    auto = (AxisType.Auto,) * len(MESH_AXES)
    whole = (config.slices * data, *inner)
    found = _tpu_slices(devices)
    if found and found != config.slices:
        raise ConfigError(
            f"slices={config.slices}, and these devices lie in {found} slice(s)",
            where="MeshConfig.slices",
            fix=f"set it to {found}",
        )
    try:
        if config.slices == 1:
            return jax.make_mesh(whole, MESH_AXES, axis_types=auto, devices=devices)
        if found:
            across = (config.slices, *(1 for _ in inner))
            grid = mesh_utils.create_hybrid_device_mesh(shape, across, devices=devices)
        else:
            # Devices come process by process, so that each slice is whole processes.
            grid = np.array(devices).reshape(whole)
    except NotImplementedError as error:
        raise _off_the_torus(config, devices) from error
    return Mesh(grid, MESH_AXES, axis_types=auto)


def _off_the_torus(config: MeshConfig, devices: Sequence[Any]) -> ConfigError:
    """What is wrong with a mesh that would cut an axis of a TPU's torus."""
    sizes = np.ptp([device.coords for device in devices], axis=0) + 1
    torus = "x".join(str(size) for size in sizes)
    return ConfigError(
        f"a mesh of {_said(config)} does not lie on chips that are joined as {torus}",
        where="MeshConfig",
        fix="let each size be 1, one of these numbers, or a product of some of them, "
        "or take a slice of another shape",
    )


def _said(config: MeshConfig) -> str:
    """The mesh as a user wrote it: sizes of 1 of the rarer axes are left out."""
    rare = [n for n in ("sequence", "slices") if getattr(config, n) != 1]
    names = ["data", "fsdp", "tensor", *rare]
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


def _tpu_slices(devices: Sequence[Any]) -> int | None:
    """How many slices TPU devices lie in; None for other devices."""
    if devices[0].platform != "tpu":
        return None
    return len({getattr(device, "slice_index", 0) for device in devices})


def laid_out(mesh: Mesh | None) -> AbstractContextManager[None]:
    """What is traced in this context lays its activations out by RULES."""
    return nullcontext() if mesh is None else partitioned(mesh, RULES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of scalars and whatever every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of whole rows: the first axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def feature_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a training batch's features [batch, length]."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, "sequence"))


def check_batch_size(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Raises ConfigError unless every microbatch spreads evenly over the mesh."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size < 1 or microbatches < 1 or batch_size % (parts * microbatches):
        unit = parts * max(microbatches, 1)
        raise ConfigError(
            f"a batch of {batch_size} rows does not divide into {microbatches} "
            f"microbatch(es) over {parts} devices (data x fsdp)",
            where="batch size",
            fix=f"use a multiple of {unit}, such as "
            f"{max(unit, round(batch_size / unit) * unit)}, or another mesh",
        )


def check_lengths(lengths: Mapping[str, int], mesh: Mesh) -> None:
    """Raises ConfigError unless each feature's length divides by the sequence axis.

    Args:
      lengths: feature -> positions of a row, such as {"inputs": 512}.
      mesh: the mesh.
    """
    for feature, length in lengths.items():
        if length % mesh.shape["sequence"]:
            raise _indivisible(
                f"feature '{feature}': {length} positions do",
                length,
                "sequence",
                mesh,
                f"feature length of '{feature}'",
            )


def check_heads(num_heads: int, mesh: Mesh) -> None:
    """Raises ConfigError unless attention heads divide by the tensor axis.

    Key heads need not: grouped queries whose keys are too few keep them on every
    device of the axis.
    """
    if num_heads % mesh.shape["tensor"]:
        raise _indivisible(
            f"{num_heads} attention heads do", num_heads, "tensor", mesh, "num_heads"
        )


def param_shardings(axes: Any, shapes: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of arrays by the names of their axes.

    Args:
      axes: tree whose leaves are tuples of logical axis names (None: not sharded).
      shapes: tree of the same structure with leaves that have a `.shape`.
      mesh: the mesh.

    Returns:
      Tree of NamedSharding.

    Raises:
      ConfigError: unknown name, two axes of one parameter on one mesh axis, or a
        dimension that does not divide; names the parameter.
    """

    def one(path: tuple, leaf: Any, names: tuple[str | None, ...]) -> NamedSharding:
        where = "/".join(
            str(getattr(key, "key", getattr(key, "name", key))) for key in path
        )
        return NamedSharding(mesh, _spec(where, names, tuple(leaf.shape), mesh))

    # `shapes` leads, so each tuple of names arrives whole.
    return jax.tree_util.tree_map_with_path(one, shapes, axes)


def _spec(
    where: str, names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec:
    if len(names) != len(shape):
        raise ConfigError(f"axes {names} do not fit the shape {shape}", where=where)
    spec: list[str | None] = []
    for name, size in zip(names, shape, strict=True):
        if name is not None and name not in RULES:
            raise ConfigError(
                f"no sharding rule for the axis '{name}'.{nearest(name, RULES)}",
                where=f"parameter {where}",
                fix="add a line to RULES in flanjax/train/mesh.py",
            )
        axis = next(iter(RULES[name]), None) if name is not None else None
        if axis is not None and axis in spec:
            raise ConfigError(
                f"two axes of {names} map to the mesh axis '{axis}'",
                where=f"parameter {where}",
                fix="name the axes of the parameter differently",
            )
        if axis is not None and size % mesh.shape[axis]:
            raise _indivisible(
                f"axis '{name}' of size {size} does",
                size,
                axis,
                mesh,
                f"parameter {where} {shape}",
            )
        spec.append(axis)
    return PartitionSpec(*spec)


def _indivisible(what: str, size: int, axis: str, mesh: Mesh, where: str):
    fitting = [n for n in _divisors(mesh.size) if size % n == 0]
    return ConfigError(
        f"{what} not divide by {axis}={mesh.shape[axis]}",
        where=where,
        fix=f"on {mesh.size} devices MeshConfig.{axis} may be "
        f"{', '.join(map(str, fitting))} for it",
    )


def _divisors(number: int) -> Iterable[int]:
    return (n for n in range(1, number + 1) if number % n == 0)
