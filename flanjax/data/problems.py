"""What kept tasks from being prepared, gathered: one line for each cause.

    problems = [Problem("boolq_zs_opt", "train", "no such file", "boolq.jsonl", "...")]
    print(listed(problems))            # ["boolq_zs_opt train: no such file (...)"]

A mixture has thousands of tasks and a missing folder is one mistake, so tasks of one
collection that fail for the same reason share a line, with two of them as examples.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from flanjax.errors import DataError

_EXAMPLES = 2
# What differs from task to task in messages of one cause.
_PARTICULARS = re.compile(r"'[^']*'|[^\s,;]*[/_\d][^\s,;]*")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why one split of a task cannot be prepared.

    Attributes:
      task: SeqIO task name.
      split: of the task.
      what: is wrong.
      where: file:line or the like, or None.
      fix: what to do about it, or None.
      collection: of the task, "" if not known.
      missing: whether the task's data cannot be loaded; otherwise (a process that
        died) leaving it out would change the mixture by accident.
    """

    task: str
    split: str
    what: str
    where: str | None = None
    fix: str | None = None
    collection: str = ""
    missing: bool = True

    @property
    def cause(self) -> tuple[str, str, bool]:
        """Equal for problems that share a line."""
        return self.collection, _PARTICULARS.sub("...", self.gist), self.missing

    @property
    def gist(self) -> str:
        """What is wrong, without the details behind a semicolon or on further lines."""
        return self.what.split("\n")[0].split("; ")[0]


def listed(problems: Iterable[Problem]) -> list[str]:
    """Returns a text for each cause, in the order of their first problems."""
    return [_line(group) for group in _grouped(problems)]


def refusal(problems: Sequence[Problem]) -> DataError:
    """Returns the one error that tells of all problems."""
    groups, tasks = _grouped(problems), len({p.task for p in problems})
    fixes = list(dict.fromkeys(group[0].fix or "repair it" for group in groups))
    if len(fixes) > 1:
        fixes = [f"({number}) {fix}" for number, fix in enumerate(fixes, start=1)]
    if any(problem.missing for problem in problems):
        fixes.append("or leave out what is missing with --allow_missing")
    listing = "\n  ".join(_line(group) for group in groups)
    count = f"{tasks:,} task{'s' * (tasks > 1)} cannot be prepared"
    return DataError(f"{count}:\n  {listing}", fix="; ".join(fixes))


def _grouped(problems: Iterable[Problem]) -> list[list[Problem]]:
    groups: dict[tuple, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.cause, []).append(problem)
    return list(groups.values())


def _line(group: Sequence[Problem]) -> str:
    first = group[0]
    if len(group) == 1:
        return _one(first, first.what)
    tasks = {problem.task: problem for problem in group}
    same = len({problem.gist for problem in group}) == 1
    what = first.gist if same else first.cause[1]
    of = f" of {first.collection}" if first.collection else ""
    count = f"{len(tasks):,} task{'s' * (len(tasks) > 1)}{of}: {what}"
    if len(tasks) == 1:  # Several splits of it.
        count = f"{_one(first, what)} and {len(group) - 1} more of its splits"
        return count
    shown = list(tasks.values())[:_EXAMPLES]
    examples = "; ".join(_one(p, "" if same else p.gist) for p in shown)
    return f"{count}\n    for example {examples}"


def _one(problem: Problem, what: str) -> str:
    name = f"{problem.task} {problem.split}" + (f": {what}" if what else "")
    return f"{name} ({problem.where})" if problem.where else name
