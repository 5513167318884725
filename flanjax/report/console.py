"""The before/after table that a finished run prints.

print_summary("runs/quickstart", rich.console.Console())
"""

import os

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
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

# Beside the strict score; F1 and parse failures stand in the report.
_BESIDE = {"exact_match_flexible": "flexible", "choice_accuracy": "likelihood"}


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
    width = console.width
    beside = [metric for metric in _BESIDE if metric in headline.metrics]
    while (needed := _needed(console, headline, beside)) > width and beside:
        if not console.is_terminal:  # A pipe has no width that lines must fit.
            console.width = needed
            break
        beside.pop()
    console.print(_table(headline, beside))
    console.width = width
    if headline.meaning:
        console.print(escape(headline.meaning), highlight=False)


def _needed(console: Console, headline: Headline, beside: list[str]) -> int:
    """Columns of the terminal that the table takes unfolded."""
    options = console.options.update(max_width=1000)
    return Measurement.get(console, options, _table(headline, beside)).maximum


def _table(headline: Headline, beside: list[str]) -> Table:
    compared = headline.before_step is not None
    columns = ["before", "after", "gain"]
    if not compared:
        columns = [f"step {headline.after_step}"]
    table = Table(
        title=f"{METRICS[STRICT]} on held-out tasks, per cent (95 % intervals)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("eval", overflow="fold")  # The one column that may give way.
    for column in ("n", *columns, *(_BESIDE[metric] for metric in beside)):
        table.add_column(column, justify="right", no_wrap=True)
    for i, row in enumerate(headline.rows):
        last = i == len(headline.rows) - 1
        table.add_row(*_cells(row, beside, compared), end_section=last)
    if compared and STRICT in headline.gains and len(headline.rows) > 1:
        gains = [headline.gains.get(metric) for metric in beside]
        shown = [points(gain.value) if gain else MISSING for gain in gains]
        strict = _gain(headline.gains[STRICT])
        table.add_row("mean gain", "", "", "", strict, *shown, style="bold")
    return table


def _cells(row: EvalRow, beside: list[str], compared: bool) -> list[str]:
    """One line of the table."""
    cells = [escape(row.name), integer(row.n)]
    if compared:
        cells += [_score(row.before.get(STRICT)), _score(row.after.get(STRICT))]
        cells.append(_gain(row.gains.get(STRICT)))
    else:
        cells.append(_score(row.after.get(STRICT)))
    for metric in beside:
        sides = (row.before, row.after) if compared else (row.after,)
        values = [percent(side[metric].value) for side in sides if metric in side]
        cells.append(" → ".join(values) or MISSING)
    return cells


def _score(score: Score | None) -> str:
    if score is None:
        return MISSING
    return f"{percent(score.value)} ({percent(score.low, 0)}–{percent(score.high, 0)})"


def _gain(gain: Score | None) -> str:
    if gain is None:
        return MISSING
    text = f"{points(gain.value)} ({points(gain.low)}, {points(gain.high)})"
    colour = {"up": "green", "down": "red", "flat": ""}[direction(gain)]
    return f"[{colour}]{text}[/{colour}]" if colour else text
