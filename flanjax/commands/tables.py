"""Prints rows as a table or as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_rows(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    as_json: bool = False,
) -> None:
    """Prints a table; with `as_json` a list of {column: value}.

    Args:
      title: heading of the table.
      columns: names; numbers are right-aligned.
      rows: one value per column.
      as_json: machine-readable instead.
    """
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # A pipe has no width: do not fold tables that are read by programs.
    console = Console()
    Console(width=max(console.width, 120)).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "ok" if value else "FAILED"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
