"""Draws report.md and report.html of a run directory.

    write_report("runs/quickstart")    # -> runs/quickstart/report.html

Both are drawn from files only, for runs in any state: going on, interrupted, failed.
report.html is one file that loads nothing (its content security policy forbids it)
and adapts to light and dark, phone and desk. Text that came from data is escaped.
"""

import html
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flanjax import __version__
from flanjax.eval.stats import Score
from flanjax.report import about, curves, formats, samples, trained_on
from flanjax.report.headline import METRICS, Headline, direction, summarise
from flanjax.report.intervals import Lane, interval_chart
from flanjax.report.run_directory import Run, read_run

TEMPLATES = Path(__file__).parent / "templates"
_EXPLAINED = {
    "exact_match": "counts an answer only in the exact form asked for.",
    "exact_match_flexible": "looks for the answer anywhere in the output and ignores "
    "case, articles and punctuation.",
    "choice_accuracy": "asks which option the model finds most likely (per token), "
    "whatever it would write.",
    "number_match": "compares the number in the output with the gold number.",
    "f1": "is the overlap of words between answer and gold.",
    "parse_failures": "is the share of outputs in which no answer was found; lower is "
    "better.",
}


@dataclass(frozen=True)
class Card:
    """A mean gain over so many evals; `tone` is "up" (better), "down" or ""."""

    label: str
    evals: int
    before: float | None
    after: float | None
    gain: Score
    tone: str


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Writes report.md and report.html into the run directory.

    Args:
      run_dir: a run directory in any state; missing files make sections that say so.

    Returns:
      The path of report.html.

    Raises:
      OSError: the directory does not exist or cannot be written.
    """
    directory = Path(run_dir)
    for name, text in zip(("report.md", "report.html"), _draw(directory), strict=True):
        _replace(directory / name, text)
    return directory / "report.html"


def _draw(directory: Path) -> tuple[str, str]:
    """Markdown and HTML of the report.

    It is written at the end of runs that fail, too: a report that cannot be drawn must
    not hide the run's own error, so its traceback becomes the report.
    """
    try:
        return draw(read_run(directory))
    except Exception:
        text = f"The report could not be drawn.\n\n{traceback.format_exc()}"
        return _fence(text), f"<!doctype html><pre>{html.escape(text)}</pre>\n"


def draw(run: Run) -> tuple[str, str]:
    """The report of a run as Markdown and as HTML."""
    content, environment = _content(run), page_environment()
    markdown = environment.get_template("report.md.j2").render(content)
    page = environment.get_template("report.html.j2").render(content)
    return re.sub(r"\n{3,}", "\n\n", markdown), page


def style_sheet(*names: str) -> str:
    """The named style sheets of the package, joined."""
    return "\n".join((TEMPLATES / f"{name}.css").read_text("utf-8") for name in names)


def _replace(path: Path, text: str) -> None:
    """Writes beside `path` and moves it there: a reader never sees half a page."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def page_environment() -> jinja2.Environment:
    """Returns what draws the package's templates, everything in them escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": formats.percent,
        "points": formats.points,
        "number": formats.number,
        "integer": formats.integer,
        "duration": formats.duration,
        "direction": direction,
        "truncation": trained_on.truncation,
        "cell": _cell,
        "code": _code,
        "fence": _fence,
        "value": lambda score: formats.percent(score.value if score else None),
        "gain": _gain,
    }
    return environment


def _content(run: Run) -> dict[str, Any]:
    """Everything both templates read."""
    headline = summarise(run)
    datasets = trained_on.by_dataset(run.ledger)
    totals = [dataset.total for dataset in datasets]
    tasks = [task for dataset in datasets for task in dataset.tasks]
    return {
        "run": run,
        "version": __version__,
        "css": Markup(style_sheet("palette", "page", "figures")),
        "title": about.title(run),
        "state": about.state(run),
        "message": str(run.status.get("message") or ""),
        "started": about.started(run),
        "overview": about.overview(run),
        "problems": run.problems,
        "why": _why(run),
        "headline": headline,
        "names": METRICS,
        "explained": _EXPLAINED,
        "cards": cards(headline),
        "mean": lambda metric, side: mean(headline, metric, side),
        "figure": interval_chart(
            lanes(headline), title="strict exact match of each eval, 95 % intervals"
        ),
        "dots": legend(headline),
        "resumed": curves.resumed(run),
        "training": curves.training_panels(run),
        "score_panels": curves.score_panels(run) if len(run.steps) > 1 else [],
        "validation": curves.validation_losses(run),
        "datasets": datasets,
        "share_bar": trained_on.share_bar,
        "widest": trained_on.widest(totals),
        "many_epochs": trained_on.MANY_EPOCHS,
        "repeated": trained_on.repeated_tasks(run.ledger),
        "truncated": trained_on.truncated_tasks(run.ledger),
        "counted_truncation": any(t.inputs_truncated is not None for t in tasks),
        "cut_prompts": [row for row in headline.rows if row.truncated],
        "unfinished": [row for row in headline.rows if row.unfinished],
        "samples": samples.collect(run, headline),
        "times": about.times(run),
        "events": about.events(run),
        "reproduce": about.reproduce(run),
        "settings": about.key_settings(run),
        "environment": about.environment_facts(run),
    }


def _why(run: Run) -> Callable[[str, str], str]:
    """Sentence for a section without content: what is missing, and why."""

    def why(name: str, sentence: str) -> str:
        problem = run.problems.get(name)
        return f"{sentence} ({name} {problem})" if problem else sentence

    return why


def mean(headline: Headline, metric: str, side: str) -> float | None:
    """Mean score over the evals of the mean gain, or over all that have the score."""
    sides = ("before", "after") if headline.before_step is not None else ("after",)
    values = [
        getattr(row, side)[metric].value
        for row in headline.rows
        if all(metric in getattr(row, s) for s in sides)
        and (metric in row.gains or metric not in headline.gains)
    ]
    return sum(values) / len(values) if values else None


def cards(headline: Headline) -> list[Card]:
    """The mean gains, one card per metric."""
    made = []
    for metric, gain in headline.gains.items():
        way = direction(gain)
        better = "down" if metric == "parse_failures" else "up"
        made.append(
            Card(
                METRICS[metric],
                sum(metric in row.gains for row in headline.rows),
                mean(headline, metric, "before"),
                mean(headline, metric, "after"),
                gain,
                "" if way == "flat" else "up" if way == better else "down",
            )
        )
    return made


def lanes(headline: Headline) -> list[Lane]:
    """The first metric, strict exact match, of every eval that has it."""
    metric = headline.metrics[0] if headline.metrics else ""
    return [
        Lane(
            row.name,
            row.before.get(metric),
            row.after.get(metric),
            row.gains.get(metric),
            row.chance,
        )
        for row in headline.rows
        if metric in row.before or metric in row.after
    ]


def legend(headline: Headline) -> list[tuple[str, str]]:
    """(style, meaning) of what the before/after figure draws."""
    items = [("after", f"step {headline.after_step}")]
    if headline.before_step is not None:
        items = [
            ("before", f"before (step {headline.before_step})"),
            ("after", f"after (step {headline.after_step})"),
        ]
    items.append(("interval", "95 % interval"))
    if any(row.chance is not None for row in headline.rows):
        items.append(("chance", "guessing among the options"))
    return items


def _cell(text: Any) -> Markup:
    """Text in a Markdown table or list: on one line, no markup of its own."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    return Markup(re.sub(r"([\\`*_\[\]|])", r"\\\1", escaped))  # noqa: S704


def _code(text: Any) -> Markup:
    """Text as a code span on one line; "nothing" when there is none.

    Markup inside a code span is inert in Markdown; a pipe would still end a table
    cell, so it is shown as the look-alike U+2502.
    """
    line = " ".join(str(text if text is not None else "").split()).replace("|", "│")
    if not line:
        return Markup("_nothing_")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return Markup(f"{ticks}{pad}{line}{pad}{ticks}")  # noqa: S704


def _fence(text: Any) -> Markup:
    """Text as a code block whose fence is longer than any inside it."""
    ticks = "`" * max(3, _longest_run(str(text)) + 1)
    return Markup(f"{ticks}text\n{str(text).rstrip()}\n{ticks}")  # noqa: S704


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _gain(score: Score | None) -> str:
    if score is None:
        return formats.MISSING
    return (
        f"{formats.points(score.value)} "
        f"({formats.points(score.low)}, {formats.points(score.high)})"
    )
