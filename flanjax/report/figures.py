"""The before/after figure as a file of its own, for a README or a slide.

    write_before_after("runs/quickstart", "docs/quickstart.svg")

It is the drawing of the report with its colours inside, light and dark.
"""

import os
from pathlib import Path

from flanjax.errors import DataError
from flanjax.report.headline import summarise
from flanjax.report.report import before_after, style_sheet
from flanjax.report.run_directory import read_run


def write_before_after(
    run_dir: str | os.PathLike[str], path: str | os.PathLike[str], width: int = 760
) -> Path:
    """Writes the held-out scores of a run as an SVG file.

    Args:
      run_dir: a run directory with at least one evaluation.
      path: the file to write.
      width: in pixels; the height follows from the number of evals.

    Returns:
      The path.

    Raises:
      DataError: the run has no evaluation results.
    """
    figure = before_after(
        summarise(read_run(run_dir)),
        width=str(width),
        style=style_sheet("palette", "figures"),
    )
    if figure is None:
        raise DataError(
            "there are no evaluation results to draw",
            where=str(Path(run_dir) / "results.json"),
            fix="evaluate first: flanjax train or flanjax eval write results",
        )
    path = Path(path)
    path.write_text(figure + "\n", encoding="utf-8")
    return path
