"""The before/after picture: one lane per eval, a dot and its interval for each step.

    interval_chart([Lane("boolq", before, after, chance=0.5)], title="...")

Positions are per cent of the width, text and dots are not, so that the same drawing
reads well at 390 and at 1280 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flanjax.eval.stats import Score
from flanjax.report.formats import percent, points
from flanjax.report.svg import ticks

_LANE, _AXIS = 62, 26  # Heights in pixels.
_INSET = 1.6  # Per cent at both ends, so that a dot at 0 is not cut.
_LONGEST = 30


@dataclass(frozen=True)
class Lane:
    """One eval: fractions in [0, 1] with intervals; either side may be missing."""

    name: str
    before: Score | None
    after: Score | None
    gain: Score | None = None
    chance: float | None = None


def chart_height(lanes: int) -> int:
    """Pixels that `interval_chart` needs for so many lanes."""
    return _LANE * lanes + _AXIS


def interval_chart(
    lanes: Sequence[Lane], *, title: str, width: str = "100%"
) -> Markup | None:
    """Draws the lanes above one axis in per cent.

    Args:
      lanes: top to bottom; each has at least one side.
      title: for screen readers.
      width: the svg element's width attribute.

    Returns:
      An svg element, or None without lanes.
    """
    if not lanes:
        return None
    height = chart_height(len(lanes))
    axis = _axis(lanes)

    def at(value: float) -> str:
        return f"{_INSET + (100 - 2 * _INSET) * value / axis[-1]:.2f}%"

    parts = [
        Markup(
            '<svg class="intervals" width="{}" height="{}" role="img" aria-label="{}">'
        ).format(width, height, title)
    ]
    for value in axis:
        for i in range(len(lanes)):
            parts.append(
                _line(at(value), i * _LANE + 25, at(value), (i + 1) * _LANE - 8, "grid")
            )
        parts.append(_tick(at(value), height - 8, value, axis[-1]))
    for i, lane in enumerate(lanes):
        parts.append(_lane(lane, i * _LANE, at))
    return Markup("").join(parts) + Markup("</svg>")


def _axis(lanes: Sequence[Lane]) -> list[float]:
    """From zero to what the highest interval needs; never beyond 100 %."""
    highest = max(s.high for lane in lanes for s in (lane.before, lane.after) if s)
    return [t for t in ticks(0.0, min(1.0, max(highest, 0.2))) if t <= 1.0]


def _tick(x: str, y: int, value: float, last: float) -> Markup:
    anchor = "start" if value == 0 else "end" if value == last else "middle"
    edge = {"start": "0%", "end": "100%"}.get(anchor, x)
    text = percent(value, 0) + (" %" if value == last else "")
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        edge, y, anchor, text
    )


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        kind, x1, y1, x2, y2
    )


def _lane(lane: Lane, top: int, at) -> Markup:
    name = lane.name
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 1] + "…"
    parts = [
        Markup('<text class="name" x="0" y="{}">{}<title>{}</title></text>').format(
            top + 16, name, lane.name
        ),
        _values(lane, top + 16),
    ]
    if lane.chance is not None:
        x = at(lane.chance)
        parts.append(_line(x, top + 24, x, top + _LANE - 7, "chance"))
    both = lane.before is not None and lane.after is not None
    for score, kind, y in (
        (lane.before, "before", top + (33 if both else 40)),
        (lane.after, "after", top + (46 if both else 40)),
    ):
        if score:
            parts.append(_line(at(score.low), y, at(score.high), y, f"interval {kind}"))
            parts.append(
                Markup(
                    '<circle class="dot {}" cx="{}" cy="{}" r="5">'
                    "<title>{} {}: {} % ({} to {}), n = {}</title></circle>"
                ).format(
                    kind,
                    at(score.value),
                    y,
                    lane.name,
                    kind,
                    percent(score.value),
                    percent(score.low),
                    percent(score.high),
                    score.n,
                )
            )
    return Markup("").join(parts)


def _values(lane: Lane, y: int) -> Markup:
    """At the right end: "41.2 → 63.0  +21.8"."""
    spans = [
        Markup('<tspan class="{}">{}</tspan>').format(kind, percent(score.value))
        for score, kind in ((lane.before, "before"), (lane.after, "after"))
        if score
    ]
    text = Markup('<tspan class="tick"> → </tspan>').join(spans)
    if lane.gain:
        text += Markup('<tspan class="gain" dx="10">{}</tspan>').format(
            points(lane.gain.value)
        )
    return (
        Markup('<text class="value" x="100%" y="{}" text-anchor="end">').format(y)
        + text
        + Markup("</text>")
    )
