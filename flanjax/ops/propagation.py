"""How the results of array operations lie on a mesh, given how their operands lie.

A small model of what XLA's partitioner does, enough to count bytes: the constraints
that models and the train step state are followed, and everything between them inherits
its operands' layout.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

# For each dimension the mesh axes that split it.
Spec = tuple[tuple[str, ...], ...]


def spec_of(sharding: Any, rank: int) -> Spec:
    """The layout that a NamedSharding or PartitionSpec gives an array of this rank."""
    parts = [*getattr(sharding, "spec", sharding or ()), *[None] * rank]
    return tuple(
        (part,) if isinstance(part, str) else tuple(part or ()) for part in parts[:rank]
    )


def merge(specs: Sequence[Spec], shape: Sequence[int], sizes: dict[str, int]) -> Spec:
    """The layout of an elementwise result: every axis goes where it is first found.

    Args:
      specs: of the operands, each of the result's rank.
      shape: of the result.
      sizes: devices along each mesh axis.
    """
    used: set[str] = set()
    found = []
    for dimension, size in enumerate(shape):
        axes: list[str] = []
        for spec in specs:
            for axis in spec[dimension]:
                parts = math.prod(sizes[a] for a in (*axes, axis))
                if axis not in used and size % parts == 0:
                    axes.append(axis)
                    used.add(axis)
        found.append(tuple(axes))
    return tuple(found)


def propagate(
    name: str,
    params: dict[str, Any],
    operands: Sequence[tuple[tuple[int, ...], Spec]],
    shape: tuple[int, ...],
    sizes: dict[str, int],
) -> Spec:
    """The layout of one operation's result.

    Args:
      name: of the JAX primitive.
      params: of its equation.
      operands: shape and layout of each.
      shape: of the result.
      sizes: devices along each mesh axis.
    """
    if name == "sharding_constraint":
        return spec_of(params["sharding"], len(shape))
    rule = _RULES.get(name)
    if rule is None and "axes" in params and len(operands[0][0]) > len(shape):
        rule = _reduce
    if rule is not None:
        return merge([rule(params, operands, shape)], shape, sizes)
    alike = [spec for found, spec in operands if len(found) == len(shape)]
    kept = [
        tuple(axes if found[i] == shape[i] else () for i, axes in enumerate(spec))
        for found, spec in operands
        if len(found) == len(shape)
    ]
    return merge(kept if alike else [((),) * len(shape)], shape, sizes)


def _reduce(params, operands, shape) -> Spec:
    _, spec = operands[0]
    kept = tuple(axes for i, axes in enumerate(spec) if i not in params["axes"])
    return kept if len(kept) == len(shape) else ((),) * len(shape)


def _broadcast(params, operands, shape) -> Spec:
    found, spec = operands[0]
    result: list[tuple[str, ...]] = [()] * len(shape)
    for i, dimension in enumerate(params["broadcast_dimensions"]):
        if found[i] == shape[dimension]:
            result[dimension] = spec[i]
    return tuple(result)


def _transpose(params, operands, shape) -> Spec:
    del shape
    return tuple(operands[0][1][i] for i in params["permutation"])


def _reshape(params, operands, shape) -> Spec:
    """Groups of dimensions with equal products keep the axes of the group's first."""
    del params
    found, spec = operands[0]
    result: list[tuple[str, ...]] = [()] * len(shape)
    i = j = 0
    while i < len(found) and j < len(shape):
        first_i, first_j = i, j
        left, right = found[i], shape[j]
        while left != right:
            if left < right and i + 1 < len(found):
                i += 1
                left *= found[i]
            elif left > right and j + 1 < len(shape):
                j += 1
                right *= shape[j]
            else:
                return tuple(result)
        axes = next((spec[k] for k in range(first_i, i + 1) if found[k] > 1), ())
        target = next((k for k in range(first_j, j + 1) if shape[k] > 1), first_j)
        result[target] = axes
        i, j = i + 1, j + 1
    return tuple(result)


def _dot(params, operands, shape) -> Spec:
    del shape
    (contract, batch), result = params["dimension_numbers"], []
    for side, (found, spec) in enumerate(operands[:2]):
        free = [
            i
            for i in range(len(found))
            if i not in contract[side] and i not in batch[side]
        ]
        if side == 0:
            result += [spec[i] for i in batch[0]]
        result += [spec[i] for i in free]
    return tuple(result)


def _gather(params, operands, shape) -> Spec:
    numbers = params["dimension_numbers"]
    (found, spec), (_, indices) = operands[:2]
    gone = set(numbers.collapsed_slice_dims) | set(numbers.operand_batching_dims)
    kept = [i for i in range(len(found)) if i not in gone]
    result, rows = [], iter(indices[:-1])
    offsets = dict(zip(numbers.offset_dims, kept, strict=False))
    for dimension in range(len(shape)):
        if dimension in offsets:
            whole = found[offsets[dimension]] == shape[dimension]
            result.append(spec[offsets[dimension]] if whole else ())
        else:
            result.append(next(rows, ()))
    return tuple(result)


def _squeeze(params, operands, shape) -> Spec:
    del shape
    gone = params["dimensions"]
    return tuple(axes for i, axes in enumerate(operands[0][1]) if i not in gone)


_RULES: dict[str, Callable[..., Spec]] = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "dot_general": _dot,
    "gather": _gather,
    "squeeze": _squeeze,
}
