"""Errors a user can cause, and the exit status of each kind.

    raise DataError(
        "row has no field 'question'",
        where="train.jsonl:17",
        fix="add the field, or map it in the source's `fields` function",
    )

prints as one message that says what, where and how to fix it. Launch scripts rely on
the exit status: 0 done, 2 bad configuration or usage, 3 bad or missing data,
4 numerical failure, 5 bad checkpoint, 75 preempted and saved (run it again).
"""

import difflib
from collections.abc import Iterable

EXIT_PREEMPTED = 75


class UserError(Exception):
    """An error with a cause the user can mend.

    Args:
      what: one sentence, what is wrong.
      where: file:line, task, row, parameter or setting it was found in.
      fix: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None):
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class ConfigError(UserError):
    """Bad configuration or usage (exit status 2)."""

    exit_code = 2


class DataError(UserError):
    """Bad or missing data (exit status 3)."""

    exit_code = 3


class NumericalError(UserError):
    """Non-finite loss or gradients beyond the allowance (exit status 4)."""

    exit_code = 4


class CheckpointError(UserError):
    """No usable checkpoint, or one that does not fit (exit status 5)."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest known name, or ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
