"""Looks for settings with which a run fits its devices, by the memory estimate.

    for change in changes_that_fit(config, devices, limit):
        print(change.flags, change.estimate.peak)

Changes are tried from the cheapest in time to the dearest; none changes the results.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flanjax.config import RunConfig
from flanjax.errors import ConfigError
from flanjax.models.layers import REMAT_POLICIES
from flanjax.ops.memory import Estimate, estimate_memory
from flanjax.ops.preflight_compile import build

# The estimate is within a tenth of what compilation finds.
MARGIN = 0.9
_MOST_TENSOR = 16


@dataclasses.dataclass(frozen=True)
class Change:
    """Settings that would fit.

    Attributes:
      kinds: which of "remat", "microbatches" and "mesh" it changes.
      flags: of the command line.
      estimate: memory with them.
    """

    kinds: tuple[str, ...]
    flags: tuple[str, ...]
    estimate: Estimate


class _Option:
    """One setting of one kind."""

    def __init__(self, kind: str, flags: Sequence[str], change: Callable[..., Any]):
        self.kind, self.flags, self.change = kind, tuple(flags), change


def changes_that_fit(
    config: RunConfig, devices: Sequence[Any], limit: int
) -> list[Change]:
    """Returns the least change of each kind that fits, or else of several together.

    Args:
      config: of a run that does not fit.
      devices: of its mesh.
      limit: bytes of one device.

    Returns:
      Changes of one kind each, cheapest first, if any does; else one that combines
      kinds; empty when nothing tried fits.
    """
    kinds = [_remat(config), _microbatches(config), _meshes(config, len(devices))]
    found = []
    for options in kinds:
        found += itertools.islice(_fitting(config, devices, limit, options), 1)
    if found:
        return found
    pairs = [
        pair
        for first, second in itertools.combinations(kinds, 2)
        for pair in _together(first, second)
    ]
    triples = _together(_together(kinds[0][-1:], kinds[1]), kinds[2])
    return list(itertools.islice(_fitting(config, devices, limit, pairs + triples), 1))


def _fitting(config, devices, limit, options) -> Iterator[Change]:
    for option in options:
        try:
            estimate = estimate_memory(build(option.change(config), devices))
        except ConfigError:
            continue  # Heads, lengths or the batch do not divide.
        if estimate.peak <= MARGIN * limit:
            yield Change(tuple(option.kind.split("+")), option.flags, estimate)


def _together(first: list[_Option], second: list[_Option]) -> list[_Option]:
    return [
        _Option(
            f"{a.kind}+{b.kind}",
            a.flags + b.flags,
            lambda config, a=a, b=b: b.change(a.change(config)),
        )
        for a, b in itertools.product(first, second)
    ]


def _remat(config: RunConfig) -> list[_Option]:
    """Policies that keep less than the present one."""
    names = list(REMAT_POLICIES)
    prefix = f"--gin.{type(config.model).__name__}.remat_policy="

    def use(name: str) -> _Option:
        def change(config: RunConfig) -> RunConfig:
            model = dataclasses.replace(config.model, remat_policy=name)
            return dataclasses.replace(config, model=model)

        return _Option("remat", [prefix + name], change)

    return [use(name) for name in names[names.index(config.model.remat_policy) + 1 :]]


def _microbatches(config: RunConfig) -> list[_Option]:
    """Twice as many, and so on; `build` refuses what does not divide."""

    def use(count: int) -> _Option:
        return _Option(
            "microbatches",
            [f"--gin.NUM_MICROBATCHES={count}"],
            lambda config: dataclasses.replace(config, microbatches=count),
        )

    most = config.data.batch_size // config.microbatches
    counts = itertools.takewhile(
        lambda n: n <= most, (2**power for power in range(1, 20))
    )
    return [use(count * config.microbatches) for count in counts]


def _meshes(config: RunConfig, devices: int) -> list[_Option]:
    """Parameters over more devices; first without, then with more tensor parallelism.

    Not more rows' parts than rows: FSDP splits the batch too.
    """
    mesh = config.mesh

    def use(fsdp: int, tensor: int) -> _Option:
        changed = dataclasses.replace(mesh, data=-1, fsdp=fsdp, tensor=tensor)
        flags = [
            f"--gin.MeshConfig.{field.name}={getattr(changed, field.name)}"
            for field in dataclasses.fields(mesh)
            if getattr(changed, field.name) != getattr(mesh, field.name)
        ]
        return _Option(
            "mesh", flags, lambda config: dataclasses.replace(config, mesh=changed)
        )

    whole = devices // (mesh.slices * mesh.sequence)
    options = []
    tensor = mesh.tensor
    while tensor <= min(_MOST_TENSOR, whole):
        for fsdp in (whole // tensor, whole // tensor // 2, whole // tensor // 4):
            more = fsdp * tensor > mesh.fsdp * mesh.tensor or tensor > mesh.tensor
            if fsdp and whole % (fsdp * tensor) == 0 and more:
                options.append(use(fsdp, tensor))
        tensor *= 2
    return options
