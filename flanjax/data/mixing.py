"""From rates to shares: how much of a run each task of a mixture makes up.

    seqio.MixtureRegistry.add("mix", [
        ("boolq_zs_opt", examples_proportional(cap=30_000)),
        ("piqa_zs_opt", examples_proportional(cap=30_000))])

A rate is relative to its siblings, a share is of the whole run and all shares sum to 1.
A nested mixture is normalised inside: its parent's rate for it is divided among its
members, as SeqIO does. A cap limits how many examples count for the rate, not which
ones are used: a task with more examples than its cap is used at the cap's rate, other
examples each epoch.
"""

import dataclasses
import math
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from flanjax.errors import ConfigError, DataError, nearest

_counted: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class ExamplesRate:
    """A rate from a task's number of examples: min(examples, cap)^(1/temperature).

    A SeqIO rate function: called with a Task it asks its source for the number; when a
    mixture is prepared, the number of prepared examples is used instead.
    """

    cap: int | None = None
    temperature: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0 or (self.cap is not None and self.cap < 1):
            raise ConfigError(
                f"bad rate: cap {self.cap}, temperature {self.temperature}",
                fix="both must be positive",
            )

    def of(self, num_examples: int) -> float:
        """Returns the rate of a task with this many examples."""
        counted = num_examples if self.cap is None else min(num_examples, self.cap)
        return float(counted) ** (1 / self.temperature)

    def __call__(self, task: Any) -> float:
        """Returns the rate of a SeqIO Task; its examples are counted once a process.

        SeqIO asks for the rates of all of a mixture's tasks anew for each of them.
        """
        if task not in _counted:
            _counted[task] = task.num_input_examples("train")
        return self.of(_counted[task])


def examples_proportional(cap: int | None = None) -> ExamplesRate:
    """Returns T5's examples-proportional rate: min(examples, cap)."""
    return ExamplesRate(cap)


def temperature_scaled(temperature: float, cap: int | None = None) -> ExamplesRate:
    """Returns T5's temperature-scaled rate; a high temperature evens tasks out."""
    return ExamplesRate(cap, temperature)


@dataclasses.dataclass(frozen=True)
class CollectionRate:
    """A collection's rate in a mixture of collections, and the cap of its tasks."""

    rate: float
    cap: int

    @property
    def task_rate(self) -> ExamplesRate:
        """Rate of the tasks inside the collection."""
        return examples_proportional(self.cap)


# The paper's Table 23, and the public release's `flan2022_submix`:
# https://arxiv.org/abs/2210.11416
# https://github.com/google-research/FLAN/blob/main/flan/v2/run_example.py
FLAN_RATES: dict[str, dict[str, CollectionRate]] = {
    "proportion_a": {
        "muffin": CollectionRate(0.52, 30_000),
        "t0_sf": CollectionRate(0.15, 20_000),
        "cot": CollectionRate(0.03, 100_000),
        "niv2": CollectionRate(0.30, 5_000),
    },
    "proportion_b": {
        "muffin": CollectionRate(0.460, 30_000),
        "t0_sf": CollectionRate(0.279, 20_000),
        "cot": CollectionRate(0.018, 100_000),
        "niv2": CollectionRate(0.242, 5_000),
    },
    "flan2022": {
        "flan2021": CollectionRate(0.40, 30_000),
        "t0": CollectionRate(0.32, 20_000),
        "niv2": CollectionRate(0.20, 5_000),
        "cot": CollectionRate(0.05, 100_000),
        "dialog": CollectionRate(0.03, 200_000),
    },
}


@dataclasses.dataclass(frozen=True)
class Node:
    """A mixture with its children, or a task.

    Attributes:
      name: of the mixture or task.
      rate: inside the parent: a number, an `ExamplesRate`, or another function of
        `task`.
      children: empty for a task.
      task: what a foreign rate function is called with.
    """

    name: str
    rate: float | ExamplesRate | Callable[[Any], float] = 1.0
    children: tuple["Node", ...] = ()
    task: Any = None

    def tasks(self) -> list["Node"]:
        """Returns the tasks at the leaves, each name once."""
        if not self.children:
            return [self]
        found = [task for child in self.children for task in child.tasks()]
        return list({task.name: task for task in found}.values())


class Registry(Protocol):
    """What is asked of SeqIO's TaskRegistry and MixtureRegistry."""

    def names(self) -> Collection[str]:
        """Names of what is registered."""
        ...

    def get(self, name: str) -> Any:
        """The task or mixture of a name."""
        ...


def read_tree(name: str, tasks: Registry, mixtures: Registry) -> Node:
    """Reads a registered mixture or task as a tree of rates.

    Members are looked up by name, so that a mixture registered anew counts with its
    new members wherever it is named; SeqIO would go on with the old ones.

    Args:
      name: of a mixture or task.
      tasks: `seqio.TaskRegistry`.
      mixtures: `seqio.MixtureRegistry`.

    Raises:
      ConfigError: an unknown name, a mixture that holds itself, or one that is empty
        on purpose (`add_empty_mixture`).
    """
    return _read(name, 1.0, (), tasks, mixtures)


def _read(
    name: str,
    rate: Any,
    above: tuple[str, ...],
    tasks: Registry,
    mixtures: Registry,
) -> Node:
    where = f"mixture '{above[-1]}'" if above else None
    if name in above:
        cycle = " > ".join([*above[above.index(name) :], name])
        raise ConfigError(
            f"mixture '{name}' holds itself: {cycle}",
            where=where,
            fix=f"leave '{name}' out of '{above[-1]}'",
        )
    if name in tasks.names():
        return Node(name, rate, task=tasks.get(name))
    if name in _EMPTY:
        raise ConfigError(
            f"mixture '{name}' has no tasks", where=where, fix=_EMPTY[name]
        )
    if name not in mixtures.names():
        known = [*mixtures.names(), *tasks.names()]
        raise ConfigError(
            f"unknown mixture or task '{name}'.{nearest(name, known)}",
            where=where,
            fix="name one that a module of `mixture_modules` registers",
        )
    rates = mixtures.get(name).rate_per_task_name
    below = (*above, name)
    children = [_read(c, r, below, tasks, mixtures) for c, r in rates.items()]
    return Node(name, rate, tuple(children))


_EMPTY: dict[str, str] = {}


def add_empty_mixture(name: str, instead: str) -> None:
    """Names a mixture that is empty on purpose; asking for it says what to do instead.

    SeqIO has no mixture without tasks.
    """
    _EMPTY[name] = instead


def checked_members(
    name: str, members: Iterable[tuple[str, Any]], registered: Collection[str] = ()
) -> list[tuple[str, Any]]:
    """Returns a mixture's members, as `seqio.MixtureRegistry.add` takes them.

    Args:
      name: of the mixture.
      members: (task or mixture, rate) pairs.
      registered: names of the mixtures there are.

    Raises:
      ConfigError: a member comes twice, of which SeqIO would silently use the last
        only, there is none, or the name is taken.
    """
    members = list(members)
    names = [member for member, _ in members]
    if name in registered:
        raise ConfigError(
            f"a mixture named '{name}' exists already", fix="choose another name"
        )
    if not members:
        raise ConfigError(f"mixture '{name}' has no members", fix="give it some")
    twice = next((n for n, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(
            f"'{twice}' comes twice in mixture '{name}'",
            where=f"mixture '{name}'",
            fix="name it once, with the sum of both rates",
        )
    return members


@dataclasses.dataclass(frozen=True)
class TaskShare:
    """A task's rate in its parent, share of the run, and cap."""

    name: str
    rate: float
    share: float
    cap: int | None


def resolve_shares(root: Node, examples: Mapping[str, int]) -> list[TaskShare]:
    """Turns a tree of rates into shares.

    Args:
      root: a mixture, or a single task.
      examples: prepared examples by task; tasks not in it are left out, and their
        siblings share what they would have had.

    Returns:
      One TaskShare per task, in the tree's order. A task in several sub-mixtures
      appears once, with the sum of its rates and shares.

    Raises:
      DataError: a rate is zero, negative or not a number, or nothing is left.
    """
    found: dict[str, TaskShare] = {}

    def walk(node: Node, rate: float, share: float) -> None:
        if not node.children:
            before = found.get(node.name, TaskShare(node.name, 0.0, 0.0, None))
            cap = node.rate.cap if isinstance(node.rate, ExamplesRate) else before.cap
            found[node.name] = TaskShare(
                node.name, before.rate + rate, before.share + share, cap
            )
            return
        children = [
            c for c in node.children if any(t.name in examples for t in c.tasks())
        ]
        rates = [_rate(child, node, examples) for child in children]
        for child, value in zip(children, rates, strict=True):
            walk(child, value, share * value / sum(rates))

    if not any(task.name in examples for task in root.tasks()):
        raise DataError(
            f"no task of mixture '{root.name}' has examples",
            fix="fetch the data its tasks read",
        )
    walk(root, 1.0, 1.0)
    return list(found.values())


def _rate(child: Node, parent: Node, examples: Mapping[str, int]) -> float:
    where = f"'{child.name}' in mixture '{parent.name}'"
    rate = child.rate
    if callable(rate) and child.children:
        raise DataError(
            "the rate of a mixture inside a mixture must be a number", where=where
        )
    if isinstance(rate, ExamplesRate):
        rate = rate.of(examples[child.name])
    elif callable(rate):
        try:
            rate = rate(child.task)
        except Exception as error:
            raise DataError(
                f"the rate function failed: {error}",
                where=where,
                fix="use a number or flanjax.data.mixing.examples_proportional(cap)",
            ) from error
    rate = float(rate)
    if not (rate > 0 and math.isfinite(rate)):
        raise DataError(
            f"rate is {rate}",
            where=where,
            fix="give it a positive rate, or leave it out of the mixture",
        )
    return rate
