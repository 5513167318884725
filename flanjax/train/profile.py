"""`flanjax train --profile`: a trace of a few steps, and in words where they spent it.

    profiler = Profiler(run_dir / "profile", 3, 5, train_step.lower, print)
    profiler.step(step, state, features)   # before every step; starts and stops itself
    profiler.close(state)

The trace is `jax.profiler`'s (open the folder in XProf or TensorBoard). `summary.txt`
beside it needs no viewer: the share of each part of the model, forward and backward,
and the longest operations.
"""

import collections
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

_LISTED = 25
# Operations that only contain others: their time is the sum of what is inside.
_CONTAINERS = ("while", "call", "conditional", "tuple", "parameter")
# Names in an operation's path that are JAX's or a method's, not a module's.
_NO_MODULE = re.compile(
    r"(jit|jvp|transpose|vmap|pjit|remat|checkpoint|closed_call|while|body|cond"
    r"|eval_jaxpr|layers(_\d+)?)\b|.*[.,>]"
)


@dataclass(frozen=True)
class Timed:
    """One compiled operation: how long it took in all, and how often it ran."""

    name: str
    seconds: float
    calls: int


class Profiler:
    """Traces `steps` steps from step `first` on; does nothing when `steps` is 0.

    Args:
      directory: where the trace and its summary go.
      first: step before which the trace starts; the one that compiles is no use.
      steps: how many are traced.
      lower: lowers the step for (state, features) by their shapes; its compiled text
        says what each operation is. Called once, when the trace is complete.
      say: told where the trace lies.
    """

    def __init__(
        self,
        directory: Path,
        first: int,
        steps: int,
        lower: Callable[..., Any],
        say: Callable[[str], None],
    ):
        self._directory, self._first, self._steps = directory, first, steps
        self._lower, self._say = lower, say
        self._started: int | None = None
        self._arguments: Any = None

    def step(self, step: int, state: Any, features: Any) -> None:
        """Starts or stops the trace where it is due, with the device idle."""
        if self._steps and step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._directory))
            self._started = step
            self._arguments = jax.tree.map(_abstract, (state, features))
        elif self._started is not None and step >= self._first + self._steps:
            self._stop(step, state)

    def close(self, state: Any) -> None:
        """Ends a trace that a run shorter than asked for left open."""
        if self._started is not None:
            self._stop(int(state.step), state)

    def _stop(self, step: int, state: Any) -> None:
        assert self._started is not None
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        count, self._started = step - self._started, None
        program = self._lower(*self._arguments).compile().as_text()
        text = summary(read_trace(self._directory), program, count)
        (self._directory / "summary.txt").write_text(text, encoding="utf-8")
        self._say(f"profile of {count} steps: {self._directory}/summary.txt")


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def read_trace(directory: Path) -> list[Timed]:
    """Returns the compiled operations of the newest trace below `directory`.

    Devices of one process are added up: on one device the sum is its busy time.
    """
    file = str(max(directory.glob("plugins/profile/*/*.xplane.pb")))
    seconds: dict[str, float] = collections.defaultdict(float)
    calls: collections.Counter[str] = collections.Counter()
    with warnings.catch_warnings():
        # jaxlib's type of the statistics has no __module__, and says so.
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, nanoseconds in _operations(jax.profiler.ProfileData.from_file(file)):
            if not name.startswith(_CONTAINERS):
                seconds[name] += nanoseconds / 1e9
                calls[name] += 1
    return [Timed(name, spent, calls[name]) for name, spent in _longest(seconds)]


def _longest(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _operations(trace: Any) -> Iterable[tuple[str, float]]:
    """(operation, nanoseconds) of every run of a compiled operation."""
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                if line.name == "XLA Ops":  # Accelerators have a line of their own.
                    yield event.name.split(" ")[0].lstrip("%"), event.duration_ns
                elif operation := dict(event.stats).get("hlo_op"):
                    yield str(operation), event.duration_ns


def summary(operations: list[Timed], program: str, steps: int) -> str:
    """Two tables: parts of the model, and the longest operations.

    Args:
      operations: as `read_trace` gives them.
      program: text of the compiled step; operations it does not name (on the host,
        or of other programs) are put under "other".
      steps: how many steps were traced.
    """
    scopes = dict(
        re.findall(
            r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', program, re.MULTILINE
        )
    )
    total = sum(timed.seconds for timed in operations) or 1.0
    parts: dict[str, float] = collections.defaultdict(float)
    for timed in operations:
        parts[part(scopes.get(timed.name, ""))] += timed.seconds
    lines = [
        f"{steps} steps; {1000 * total / steps:.1f} ms of operations a step, added up "
        "over the threads and devices of this process",
        "",
        "share   ms/step  part",
    ]
    lines += [
        f"{spent / total:6.1%} {1000 * spent / steps:9.2f}  {name}"
        for name, spent in _longest(parts)[:_LISTED]
    ]
    lines += ["", "share   ms/step  calls/step  operation"]
    lines += [
        f"{timed.seconds / total:6.1%} {1000 * timed.seconds / steps:9.2f} "
        f"{timed.calls / steps:11.1f}  {timed.name}  {scopes.get(timed.name, '')}"
        for timed in operations[:_LISTED]
    ]
    return "\n".join(lines) + "\n"


def part(op_name: str) -> str:
    """The part of the model an operation belongs to, and the direction.

    "jit(step)/transpose(jvp(T5))/decoder/layers/mlp/wi_0/dot_general" is
    "decoder/mlp/wi_0 backward".
    """
    names = [n for n in op_name.split("/")[:-1] if not _NO_MODULE.match(n)]
    if not op_name:
        return "other"
    backward = " backward" if "transpose(" in op_name else ""
    return ("/".join(names[:3]) or "outside the model") + backward
