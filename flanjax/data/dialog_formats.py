r"""How dialogs are written: one fixed format, or one drawn for each example.

    fixed     DIALOG:\nHello\n- Good morning\n-
    drawn     Talk:\nGuest: Hello\nHost: Good morning\nGuest:

In both, the end says whose turn is next. A drawn format is three numbers (start, pair
of speakers, end); the numbers of each are FLAN's: 14 starts, 50 pairs, 3 ends. The
public code has 13 starts, two of them fused by a missing comma; the switch
"dialog_starts" of `flanjax.data.faithful` brings that back.
https://github.com/google-research/FLAN/blob/main/flan/v2/preprocessors.py
"""

from collections.abc import Sequence

import numpy as np

STARTS = (
    "",
    "DIALOG:",
    "Dialog:",
    "DIALOGUE:",
    "Dialogue:",
    "CONVERSATION:",
    "Conversation:",
    "CHAT:",
    "Chat:",
    "Talk:",
    "Two people talk:",
    "What was said:",
    "Here is a conversation.",
    "Read this exchange.",
)
_FUSED = STARTS.index("CONVERSATION:")
FUSED_STARTS = (
    *STARTS[:_FUSED],
    STARTS[_FUSED] + STARTS[_FUSED + 1],
    *STARTS[_FUSED + 2 :],
)
ENDS = ("", ";", ".")

_NAMES = (
    ("A", "B"),
    ("1", "2"),
    ("X", "Y"),
    ("P1", "P2"),
    ("Person 1", "Person 2"),
    ("Speaker A", "Speaker B"),
    ("First voice", "Second voice"),
    ("Guest", "Host"),
    ("Caller", "Agent"),
    ("Ann", "Ben"),
)
_FORMS = ("\n{}: ", "\n[{}] ", "\n({}) ", "\n{} - ", "\n {}: ")
SPEAKERS = tuple(
    (form.format(one), form.format(two)) for one, two in _NAMES for form in _FORMS
)

# No start of the lists above: the fixed format.
FIXED_DIALOG = (-1, -1, -1)


def format_dialog(
    turns: Sequence[str], style: Sequence[int], starts: Sequence[str] = STARTS
) -> str:
    """Writes a dialog's turns and the mark of the turn to come.

    Args:
      turns: what was said, the two speakers in turns.
      style: `FIXED_DIALOG`, or indices into `starts`, `SPEAKERS` and `ENDS`.
      starts: `STARTS` or `FUSED_STARTS`.
    """
    start, speakers, end = style
    if start < 0:
        return "DIALOG:\n" + "\n- ".join(turns) + "\n- "
    labels, stop = SPEAKERS[speakers], ENDS[end]
    said = [labels[i % 2] + turn + stop for i, turn in enumerate(turns)]
    return starts[start] + "".join(said) + labels[len(turns) % 2]


def draw_dialog_styles(
    count: int, rng: np.random.Generator, starts: Sequence[str] = STARTS
) -> np.ndarray:
    """Draws a format for each example, its three parts independently.

    Returns:
      int32 [count, 3]: indices into `starts`, `SPEAKERS` and `ENDS`.
    """
    sizes = (len(starts), len(SPEAKERS), len(ENDS))
    parts = [rng.integers(0, size, count) for size in sizes]
    return np.stack(parts, axis=1).astype(np.int32)
