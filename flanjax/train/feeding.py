"""Which rows of a batch a process reads, and how they become arrays on the mesh.

    index, count = host_share(mesh)
    batch = place(mesh, (index, count), features)    # this process's rows of them

Processes whose devices split rows across their width, by tensor or sequence, read the
same rows.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from flanjax.train.mesh import BATCH_AXES, feature_sharding


def host_share(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """The share (index, count) of each batch's rows that a process needs.

    Args:
      mesh: over the devices of all processes.
      process: its number; None is this one.

    Returns:
      It needs part `index` of `count` equal parts; (0, 1), all rows, where its devices
      lie apart in the mesh.
    """
    process = jax.process_index() if process is None else process
    assert mesh.axis_names[: len(BATCH_AXES)] == BATCH_AXES
    shape = mesh.devices.shape
    rows = mesh.devices.reshape(int(np.prod(shape[: len(BATCH_AXES)])), -1)
    mine = [
        i
        for i, part in enumerate(rows)
        if any(d.process_index == process for d in part)
    ]
    first, size = mine[0], len(mine)
    whole = mine == list(range(first, first + size))
    if not whole or first % size or len(rows) % size:
        return 0, 1
    return first // size, len(rows) // size


def place(
    mesh: Mesh, share: tuple[int, int], batch: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
    """Puts this process's rows [rows, length] on its devices.

    Args:
      mesh: over the devices of all processes.
      share: as `host_share` gives it.
      batch: the features of that share.

    Returns:
      The features of the whole batch, as arrays over all processes.
    """
    index, count = share
    sharding = feature_sharding(mesh)

    def one(rows: np.ndarray) -> jax.Array:
        shape = (len(rows) * count, *rows.shape[1:])
        offset = index * len(rows)

        def part(where: Any) -> np.ndarray:
            start, stop, _ = where[0].indices(shape[0])
            return rows[(slice(start - offset, stop - offset), *where[1:])]

        return jax.make_array_from_callback(shape, sharding, part)

    return {name: one(rows) for name, rows in batch.items()}
