"""Looks at the lengths of prepared data before a training step is spent on it.

    for row in check_lengths(resolved, store_dir, layout):
        print(row["task"], row["inputs_truncated"])     # boolq_zs_opt 0.013

Over-length examples are truncated, as in SeqIO, and nobody sees it in a loss curve: a
few-shot prompt cut at its end has lost its question. So more of it than a threshold is
an error that names the tasks.
"""

import os

from flanjax.data.layout import Layout
from flanjax.data.plan import PlanMember
from flanjax.data.store import ResolvedMixture, plan_members
from flanjax.errors import DataError

_CHECKS = {
    "inputs_truncated": "inputs truncated",
    "targets_truncated": "targets truncated",
    "targets_empty": "empty targets",
    "inputs_empty": "empty inputs",
}
_LISTED = 20


def check_lengths(
    resolved: ResolvedMixture,
    store_dir: str | os.PathLike,
    layout: Layout,
    threshold: float = 0.1,
) -> list[dict]:
    """Reports per task how many examples do not fit or are empty.

    Args:
      resolved: the prepared mixture; its training members are looked at.
      store_dir: its store.
      layout: decides the room for inputs and targets.
      threshold: fraction of a task's examples; 1 never stops.

    Returns:
      One row per task: task, examples, longest_inputs and longest_targets (tokens), and
      the fractions inputs_truncated, targets_truncated, targets_empty, inputs_empty.

    Raises:
      DataError: some fraction of some task is above the threshold; names all of them.
    """
    members = plan_members(resolved.members, store_dir)
    rows = [report(member, layout) for member in members]
    bad = [
        f"{row['task']}: {row[check]:.1%} {words} of {row['examples']} examples"
        for row in rows
        for check, words in _CHECKS.items()
        if row[check] > threshold
    ]
    if bad:
        shown = bad[:_LISTED] + [f"and {len(bad) - _LISTED} more"] * (
            len(bad) > _LISTED
        )
        raise DataError(
            f"tasks with more than {threshold:.0%} bad examples: " + "; ".join(shown),
            where=f"room for {layout.inputs_room} inputs tokens and "
            f"{layout.targets_room} targets tokens",
            fix="raise TASK_FEATURE_LENGTHS, lower the few-shot token budget, leave "
            "the tasks out, or raise the threshold",
        )
    return rows


def report(member: PlanMember, layout: Layout) -> dict:
    """Returns one task's row of `check_lengths`."""
    inputs, targets = member.lengths[:, 0], member.lengths[:, 1]
    return {
        "task": member.name,
        "examples": len(inputs),
        "longest_inputs": int(inputs.max(initial=0)),
        "longest_targets": int(targets.max(initial=0)),
        "inputs_truncated": _fraction(inputs > layout.inputs_room),
        "targets_truncated": _fraction(targets > layout.targets_room),
        "targets_empty": _fraction(targets == 0),
        "inputs_empty": _fraction(inputs == 0),
    }


def _fraction(mask) -> float:
    return float(mask.mean()) if len(mask) else 0.0
