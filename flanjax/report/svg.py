"""Small SVG charts, drawn by hand so that a page's style sheet colours them.

    svg.line_chart([svg.Series("loss", [(1, 3.2), (2, 2.9)])], unit="nats")

Charts carry class names only; colours come from CSS, so one drawing serves light and
dark pages. Every text is escaped. Line charts have a fixed view box of about the width
of a phone and are meant for a grid of small multiples; interval charts place things in
per cent of their width, so their text keeps its size at any width.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from flanjax.report.formats import (
    MINUS,
    compact,
    integer,
    is_number,
    number,
    scientific,
)

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 28  # Margins around the plotted area.


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
      name: shown when the pointer rests on the line, and at its end when `label`.
      points: (x, y) with increasing x; a y that is None or not finite breaks the line.
      style: CSS class of the line: "main", "raw", "many", "before", ...
      intervals: (x, low, high) drawn as vertical bars.
      dots: mark every point.
      shift: pixels to the right, so that equal values do not hide each other.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    style: str = "main"
    intervals: Sequence[tuple[float, float, float]] = ()
    dots: bool = False
    shift: float = 0.0


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values that cover [low, high] in about `count` steps of 1, 2 or 5 x 10^k.

    ticks(0, 0.93) == [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # One value, but for rounding.
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Texts of axis ticks with equal decimals, or powers of ten for small values.

    tick_labels([0.0, 0.5, 1.0]) == ["0", "0.5", "1.0"]
    """
    top = max(abs(v) for v in values)
    if 0 < top < 0.01 or top >= 1e4:
        return [scientific(v) if top < 1 else compact(v) for v in values]
    decimals = next(
        d for d in range(9) if all(abs(v - round(v, d)) < 1e-9 for v in values)
    )
    return [f"{v:.{decimals}f}".replace("-", MINUS) if v else "0" for v in values]


def thin(
    points: Sequence[tuple[float, float]], limit: int = 240
) -> list[tuple[float, float]]:
    """At most `limit` points and the two ends: means of equal runs of neighbours."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    means = [
        (sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run))
        for run in runs
    ]
    return [points[0], *means[1:-1], points[-1]]


def smooth(
    points: Sequence[tuple[float, float]], window: int
) -> list[tuple[float, float]]:
    """Mean over the `window` points around each one (fewer at the ends)."""
    half = window // 2
    total = [0.0]
    for _, y in points:
        total.append(total[-1] + y)
    averaged = []
    for i, (x, _) in enumerate(points):
        start, stop = max(0, i - half), min(len(points), i + half + 1)
        averaged.append((x, (total[stop] - total[start]) / (stop - start)))
    return averaged


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup(
        '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
    ).format(kind, x, y, anchor, text)


def _path(points: Sequence[tuple[float, float | None]], at: Callable) -> str:
    """SVG path through the points, lifted where a value is missing."""
    parts, pen = [], "M"
    for x, y in points:
        if not is_number(y):
            pen = "M"
            continue
        parts.append("{}{:.1f} {:.1f}".format(pen, *at(x, y)))
        pen = "L"
    return "".join(parts)


def _x_range(series: Sequence[Series]) -> tuple[float, float]:
    xs = [x for s in series for x, y in s.points if is_number(y)]
    low, high = min(xs), max(xs)
    if low <= 0.05 * high:  # The first step is no reason to leave zero out.
        low = 0
    return (low, high) if high > low else (low - 1, high + 1)


def _y_ticks(series: Sequence[Series], from_zero: bool) -> list[float]:
    ys = [y for s in series for _, y in s.points if is_number(y)]
    ys += [v for s in series for _, low, high in s.intervals for v in (low, high)]
    low, high = min(ys), max(ys)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high)
    return ticks(low, high)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    from_zero: bool = False,
    marks: Sequence[float] = (),
    scale: float = 1.0,
) -> Markup | None:
    """Lines over steps.

    Args:
      series: drawn in order, so the last one lies on top.
      title: what the chart shows, for screen readers.
      x_label: unit of the x axis, at its right end.
      from_zero: let the y axis start at zero.
      marks: x positions with a dashed vertical line (resumed here).
      scale: y values are shown times this: 100 for fractions in per cent.

    Returns:
      An svg element, or None when no series has a point.
    """
    series = [s for s in series if any(is_number(y) for _, y in s.points)]
    if not series:
        return None
    series = [_scaled(s, scale) for s in series]
    yt = _y_ticks(series, from_zero)
    x0, x1 = _x_range(series)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        up = (y - yt[0]) / (yt[-1] - yt[0])
        return across, HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        ).format(WIDTH, HEIGHT, title)
    ]
    for y, label in zip(yt, tick_labels(yt), strict=True):
        _, v = at(x0, y)
        kind = "axis" if y == yt[0] else "grid"
        parts.append(_line(LEFT, v, WIDTH - RIGHT, v, kind))
        parts.append(_text(LEFT - 7, v + 4, label, "end"))
    for x in ticks(x0, x1):
        # Steps are whole: a tick at 2.5 steps would name nothing that exists.
        if x0 <= x <= x1 and x == round(x):
            h, v = at(x, yt[0])
            parts.append(_text(h, v + 17, integer(x), "middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 1, x_label, "end", "unit"))
    for x in marks:
        if x0 <= x <= x1:
            h, v = at(x, yt[0])
            parts.append(_line(h, TOP, h, v, "mark"))
    parts.extend(_draw(s, at) for s in series)
    return Markup("").join(parts) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup(
        '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    ).format(kind, x1, y1, x2, y2)


def _scaled(series: Series, scale: float) -> Series:
    return dataclasses.replace(
        series,
        points=[(x, y * scale if is_number(y) else None) for x, y in series.points],
        intervals=[(x, low * scale, high * scale) for x, low, high in series.intervals],
    )


def _draw(series: Series, at: Callable) -> Markup:
    """One series: its line, intervals and dots, with what a pointer shows."""
    parts = [
        Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
            series.style, _path(series.points, at), series.name
        )
    ]
    for x, low, high in series.intervals:
        (h, v1), (_, v2) = at(x, low), at(x, high)
        parts.append(_line(h, v1, h, v2, f"interval {series.style}"))
    if series.dots:
        for x, y in series.points:
            if is_number(y):
                h, v = at(x, y)
                parts.append(
                    Markup(
                        '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.4">'
                        "<title>{}, step {}: {}</title></circle>"
                    ).format(series.style, h, v, series.name, integer(x), number(y))
                )
    drawn = Markup("").join(parts)
    if series.shift:
        drawn = Markup('<g transform="translate({:.1f})">{}</g>').format(
            series.shift, drawn
        )
    return drawn
