"""Numbers and names as a reader wants them.

percent(0.4217) == "42.2", compact(1234567) == "1.23M", duration(252) == "4 min 12 s"

A value that is missing or not finite prints as an en dash, never as an error.
"""

import math
from typing import Any, TypeGuard

MISSING = "–"
MINUS = "−"  # As wide as a plus sign, so that gains line up.


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite int or float; False for None, bool, text, NaN."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def number(value: Any, digits: int = 3) -> str:
    """`digits` significant digits without an exponent where that stays readable."""
    if not is_number(value):
        return MISSING
    if value == 0:
        return "0"
    if isinstance(value, int) and abs(value) < 10_000:
        return str(value).replace("-", MINUS)
    if abs(value) < 1e-3:
        return scientific(value, digits)
    # The exponent after rounding: 0.9999 to three digits is 1.00.
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    decimals = max(0, digits - 1 - exponent)
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def scientific(value: Any, digits: int = 3) -> str:
    """A number with a power of ten, without needless zeros: "2.5e−4"."""
    if not is_number(value) or value == 0:
        return number(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def integer(value: Any) -> str:
    """Whole number with thousands separated: "12,345"."""
    return f"{round(value):,}".replace("-", MINUS) if is_number(value) else MISSING


def compact(value: Any) -> str:
    """Three significant digits and a magnitude letter: "134M", "12.3k"."""
    if not is_number(value):
        return MISSING
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return number(value / scale) + letter
    return number(value)


def percent(value: Any, digits: int = 1) -> str:
    """A fraction in per cent, without the sign: 0.4217 -> "42.2"."""
    if not is_number(value):
        return MISSING
    return f"{100 * value:.{digits}f}".replace("-", MINUS)


def points(value: Any) -> str:
    """A difference of fractions in percentage points, always signed: "+3.1"."""
    if not is_number(value):
        return MISSING
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def duration(seconds: Any) -> str:
    """Seconds in the two largest useful units: "2 h 05 min", "850 ms"."""
    if not is_number(seconds):
        return MISSING
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(count: Any, noun: str) -> str:
    """A count with its noun: "1 step", "12,345 steps"."""
    return f"{integer(count)} {noun}{'' if count == 1 else 's'}"
