"""What the run was trained on, from the rows of ledger.json.

    for group in by_dataset(run.ledger): group.name, group.total, group.tasks

A row is one SeqIO task. The reader sees datasets first, since a dataset is usually
rendered by several tasks (zero-shot, few-shot, with and without options).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from flanjax.report.formats import is_number, percent

MANY_EPOCHS = 5  # Beyond this a dataset is repeated more than FLAN's authors advise.


@dataclass(frozen=True)
class Share:
    """One line of the table; every number may be None when the run did not say it.

    Attributes:
      name: task or dataset.
      detail: prompt type of a task, collection and category of a dataset.
      rate: relative weight as configured.
      expected, realised: share of the drawn examples, as a fraction.
      tokens: share of the target tokens, which is what the loss sees.
      examples: examples there are.
      drawn: examples drawn so far.
      epochs: passes made so far, else passes planned; of a dataset the largest.
      inputs_truncated, targets_truncated: share of examples that lost tokens.
    """

    name: str
    detail: str
    rate: float | None
    expected: float | None
    realised: float | None
    tokens: float | None
    examples: float | None
    drawn: float | None
    epochs: float | None
    inputs_truncated: float | None
    targets_truncated: float | None

    @property
    def repeated(self) -> bool:
        """True when the epochs are worth a warning."""
        return self.epochs is not None and self.epochs > MANY_EPOCHS


@dataclass(frozen=True)
class Dataset:
    """A dataset: its tasks, their sum, its collection and licence."""

    collection: str
    name: str
    licence: str
    total: Share
    tasks: list[Share]


def by_dataset(ledger: Sequence[dict[str, Any]]) -> list[Dataset]:
    """Groups ledger rows by collection and dataset, sorted by name."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in ledger:
        collection = _text(row, "collection") or "no collection named"
        dataset = _text(row, "dataset") or _text(row, "task")
        groups.setdefault((collection, dataset), []).append(row)
    return [_dataset(*key, groups[key]) for key in sorted(groups)]


def repeated_tasks(ledger: Sequence[dict[str, Any]]) -> list[Share]:
    """Tasks seen more than `MANY_EPOCHS` times, most often first."""
    shares = [share for row in ledger if (share := _task(row)).repeated]
    return sorted(shares, key=lambda share: -(share.epochs or 0))


def truncated_tasks(ledger: Sequence[dict[str, Any]]) -> list[Share]:
    """Tasks of which some example lost tokens, worst first."""
    shares = [_task(row) for row in ledger]
    lost = {
        s.name: max(s.inputs_truncated or 0.0, s.targets_truncated or 0.0)
        for s in shares
    }
    return sorted((s for s in shares if lost[s.name]), key=lambda s: -lost[s.name])


def share_bar(share: Share, widest: float) -> Markup:
    """A bar for the realised share (the expected one without it) and its target."""
    parts = [Markup('<svg class="share" width="72" height="10" aria-hidden="true">')]
    drawn = share.realised if share.realised is not None else share.expected
    if drawn is not None and widest > 0:
        parts.append(
            Markup('<rect class="bar" y="1" height="8" width="{:.1f}%"/>').format(
                100 * drawn / widest
            )
        )
    if share.expected is not None and widest > 0:
        x = min(98.5, 100 * share.expected / widest)
        parts.append(
            Markup(
                '<rect class="target" y="0" height="10" width="1.5" x="{:.1f}%"/>'
            ).format(x)
        )
    return Markup("").join(parts) + Markup("</svg>")


def widest(shares: Sequence[Share]) -> float:
    """The largest share, the full width of the bars."""
    return max(
        (v for s in shares for v in (s.expected, s.realised) if v is not None),
        default=0.0,
    )


def _dataset(collection: str, name: str, rows: list[dict[str, Any]]) -> Dataset:
    tasks = [_task(row) for row in rows]
    licences = sorted({_text(row, "licence") for row in rows} - {""})
    categories = sorted({_text(row, "category") for row in rows} - {""})
    epochs = [task.epochs for task in tasks if task.epochs is not None]
    total = Share(
        name=name,
        detail=", ".join(categories),
        rate=_sum(tasks, "rate"),
        expected=_sum(tasks, "expected"),
        realised=_sum(tasks, "realised"),
        tokens=_sum(tasks, "tokens"),
        examples=_sum(tasks, "examples"),
        drawn=_sum(tasks, "drawn"),
        epochs=max(epochs, default=None),
        inputs_truncated=_mean(tasks, "inputs_truncated"),
        targets_truncated=_mean(tasks, "targets_truncated"),
    )
    return Dataset(collection, name, ", ".join(licences), total, tasks)


def _task(row: dict[str, Any]) -> Share:
    examples = _number(row, "examples")
    drawn = _number(row, "realised_examples")
    epochs = _number(row, "epochs")
    if drawn is not None and examples:
        epochs = drawn / examples
    return Share(
        name=_text(row, "task"),
        detail=_text(row, "prompt_type"),
        rate=_number(row, "rate"),
        expected=_number(row, "share"),
        realised=_number(row, "realised_share"),
        tokens=_number(row, "token_share"),
        examples=examples,
        drawn=drawn,
        epochs=epochs,
        inputs_truncated=_number(row, "inputs_truncated"),
        targets_truncated=_number(row, "targets_truncated"),
    )


def _text(row: dict[str, Any], key: str) -> str:
    return str(row.get(key) or "")


def _number(row: dict[str, Any], key: str) -> float | None:
    return row[key] if is_number(row.get(key)) else None


def _sum(tasks: Sequence[Share], name: str) -> float | None:
    values = [v for task in tasks if (v := getattr(task, name)) is not None]
    return sum(values) if values else None


def _mean(tasks: Sequence[Share], name: str) -> float | None:
    """Mean over a dataset's tasks, weighted by their examples."""
    known = [
        (value, task.examples or 1)
        for task in tasks
        if (value := getattr(task, name)) is not None
    ]
    weight = sum(w for _, w in known)
    return sum(v * w for v, w in known) / weight if known else None


def truncation(share: Share) -> str:
    """In words: "inputs 1.2 %, targets 0.0 %"."""
    return (
        f"inputs {percent(share.inputs_truncated)} %, "
        f"targets {percent(share.targets_truncated)} %"
    )
