"""The held-out scores before and after training, paired question by question.

    headline = summarise(run)
    headline.gains["exact_match"]      # Score(value=0.213, low=0.152, high=0.274, ...)
    headline.meaning                   # one or two sentences for a reader

"Before" is the first evaluated step and "after" the last. A gain and its interval come
from the same questions at both steps (`flanjax.eval.stats.paired_gain`), so they exist
only where both records files do.
"""

import dataclasses
from typing import Any

from flanjax.eval.stats import Score, paired_gain
from flanjax.report.formats import is_number, percent, plural, points
from flanjax.report.run_directory import Run

METRICS = {
    "exact_match": "Strict exact match",
    "exact_match_flexible": "Flexible extraction",
    "choice_accuracy": "Option likelihood",
    "number_match": "Number match",
    "f1": "F1",
    "parse_failures": "Parse failures",
}
STRICT, FLEXIBLE = "exact_match", "exact_match_flexible"


@dataclasses.dataclass(frozen=True)
class EvalRow:
    """One eval at both steps.

    Attributes:
      name: the eval's name.
      kind: its family ("choice", "yes_no", ...), "" when the records do not say.
      n: questions; 0 when unknown.
      before: metric -> Score; empty when only one step was evaluated.
      after: metric -> Score.
      gains: metric -> paired gain.
      chance: strict score of blind guessing among the options; None without options.
      truncated: share of prompts that were cut to fit, None when unknown.
      unfinished: share of answers that ran into the limit of new tokens.
    """

    name: str
    kind: str
    n: int
    before: dict[str, Score]
    after: dict[str, Score]
    gains: dict[str, Score]
    chance: float | None
    truncated: float | None
    unfinished: float | None


@dataclasses.dataclass(frozen=True)
class Headline:
    """All evals, and their mean gains.

    Attributes:
      before_step: first evaluated step; None when only one was.
      after_step: last evaluated step; None when none was.
      rows: one per eval, sorted by kind and name.
      metrics: metrics that any row has, in the order of `METRICS`.
      gains: metric -> mean over evals of the paired gain.
      meaning: what the numbers say, in words.
    """

    before_step: int | None
    after_step: int | None
    rows: list[EvalRow]
    metrics: list[str]
    gains: dict[str, Score]
    meaning: str


def summarise(run: Run) -> Headline:
    """Compares the first with the last evaluated step of a run."""
    steps = run.steps
    before = steps[0] if len(steps) > 1 else None
    after = steps[-1] if steps else None
    rows, pairs = [], {}
    names = sorted({name for step in (before, after) for name in run.scores(step)})
    for name in names:
        row, row_pairs = _row(run, name, before, after)
        rows.append(row)
        for metric, pair in row_pairs.items():
            pairs.setdefault(metric, {})[name] = pair
    rows.sort(key=lambda row: (row.kind, row.name))
    metrics = [m for m in METRICS if any(m in r.before or m in r.after for r in rows)]
    gains = {
        metric: paired_gain(pairs[metric]) for metric in metrics if metric in pairs
    }
    return Headline(before, after, rows, metrics, gains, _meaning(rows, gains))


def to_score(values: Any) -> Score | None:
    """A Score from results.json; None where the entry holds no number."""
    if not isinstance(values, dict) or not is_number(values.get("value")):
        return None
    value = values["value"]

    def known(name: str, otherwise: float) -> float:
        return values[name] if is_number(values.get(name)) else otherwise

    return Score(
        value=value,
        n=int(known("n", 0)),
        stderr=known("stderr", 0.0),
        low=known("low", value),
        high=known("high", value),
    )


def _scores(run: Run, step: int | None, name: str) -> dict[str, Score]:
    entries = run.scores(step).get(name, {})
    scores = {metric: to_score(values) for metric, values in entries.items()}
    return {metric: score for metric, score in scores.items() if score}


def _row(
    run: Run, name: str, before: int | None, after: int | None
) -> tuple[EvalRow, dict[str, tuple[list[float], list[float]]]]:
    """One eval, and its paired values per metric."""
    old, new = run.records(before, name), run.records(after, name)
    pairs = _paired(old, new)
    scores = _scores(run, after, name)
    facts = new or old
    row = EvalRow(
        name=name,
        kind=next((str(r["kind"]) for r in facts if r.get("kind")), ""),
        n=next((score.n for score in scores.values()), 0),
        before=_scores(run, before, name),
        after=scores,
        gains={metric: paired_gain({name: pair}) for metric, pair in pairs.items()},
        chance=_mean([1 / len(r["choices"]) for r in facts if r["choices"]]),
        truncated=_share(facts, "truncated", True),
        unfinished=_share(new, "finished", False),
    )
    return row, pairs


def match(
    old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> list[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """(record before or None, record after) for every record after."""
    known = {_question(record): record for record in old}
    return [(known.get(_question(record)), record) for record in new]


def _question(record: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two records answers to the same question."""
    return tuple(str(record.get(key)) for key in ("index", "row_id", "prompt_hash"))


def _paired(
    old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> dict[str, tuple[list[float], list[float]]]:
    """Per metric the values before and after of the questions in both."""
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for record_before, record_after in match(old, new):
        if record_before is None:
            continue
        first = record_before["scores"]
        for metric, value in record_after["scores"].items():
            if metric in METRICS and metric in first:
                values = pairs.setdefault(metric, ([], []))
                values[0].append(float(first[metric]))
                values[1].append(float(value))
    return pairs


def _share(records: list[dict[str, Any]], key: str, value: bool) -> float | None:
    """Of the records that have the key, how many hold the value."""
    return _mean([float(r[key] is value) for r in records if key in r])


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def direction(gain: Score | None) -> str:
    """Says "up" or "down" when the interval leaves zero out, else "flat"."""
    if gain is None or gain.low <= 0 <= gain.high:
        return "flat"
    return "up" if gain.low > 0 else "down"


def interval(score: Score | None, show: Any = percent) -> str:
    """Both ends in words: "15.2 to 27.4"."""
    return f"{show(score.low)} to {show(score.high)}" if score else ""


def _meaning(rows: list[EvalRow], gains: dict[str, Score]) -> str:
    strict = gains.get(STRICT)
    if strict is None:
        if not rows:
            return ""
        return (
            "Strict exact match counts an answer only in the exact form asked for. "
            "There is no second evaluation yet to compare with, so nothing can be "
            "said about the effect of training."
        )
    counted = [row for row in rows if STRICT in row.gains]
    verb = {"up": "rose", "down": "fell", "flat": "did not change measurably"}
    moved = direction(strict)
    sentences = [
        f"Over {plural(len(counted), 'held-out eval')} "
        f"({plural(strict.n, 'question')}, each answered before and after) "
        f"strict exact match {verb[moved]}: "
        f"{points(strict.value)} points on average, 95 % interval "
        f"{interval(strict, points)}."
    ]
    return " ".join(sentences + _reading(moved, gains))


def _reading(strict: str, gains: dict[str, Score]) -> list[str]:
    """What strict against flexible and likelihood says about what was learnt."""
    sentences = []
    flexible = gains.get(FLEXIBLE)
    if flexible is not None:
        shown = f"{points(flexible.value)} ({interval(flexible, points)})"
        moved = direction(flexible)
        if strict == "up" and moved != "up":
            sentences.append(
                f"Flexible extraction, which forgives the form of an answer, moved by "
                f"{shown}: what was learnt is mostly to answer in the asked form, not "
                "new knowledge."
            )
        elif strict == "up" and flexible.value < 0.5 * gains[STRICT].value:
            sentences.append(
                f"Flexible extraction, which forgives the form of an answer, rose by "
                f"{shown}: less than half of the strict gain is left once form is "
                "forgiven; the rest is learning to answer as asked."
            )
        else:
            sentences.append(
                f"Flexible extraction, which forgives the form of an answer, moved by "
                f"{shown}."
            )
    likelihood = gains.get("choice_accuracy")
    if likelihood is not None:
        sentences.append(
            "Option likelihood, which asks nothing of the form, moved by "
            f"{points(likelihood.value)} ({interval(likelihood, points)})."
        )
    return sentences
