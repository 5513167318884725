"""Bytes that the intermediate results of a traced program take, without compiling it.

    peak = peak_bytes(traced.jaxpr, layouts, {"data": 1, "fsdp": 8, ...})

Walks the program in its order with a simple model of XLA: chains of elementwise
operations and reductions are fused, so that their results take memory only where
something that is not fused (a matrix product, a loop, a gather) reads them; loops keep
their carry in place and stack what they save; results that overwrite a dying operand
cost nothing.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from flanjax.ops.propagation import Spec, merge, propagate, spec_of

_INLINED = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}
# Their result is an array of its own, and so are the operands they read.
_WHOLE = {
    "dot_general",
    "conv_general_dilated",
    "gather",
    "scatter",
    "scatter-add",
    "sort",
    "cumsum",
    "top_k",
    "scan",
    "while",
    "cond",
    "shard_map",
    "pallas_call",
    "custom_call",
    "ffi_call",
    "dynamic_update_slice",
    "all_gather",
}
# Their first operand becomes their result when nothing else needs it.
_IN_PLACE = {"dynamic_update_slice", "scatter", "scatter-add"}


@dataclasses.dataclass(eq=False)
class _Array:
    """An array of the program.

    Attributes:
      shape, itemsize, spec: global shape, bytes of an element, and layout.
      bytes: on one device once it exists; 0 where the caller owns it.
      roots: arrays that have to live for this one to be computed; itself when it
        exists.
      constant: made of scalars only, so that every reader makes it again.
      born, last: numbers of the operations it lives between.
    """

    shape: tuple[int, ...]
    itemsize: int
    spec: Spec
    bytes: int
    roots: frozenset["_Array"] = frozenset()
    constant: bool = False
    born: int | None = None
    last: int = -1


def local_bytes(
    shape: Sequence[int], itemsize: int, spec: Spec, sizes: dict[str, int]
) -> int:
    """Bytes of one device's part of an array."""
    total = itemsize
    for size, axes in zip(shape, spec, strict=True):
        total *= -(-size // math.prod(sizes[axis] for axis in axes))
    return total


def peak_bytes(jaxpr: Any, layouts: Sequence[Spec], sizes: dict[str, int]) -> int:
    """The most bytes of intermediate results that live at once on one device.

    Args:
      jaxpr: ClosedJaxpr of the program. Its arguments are the caller's, and its
        results are written over donated arguments: neither counts.
      layouts: of the arguments.
      sizes: devices along each mesh axis.
    """
    walk = _Walk(sizes)
    arguments = [
        walk.outside(var.aval, spec)
        for var, spec in zip(jaxpr.jaxpr.invars, layouts, strict=True)
    ]
    results = walk.run(jaxpr.jaxpr, arguments)
    return walk.peak(results)


class _Walk:
    """One pass over a jaxpr and what it calls; loops have walks of their own."""

    def __init__(self, sizes: dict[str, int]):
        self._sizes = sizes
        self._arrays: list[_Array] = []
        self._inside: dict[int, int] = {}  # operation -> bytes its loop body needs
        self._now = 0

    def outside(self, aval: Any, spec: Spec) -> _Array:
        """An array that the caller owns."""
        shape = tuple(getattr(aval, "shape", ()))
        return _Array(shape, _itemsize(aval), spec, 0, constant=not shape)

    def run(self, jaxpr: Any, arguments: Sequence[_Array]) -> list[_Array]:
        """Walks the equations; returns the results."""
        known: dict[Any, _Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var in jaxpr.constvars:
            known[var] = self.outside(var.aval, ((),) * len(var.aval.shape))

        def read(atom: Any) -> _Array:
            if hasattr(atom, "val"):
                return self.outside(atom.aval, ((),) * len(atom.aval.shape))
            return known[atom]

        for equation in _needed(jaxpr):
            operands = [read(atom) for atom in equation.invars]
            self._now += 1
            results = self._equation(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def peak(self, results: Iterable[_Array] = ()) -> int:
        """The most bytes alive; `results` stay alive to the end."""
        self._now += 1
        for array in results:
            for root in array.roots:
                root.last = self._now
        change = [0] * (self._now + 2)
        for array in self._arrays:
            if array.born is not None and array.bytes:
                change[array.born] += array.bytes
                change[max(array.last, array.born) + 1] -= array.bytes
        alive = list(itertools.accumulate(change))
        return max(
            bytes_ + self._inside.get(number, 0) for number, bytes_ in enumerate(alive)
        )

    def _equation(self, equation: Any, operands: list[_Array]) -> list[_Array]:
        name, params = equation.primitive.name, equation.params
        if name in _INLINED:
            inner = params.get("call_jaxpr", params.get("jaxpr"))
            return self.run(getattr(inner, "jaxpr", inner), operands)
        if name == "scan":
            return self._scan(equation, operands)
        if name == "while":
            return self._while(equation, operands)
        views = [(array.shape, array.spec) for array in operands]
        results = []
        stated = params["out_specs"] if name == "shard_map" else ()
        for number, var in enumerate(equation.outvars):
            shape = tuple(var.aval.shape)
            if stated:
                spec = spec_of(stated[number], len(shape))
            else:
                spec = propagate(name, params, views, shape, self._sizes)
            results.append(self._array(var.aval, spec))
        moves = name == "sharding_constraint" and (
            local_bytes(operands[0].shape, 1, operands[0].spec, self._sizes)
            < local_bytes(results[0].shape, 1, results[0].spec, self._sizes)
        )
        whole = name in _WHOLE or moves
        self._read(operands, whole)
        if name == "shard_map":
            self._inside[self._now] = self._shard(params["jaxpr"])
        in_place = name in _IN_PLACE and operands[0].bytes == results[0].bytes
        for result in results:
            if in_place:
                result.roots = operands[0].roots
            elif whole or (
                "axes" in params and len(result.shape) < len(operands[0].shape)
            ):
                self._make(result)
            else:
                result.roots = frozenset().union(*(a.roots for a in operands))
                result.constant = all(a.constant for a in operands)
        return results

    def _array(self, aval: Any, spec: Spec) -> _Array:
        shape = tuple(aval.shape)
        size = local_bytes(shape, _itemsize(aval), spec, self._sizes)
        return _Array(shape, _itemsize(aval), spec, size)

    def _make(self, array: _Array) -> None:
        """The array exists from now on."""
        array.born = array.last = self._now
        array.roots = frozenset([array])
        self._arrays.append(array)

    def _read(self, operands: Iterable[_Array], whole: bool) -> None:
        for array in operands:
            for root in array.roots:
                root.last = self._now
            # Arguments exist already: they are the caller's and have no bytes here.
            if whole and array.born is None and array.bytes and not array.constant:
                # XLA computes from several large arrays in several steps (measured:
                # the backward pass of a softmax).
                large = [r for r in array.roots if 2 * r.bytes >= array.bytes]
                if len(large) > 1:
                    inside = self._inside.get(self._now, 0)
                    self._inside[self._now] = inside + array.bytes
                self._make(array)

    def _scan(self, equation: Any, operands: list[_Array]) -> list[_Array]:
        body = equation.params["jaxpr"].jaxpr
        carries = sum(
            outer.aval.shape == inner.aval.shape
            for outer, inner in zip(equation.outvars, body.outvars, strict=True)
        )
        sliced = sum(
            outer.aval.shape != inner.aval.shape
            for outer, inner in zip(equation.invars, body.invars, strict=True)
        )
        consts = len(operands) - sliced - carries
        self._read(operands[: consts + carries], whole=True)
        self._read(operands[consts + carries :], whole=True)
        given = operands[:consts]
        carried = operands[consts : consts + carries]
        slices = [
            self._array(var.aval, array.spec[1:])
            for var, array in zip(
                body.invars[consts + carries :],
                operands[consts + carries :],
                strict=True,
            )
        ]
        inner, specs, made = self._body(body, given, carried, slices, carries)
        self._inside[self._now] = self._inside.get(self._now, 0) + inner
        results = self._carried(carried, specs, equation.outvars[:carries])
        for var, spec in zip(equation.outvars[carries:], made, strict=True):
            array = self._array(var.aval, ((), *spec))
            self._make(array)
            results.append(array)
        return results

    def _shard(self, body: Any) -> int:
        """Bytes that one device's part of a function needs besides its results."""
        body, walk = getattr(body, "jaxpr", body), _Walk(self._sizes)
        whole = [((),) * len(var.aval.shape) for var in body.invars]
        arguments = [
            walk.outside(var.aval, spec)
            for var, spec in zip(body.invars, whole, strict=True)
        ]
        results = walk.run(body, arguments)
        return max(0, walk.peak(results) - sum(array.bytes for array in results))

    def _while(self, equation: Any, operands: list[_Array]) -> list[_Array]:
        params = equation.params
        body = params["body_jaxpr"].jaxpr
        first, consts = params["cond_nconsts"], params["body_nconsts"]
        self._read(operands, whole=True)
        given = operands[first : first + consts]
        carried = operands[first + consts :]
        inner, specs, _ = self._body(body, given, carried, [], len(carried))
        self._inside[self._now] = self._inside.get(self._now, 0) + inner
        return self._carried(carried, specs, equation.outvars)

    def _body(self, body, given, carried, slices, carries):
        """Bytes a round needs, layouts of the carry, and of what is stacked."""
        specs = [array.spec for array in carried]
        inner, results = 0, []
        for _ in range(2):  # The carry's layout may be known only after a round.
            walk = _Walk(self._sizes)
            arguments = [
                _Array(a.shape, a.itemsize, s, 0)
                for a, s in zip(
                    [*given, *carried], [*(a.spec for a in given), *specs], strict=True
                )
            ]
            copies = [dataclasses.replace(a, roots=frozenset()) for a in slices]
            results = walk.run(body, [*arguments, *copies])
            inner = walk.peak(results[:carries])
            after = [
                merge([old, new.spec], new.shape, self._sizes)
                for old, new in zip(specs, results[:carries], strict=True)
            ]
            if after == specs:
                break
            specs = after
        return inner, specs, [array.spec for array in results[carries:]]

    def _carried(self, carried, specs, outvars) -> list[_Array]:
        """A loop's carry takes the place of what it began with."""
        results = []
        for array, spec, var in zip(carried, specs, outvars, strict=True):
            result = self._array(var.aval, spec)
            if array.born is not None and array.bytes:
                # What it began with may have been laid out less finely.
                array.bytes = min(array.bytes, result.bytes)
                result.roots = array.roots
            else:
                self._make(result)
            results.append(result)
        return results


def _needed(jaxpr: Any) -> list[Any]:
    """The equations whose results are used; XLA drops the others."""
    used, kept = {var for var in jaxpr.outvars if not hasattr(var, "val")}, []
    for equation in reversed(jaxpr.eqns):
        if used.intersection(equation.outvars) or equation.effects:
            used.update(var for var in equation.invars if not hasattr(var, "val"))
            kept.append(equation)
    return kept[::-1]


def _itemsize(aval: Any) -> int:
    dtype = getattr(aval, "dtype", None)
    return getattr(dtype, "itemsize", 4) if dtype is not None else 0
