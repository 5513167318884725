"""Devices as a mesh, and where arrays lie on it.

    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    shardings = param_shardings(axes, abstract_params, mesh)

Models name the axes of their parameters; RULES alone says which mesh axis shards
which name. Data-parallel, FSDP, tensor-parallel and their products are mesh shapes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flanjax.errors import ConfigError, nearest

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Logical axis -> mesh axis (None: whole on every device).
RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "joined_kv": "tensor",
    "mlp": "tensor",
    "kv": None,
    "layers": None,
    "relpos_buckets": None,
    "lora_rank": None,
}


@dataclass(frozen=True)
class MeshConfig:
    """How many devices along each axis of the mesh."""

    data: int = -1
    """Copies of the model, each with its part of the batch; -1: all that are left."""
    fsdp: int = 1
    """Devices that share one copy's parameters and split its batch."""
    tensor: int = 1
    """Devices that split the matrices of each layer."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh over `devices` (default: all of them).

    Raises:
      ConfigError: the shape does not use every device exactly once.
    """
    devices = jax.devices() if devices is None else list(devices)
    fixed = config.fsdp * config.tensor
    data = len(devices) // fixed if config.data == -1 and fixed > 0 else config.data
    shape = (data, config.fsdp, config.tensor)
    if min(shape) < 1 or math.prod(shape) != len(devices):
        asked = f"data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}"
        raise ConfigError(
            f"a mesh of {asked} does not fit {len(devices)} device(s)",
            where="MeshConfig",
            fix=f"choose sizes whose product is {len(devices)}; data=-1 takes the rest",
        )
    # Explicit axis types, now JAX's default, would make every model state shardings.
    auto = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of scalars and whatever every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


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
        axis = RULES[name] if name is not None else None
        if axis is not None and axis in spec:
            raise ConfigError(
                f"two axes of {names} map to the mesh axis '{axis}'",
                where=f"parameter {where}",
                fix="name the axes of the parameter differently",
            )
        if axis is not None and size % mesh.shape[axis]:
            raise ConfigError(
                f"axis '{name}' of size {size} does not divide by "
                f"{axis}={mesh.shape[axis]}",
                where=f"parameter {where} {shape}",
                fix=f"choose MeshConfig.{axis} as a divisor of {size}",
            )
        spec.append(axis)
    return PartitionSpec(*spec)
