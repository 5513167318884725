"""Which collectives a compiled program runs: kind, bytes, mesh axes and how often.

    compiled = train_step.lower(state, batch).compile()
    found = collectives(compiled.as_text(), mesh)
    for line in summary(found): print(line)

Read from XLA's text of the optimised program. A collective inside a loop counts once
for each round; where XLA does not know the number of rounds (the loss runs as many
chunks as a batch needs), it counts once and is marked so. XLA on CPUs has no pass that
makes reduce-scatters: there an all-reduce is followed by a slice of its result, which
moves twice the bytes of the reduce-scatter that TPUs and GPUs run.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_OPERATION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([0-9,]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)="
    r"%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_LESS = re.compile(
    r"^ROOT %?[\w.\-]+ = \S+ compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT"
)
_CONSTANT = re.compile(r"^%?([\w.\-]+) = s32\S* constant\((\d+)\)")
_NAME = re.compile(r'op_name="([^"]*)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
# The three ways to write who talks to whom, and that of permutations.
_LISTED = re.compile(r"replica_groups=(\{(?:\{[\d,]+\},?)*\})")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=(\{(?:\{\d+,\d+\},?)*\})")

Arrays = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: one of KINDS.
      arrays: (dtype, shape) of each array, as one device holds the larger side: what a
        gather makes, what a reduction reads.
      bytes: of these arrays.
      devices: that take part together.
      axes: mesh axes it runs over; () where the groups are no product of axes.
      times: how often a run of the program does it.
      exact: `times` is known; otherwise it counts one round of a loop that ends by
        its data.
      name: the operation of the model it comes from.
    """

    kind: str
    arrays: Arrays
    bytes: int
    devices: int
    axes: tuple[str, ...]
    times: int
    exact: bool
    name: str


def collectives(text: str, mesh: Mesh | None = None) -> list[Collective]:
    """Lists the collectives of a program that more than one device takes part in.

    Args:
      text: `compiled.as_text()`.
      mesh: whose axes are named in the result; None names none.
    """
    computations, entry = _computations(text)
    # TPUs split one collective over several fusions, which share its channel.
    found: dict[Any, Collective] = {}

    def visit(name: str, times: int, exact: bool) -> None:
        for line in computations.get(name, ()):
            match = _OPERATION.match(line)
            if not match or match[2].endswith(("-done", "-update")):
                continue
            result, operation, rest = match.groups()
            if operation.removesuffix("-start") in KINDS:
                fused = name.startswith("all-reduce-scatter")
                kind = "reduce-scatter" if fused else operation
                groups, axes = _participants(rest, mesh)
                arrays = _arrays(operation, result, groups)
                size = int(sum(math.prod(s) * _item_bytes(d) for d, s in arrays))
                channel = _CHANNEL.search(rest)
                label = _NAME.search(rest)
                key = (int(channel[1]), arrays) if channel else (name, line)
                if groups > 1:
                    found[key] = Collective(
                        kind.removesuffix("-start"),
                        arrays,
                        size,
                        groups,
                        axes,
                        times,
                        exact,
                        label[1] if label else "",
                    )
                continue
            rounds = _rounds(rest, computations) if operation == "while" else 1
            for called in _calls(rest):
                visit(called, times * (rounds or 1), exact and rounds is not None)

    visit(entry, 1, True)
    return list(found.values())


def summary(found: Iterable[Collective]) -> list[str]:
    """One line for each kind and mesh axes: how often, and how many bytes in all."""
    groups: dict[tuple, list[Collective]] = {}
    for one in found:
        groups.setdefault((one.kind, one.axes, one.devices), []).append(one)
    lines = []
    for (kind, axes, devices), members in sorted(groups.items()):
        times = sum(one.times for one in members)
        total = sum(one.times * one.bytes for one in members)
        largest = max(one.bytes for one in members)
        over = " x ".join(axes) or f"groups of {devices}"
        more = "" if all(one.exact for one in members) else " or more"
        lines.append(
            f"{kind} over {over}: {times}{more} of at most {largest:,} bytes, "
            f"{total:,} in all"
        )
    return lines


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by its name, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line == "}":
            lines = None
        elif lines is not None:
            lines.append(line.strip())
    return computations, entry


def _rounds(rest: str, computations: dict[str, list[str]]) -> int | None:
    """Rounds of a loop, if they do not depend on data."""
    count = _ROUNDS.search(rest)
    if count:
        return int(count[1])
    # On TPUs XLA does not write it down, but `counter < constant` says the same.
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    lines = computations.get(condition[1], []) if condition else []
    compare = next((_LESS.match(line) for line in lines if "ROOT" in line), None)
    for line in lines if compare else ():
        limit = _CONSTANT.match(line)
        if compare and limit and limit[1] == compare[1]:
            return int(limit[2])
    return None


def _calls(rest: str) -> Iterator[str]:
    yield from _CALLED.findall(rest)
    for names in _BRANCHES.findall(rest):
        yield from re.findall(r"%?([\w.\-]+)", names)


def _arrays(operation: str, result: str, devices: int) -> Arrays:
    """The arrays of the larger side of a collective."""
    arrays = [
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(result)
    ]
    if operation in ("all-gather-start", "collective-permute-start"):
        # These results begin with the operands, and may end with two counters.
        arrays = [(dtype, shape) for dtype, shape in arrays if shape or dtype != "u32"]
        arrays = arrays[len(arrays) // 2 :]
    if operation == "reduce-scatter":
        # Which axis was scattered does not matter for the size.
        arrays = [(dtype, (devices, *shape)) for dtype, shape in arrays]
    return tuple(arrays)


def _item_bytes(dtype: str) -> float:
    if dtype == "pred":
        return 1
    return int(re.sub(r"^[a-z]+", "", re.split(r"(?<=\d)[a-z]", dtype)[0])) / 8


def _participants(rest: str, mesh: Mesh | None) -> tuple[int, tuple[str, ...]]:
    """How many devices take part together, and the mesh axes they differ in."""
    named = _NAMED.search(rest)
    if named and mesh is not None:
        axes = tuple(re.findall(r"'([^']+)'", named[2]))
        if set(axes) <= set(mesh.axis_names) and ":" not in named[2]:
            return math.prod(mesh.shape[axis] for axis in axes), axes
    groups = _groups(rest)
    if mesh is None:
        # Without groups all devices take part, however many they are.
        return (len(groups[0]) if groups else 2), ()
    groups = groups or [tuple(range(mesh.size))]
    return len(groups[0]), _axes_of(groups, mesh)


def _groups(rest: str) -> list[tuple[int, ...]]:
    """The groups of devices, by their numbers in the program; [] for all in one."""
    pairs = _PAIRS.search(rest)
    if pairs:
        return _joined(_numbers(pairs[1]))
    listed, iota, named = (p.search(rest) for p in (_LISTED, _IOTA, _NAMED))
    if listed:
        return _numbers(listed[1])
    if iota:
        shape, dims = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
        order = [int(n) for n in iota[3].split(",")] if iota[3] else range(len(dims))
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
        return [tuple(row) for row in ids.tolist()]
    if named:
        sizes = {k: int(n) for k, n in re.findall(r"'([^']+)'=(\d+)", named[1])}
        chosen = re.findall(r"'([^']+)'", named[2])
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        last = [list(sizes).index(name) for name in chosen]
        ids = np.moveaxis(ids, last, range(-len(last), 0))
        count = math.prod(sizes[name] for name in chosen)
        return [tuple(row) for row in ids.reshape(-1, count).tolist()]
    return []


def _numbers(text: str) -> list[tuple[int, ...]]:
    inner = re.findall(r"\{([\d,]+)\}", text)
    return [tuple(int(n) for n in group.split(",")) for group in inner]


def _joined(pairs: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Rings of a permutation: devices that reach each other."""
    groups: list[set[int]] = []
    for pair in pairs:
        touched = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touched]
        groups.append(set(pair).union(*touched))
    return sorted(tuple(sorted(group)) for group in groups if len(group) > 1)


def _axes_of(groups: Sequence[Sequence[int]], mesh: Mesh) -> tuple[str, ...]:
    """Axes whose product the groups are; () if they are none."""
    if any(max(group) >= mesh.size for group in groups):
        return ()
    places = [np.array(np.unravel_index(g, mesh.devices.shape)).T for g in groups]
    varying = [
        i
        for i in range(mesh.devices.ndim)
        if np.any(places[0][:, i] != places[0][0, i])
    ]
    size = math.prod(mesh.devices.shape[i] for i in varying)
    fixed = [i for i in range(mesh.devices.ndim) if i not in varying]
    for place in places:
        if len(place) != size or np.any(place[:, fixed] != place[0, fixed]):
            return ()
    return tuple(mesh.axis_names[i] for i in varying)
