"""The curves of a run: what the optimiser saw, how fast it went, how scores moved.

for panel in training_panels(run): panel.title, panel.figure, panel.note
"""

import statistics
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from flanjax.report import svg
from flanjax.report.formats import (
    compact,
    is_number,
    number,
    percent,
    plural,
)
from flanjax.report.headline import METRICS, to_score
from flanjax.report.run_directory import VALIDATION, Run

_ALL = "all"  # Name under which the evaluator gives the loss over all tasks.
_SHOWN_SCORES = {
    "exact_match": "main",
    "exact_match_flexible": "second",
    "choice_accuracy": "third",
}


@dataclass(frozen=True)
class Panel:
    """One small figure.

    Attributes:
      title: what it shows.
      figure: the svg, None when the run has logged nothing to draw.
      note: the number a reader would look for, in words.
      legend: (CSS class, name) of the lines, when there are several.
    """

    title: str
    figure: Markup | None
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def training_panels(run: Run) -> list[Panel]:
    """Loss, validation loss, gradient norm, learning rate, speed and data wait."""
    train = run.of_kind("train")
    marks = resumed(run)
    speed = _points(train, "tokens_per_second")
    wait = _points(train, "data_wait_seconds")
    norm = _points(train, "grad_norm")
    return [
        _loss(_points(train, "loss"), marks),
        _validation(run, marks),
        Panel(
            "Gradient norm",
            _noisy(norm, "gradient norm", marks),
            f"median {number(_median(norm))}" if norm else "",
        ),
        _learning_rate(_points(train, "learning_rate"), marks),
        Panel(
            "Tokens per second",
            _noisy(speed, "tokens per second", marks, from_zero=True),
            _speed_note(train, speed),
        ),
        Panel(
            "Waiting for data, ms per step",
            _noisy(wait, "data wait", marks, scale=1000, from_zero=True),
            _wait_note(train, wait),
        ),
    ]


def resumed(run: Run) -> list[float]:
    """Steps at which the run went on after a stop."""
    return [
        line["step"]
        for line in run.of_kind("event")
        if line["values"].get("event") == "resumed"
    ]


def score_panels(run: Run) -> list[Panel]:
    """Scores of each eval over the evaluated steps, with intervals."""
    names = sorted({name for evals in run.results.values() for name in evals})
    return [panel for name in names if (panel := _score_panel(run, name)).figure]


def _score_panel(run: Run, name: str) -> Panel:
    series, legend = [], []
    for metric, style in _SHOWN_SCORES.items():
        scores = [
            (step, score)
            for step in run.steps
            if (score := to_score(run.results[step].get(name, {}).get(metric)))
        ]
        if scores:
            legend.append((style, METRICS[metric]))
            series.append(
                svg.Series(
                    METRICS[metric],
                    [(step, score.value) for step, score in scores],
                    style,
                    [(step, score.low, score.high) for step, score in scores],
                    dots=True,
                    shift=4.0 * len(series),
                )
            )
    figure = svg.line_chart(
        list(reversed(series)),  # The strict score lies on top.
        title=f"Scores of {name} over steps",
        from_zero=True,
        scale=100,
    )
    return Panel(name, figure, legend=tuple(legend))


def _points(lines: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have a finite value."""
    return [
        (line["step"], line["values"][key])
        for line in lines
        if is_number(line["values"].get(key))
    ]


def _median(points: list[tuple[float, float]]) -> float | None:
    return statistics.median(y for _, y in points) if points else None


def _window(points: list[tuple[float, float]]) -> int:
    return max(3, len(points) // 20)


def _noisy(
    points: list[tuple[float, float]], name: str, marks: list[float], **options: Any
) -> Markup | None:
    """A faint line of every value under a smoothed one."""
    series = [svg.Series(name, svg.thin(points), "raw")]
    if len(points) >= 8:
        series.append(
            svg.Series(
                f"{name}, smoothed", svg.thin(svg.smooth(points, _window(points)))
            )
        )
    else:
        series = [svg.Series(name, points, dots=True)]
    return svg.line_chart(series, title=name, marks=marks, **options)


def _loss(points: list[tuple[float, float]], marks: list[float]) -> Panel:
    note = ""
    if points:
        ends = svg.smooth(points, _window(points))
        note = f"{number(ends[0][1])} → {number(ends[-1][1])} nats per target token"
    return Panel("Training loss", _noisy(points, "training loss", marks), note)


def _learning_rate(points: list[tuple[float, float]], marks: list[float]) -> Panel:
    figure = svg.line_chart(
        [svg.Series("learning rate", svg.thin(points))],
        title="learning rate",
        marks=marks,
        from_zero=True,
    )
    peak = max((y for _, y in points), default=None)
    return Panel("Learning rate", figure, f"peak {number(peak)}" if points else "")


def validation_losses(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Task -> (step, loss per target token) on its validation split."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for line in run.of_kind(VALIDATION):
        for key, value in line["values"].items():
            task, _, metric = key.removeprefix(f"{VALIDATION}/").rpartition("/")
            if metric == "loss" and task and is_number(value):
                losses.setdefault(task, []).append((line["step"], value))
    return losses


def _validation(run: Run, marks: list[float]) -> Panel:
    """One thin line per task, and the loss over all their tokens."""
    losses = validation_losses(run)
    whole = losses.pop(_ALL, [])
    series = [svg.Series(task, losses[task], "many") for task in sorted(losses)]
    series.append(svg.Series("all tasks", whole, dots=True))
    figure = None
    if len({step for s in series for step, _ in s.points}) > 1:  # A dot is no curve.
        figure = svg.line_chart(series, title="validation loss per task", marks=marks)
    note = ""
    if whole:
        note = (
            f"{plural(len(losses), 'task')} together "
            f"{number(whole[0][1])} → {number(whole[-1][1])}"
        )
    legend = (("main", "all tasks together"), ("many", "one task"))
    return Panel("Validation loss", figure, note, legend if figure else ())


def _speed_note(train: list[dict[str, Any]], speed: list[tuple[float, float]]) -> str:
    if not speed:
        return ""
    note = f"median {compact(_median(speed))}"
    mfu = _median(_points(train, "mfu"))
    note += f", MFU {percent(mfu)} %" if mfu is not None else ""
    goodput = _points(train, "goodput")
    return note + (f", goodput {percent(goodput[-1][1])} %" if goodput else "")


def _wait_note(train: list[dict[str, Any]], wait: list[tuple[float, float]]) -> str:
    """How much of the time the accelerator stood still for data."""
    spent = sum(y for _, y in _points(train, "step_seconds"))
    if not wait or not spent:
        return ""
    return f"{percent(sum(y for _, y in wait) / spent)} % of the step time"
