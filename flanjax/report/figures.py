"""The before/after figure as a file of its own, for a README or a slide.

    write_before_after("runs/quickstart", "docs/quickstart.svg")

It is the drawing of the report with its colours inside, light and dark.
"""

import os
from pathlib import Path

from markupsafe import Markup

from flanjax.errors import DataError
from flanjax.report.formats import points
from flanjax.report.headline import METRICS, Headline, interval, summarise
from flanjax.report.intervals import chart_height, interval_chart
from flanjax.report.report import lanes, legend, style_sheet
from flanjax.report.run_directory import read_run

_MARGIN, _TOP = 20, 72  # Pixels around the chart, and above it for title and legend.


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
    headline = summarise(read_run(run_dir))
    drawn = lanes(headline)
    chart = interval_chart(
        drawn, title="held-out scores", width=str(width - 2 * _MARGIN)
    )
    if chart is None:
        raise DataError(
            "there are no evaluation results to draw",
            where=str(Path(run_dir) / "results.json"),
            fix="evaluate first: flanjax train or flanjax eval write results",
        )
    height = _TOP + chart_height(len(drawn)) + _MARGIN
    figure = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" '
        'viewBox="0 0 {0} {1}"><style>{2}</style>'
        '<rect class="paper" width="100%" height="100%"/>{3}'
        '<g transform="translate({4} {5})">{6}</g></svg>\n'
    ).format(
        width,
        height,
        Markup(style_sheet("palette", "figures")),
        _heading(headline),
        _MARGIN,
        _TOP,
        chart,
    )
    path = Path(path)
    path.write_text(figure, encoding="utf-8")
    return path


def _heading(headline: Headline) -> Markup:
    """What is drawn, its mean gain, and which dot is which."""
    metric = headline.metrics[0]
    title = f"{METRICS[metric]} on held-out tasks"
    gain = headline.gains.get(metric)
    if gain:
        title += f": {points(gain.value)} points ({interval(gain, points)})"
    parts = [
        Markup(
            '<text x="{}" y="30" class="heading">{}</text><g class="intervals">'
        ).format(_MARGIN, title)
    ]
    x = _MARGIN + 6
    for style, text in legend(headline):
        parts.append(_key(style, x))
        parts.append(
            Markup('<text class="tick" x="{}" y="54">{}</text>').format(x + 14, text)
        )
        x += 42 + 7 * len(text)
    return Markup("").join(parts) + Markup("</g>")


def _key(style: str, x: float) -> Markup:
    """The mark that a legend text explains."""
    if style in ("before", "after"):
        return Markup('<circle class="dot {}" cx="{}" cy="50" r="5"/>').format(style, x)
    ends = (x, x, 44, 56) if style == "chance" else (x - 7, x + 7, 50, 50)
    kind = "chance" if style == "chance" else "interval after"
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        kind, *ends
    )
