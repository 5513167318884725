r"""How answer options are written: one fixed format, or one drawn for each example.

    fixed     OPTIONS:\n- no\n- yes
    random    Choose one:\n(a). no;\n(a). ...   start, item names and end drawn apart

A drawn format is three numbers (start, item names, end). Where the drawn item names
count through (a, b, c; i, ii, iii; 1, 2, 3), a target that is an option becomes the
stripped item name, "(b)."; with bullets it stays the option's text.

FLAN's public lists have 87 item-name lists of which 24 repeat the full-stop variants
where a colon was meant; here those have the colon, so all 87 differ, unless the switch
"option_formats" of `flanjax.data.faithful` asks for the repetition.

Names run out after 26 options. Rows with more are an error, or are written with
bullets, which do not: see `many_options` of `flanjax.data.tasks.add_instruction_task`.
https://github.com/google-research/FLAN/blob/main/flan/v2/preprocessors.py
"""

from collections.abc import Sequence

import numpy as np

MAX_OPTIONS = 26

STARTS = (
    "OPTIONS:",  # Number 0 is the fixed format's; the sixteen others are drawn.
    "",
    "OPTIONS:",
    "Options:",
    "Possible answers:",
    "Available options:",
    "CHOICES:",
    "Choices:",
    "Select from:",
    "Choose from:",
    "Pick one of these:",
    "Pick your answer from:",
    "The answer is one of:",
    "Which of these?",
    "Let me give you options:",
    "Choose one of the following.",
    "Select the right one from below.",
)
ENDS = ("", ";", ".")


def _roman(number: int) -> str:
    tens, ones = divmod(number, 10)
    units = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
    return "x" * tens + units[ones]


_COUNT = range(1, MAX_OPTIONS + 1)
_ROMANS = tuple(_roman(n) for n in _COUNT)
_LETTERS = tuple(chr(ord("a") + n - 1) for n in _COUNT)
_DIGITS = tuple(str(n) for n in _COUNT)


def _bullets() -> list[tuple[str, ...]]:
    marks = ("-", "--", "+", "*", "[-]", "[+]")
    forms = ("\n{} ", "\n {} ", " {} ", "\n  {} ")
    names = [form.format(mark) for mark in marks for form in forms]
    return [(name,) * MAX_OPTIONS for name in names if name != " - "]


def _enumerations(stops: tuple[str, str]) -> list[tuple[str, ...]]:
    romans = [_ROMANS, tuple(name.upper() for name in _ROMANS)]
    styles = [
        (front + form, names)
        for names in romans
        for front in ("\n", "\n ")
        for form in ("{}. ", "[{}] ", "({}) ", "({}). ")
    ]
    styles += [
        (front + form + stop, names)
        for names in (_LETTERS, _DIGITS)
        for front in ("\n", "\n ", " ")
        for form in ("[{}]", "({})", "{})", "{}")
        for stop in stops
    ]
    return [tuple(form.format(name) for name in names) for form, names in styles]


_BULLETS = ((("\n- ",) * MAX_OPTIONS), *_bullets())
ITEM_NAMES = (*_BULLETS, *_enumerations((". ", ": ")))
REPEATED_ITEM_NAMES = (*_BULLETS, *_enumerations((". ", ". ")))
COUNTS_THROUGH = tuple(len(set(names)) > 1 for names in ITEM_NAMES)

FIXED_STYLE = (0, 0, 0)


def draw_styles(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a format for each example, its three parts independently.

    Returns:
      int32 [count, 3]: indices into `STARTS`, `ITEM_NAMES` and `ENDS`.
    """
    parts = [
        rng.integers(1, len(STARTS), count),
        rng.integers(1, len(ITEM_NAMES), count),
        rng.integers(0, len(ENDS), count),
    ]
    return np.stack(parts, axis=1).astype(np.int32)


def with_bullets(style: Sequence[int]) -> tuple[int, int, int]:
    """Returns the format with bullets for names that run out, drawn from the others."""
    start, item, end = style
    bullet = 1 + (item - 1) % (len(_BULLETS) - 1) if COUNTS_THROUGH[item] else item
    return start, bullet, end


def format_options(
    options: Sequence[str],
    style: Sequence[int],
    item_names: Sequence[Sequence[str]] = ITEM_NAMES,
) -> str:
    """Writes a list of options, "" if there are none.

    Args:
      options: at most 26, unless the item names are bullets.
      style: indices into `STARTS`, `item_names` and `ENDS`.
      item_names: `ITEM_NAMES` or `REPEATED_ITEM_NAMES`.
    """
    if not options:
        return ""
    start, item, end = style
    names, stop = item_names[item], ENDS[end]
    if not COUNTS_THROUGH[item]:
        name = names[0]
        return STARTS[start] + "".join([name + o + stop for o in options])
    items = [n + o + stop for n, o in zip(names, options, strict=False)]
    return STARTS[start] + "".join(items)


def option_labels(
    options: Sequence[str],
    style: Sequence[int],
    item_names: Sequence[Sequence[str]] = ITEM_NAMES,
) -> Sequence[str]:
    """Returns how each option is answered: by its item name, or by itself."""
    item = style[1]
    if not COUNTS_THROUGH[item]:
        return options
    return [name.strip() for name in item_names[item][: len(options)]]
