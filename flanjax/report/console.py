"""The before/after table that a finished run prints.

    print_summary("runs/quickstart", rich.console.Console())
"""

import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flanjax.eval.stats import Score
from flanjax.report.formats import MISSING, integer, percent, points
from flanjax.report.headline import (
    METRICS,
    STRICT,
    EvalRow,
    Headline,
    direction,
    summarise,
)
from flanjax.report.run_directory import read_run

_SHORT = {
    "exact_match_flexible": "flexible",
    "choice_accuracy": "likelihood",
    "number_match": "number",
    "f1": "F1",
    "parse_failures": "no answer",
}


def print_summary(run_dir: str | os.PathLike[str], console: Console) -> None:
    """Prints strict scores with intervals and gains, the others as before → after.

    Args:
      run_dir: a run directory; without results one line says so.
      console: where to print.
    """
    headline = summarise(read_run(run_dir))
    if not headline.rows:
        console.print("no evaluation results yet")
        return
    console.print(_table(headline))
    if headline.meaning:
        console.print(escape(headline.meaning))


def _table(headline: Headline) -> Table:
    compared = headline.before_step is not None
    table = Table(title="Held-out scores, %", title_justify="left")
    table.add_column("eval", no_wrap=True)
    table.add_column("n", justify="right")
    name = METRICS[STRICT].lower()
    table.add_column(f"{name}\n(95 % interval)", justify="right", no_wrap=True)
    if compared:
        table.add_column("gain", justify="right", no_wrap=True)
    others = [m for m in headline.metrics if m != STRICT]
    for metric in others:
        table.add_column(_SHORT[metric], justify="right", no_wrap=True)
    for i, row in enumerate(headline.rows):
        cells = [escape(row.name), integer(row.n), _strict(row)]
        if compared:
            cells.append(_gain(row.gains.get(STRICT)))
        cells += [_both(row, metric, compared) for metric in others]
        table.add_row(*cells, end_section=i == len(headline.rows) - 1)
    if compared and STRICT in headline.gains and len(headline.rows) > 1:
        cells = ["mean gain", "", "", _gain(headline.gains[STRICT])]
        cells += [_gain(headline.gains.get(metric), plain=True) for metric in others]
        table.add_row(*cells, style="bold")
    return table


def _strict(row: EvalRow) -> str:
    return " → ".join(
        f"{percent(score.value)} ({percent(score.low, 0)}–{percent(score.high, 0)})"
        for score in (row.before.get(STRICT), row.after.get(STRICT))
        if score
    ) or MISSING


def _both(row: EvalRow, metric: str, compared: bool) -> str:
    sides = (row.before, row.after) if compared else (row.after,)
    values = [side[metric].value if metric in side else None for side in sides]
    if all(value is None for value in values):
        return MISSING
    return " → ".join(percent(value) for value in values)


def _gain(gain: Score | None, plain: bool = False) -> str:
    if gain is None:
        return MISSING
    text = points(gain.value)
    if plain:
        return text
    text += f" ({points(gain.low)} to {points(gain.high)})"
    colour = {"up": "green", "down": "red", "flat": ""}[direction(gain)]
    return f"[{colour}]{text}[/{colour}]" if colour else text
