"""Drawn dialog formats have FLAN's numbers: 14 starts, 50 pairs of speakers, 3 ends."""

import numpy as np

from flanjax.data.dialog_formats import (
    ENDS,
    FIXED_DIALOG,
    FUSED_STARTS,
    SPEAKERS,
    STARTS,
    draw_dialog_styles,
    format_dialog,
)

TURNS = ("Hello", "Good day", "How much?")


def test_the_fixed_form_is_dashes_and_ends_where_the_next_turn_begins():
    text = format_dialog(TURNS, FIXED_DIALOG)
    assert text == "DIALOG:\nHello\n- Good day\n- How much?\n- "


def test_there_are_fourteen_starts_fifty_pairs_of_speakers_and_three_ends():
    assert len(set(STARTS)) == 14 and "" in STARTS
    assert len(set(SPEAKERS)) == 50 and len(set(ENDS)) == 3
    assert all(one != two and one[-1] == two[-1] == " " for one, two in SPEAKERS)


def test_the_public_code_s_starts_are_thirteen_with_two_fused():
    assert len(FUSED_STARTS) == 13
    (fused,) = set(FUSED_STARTS) - set(STARTS)
    assert fused == "CONVERSATION:Conversation:"
    assert set(STARTS) - set(FUSED_STARTS) == {"CONVERSATION:", "Conversation:"}


def test_speakers_take_turns_and_the_next_one_is_named_last():
    for speakers, (one, two) in enumerate(SPEAKERS):
        style = (3, speakers, 1)
        odd = f"{STARTS[3]}{one}Hello;{two}Good day;{one}How much?;{two}"
        assert format_dialog(TURNS, style) == odd
        even = f"{STARTS[3]}{one}Hello;{two}Good day;{one}"
        assert format_dialog(TURNS[:2], style) == even


def test_draws_reach_every_part_alike_and_repeat_with_the_seed():
    styles = draw_dialog_styles(20_000, np.random.default_rng(0))
    assert (styles == draw_dialog_styles(20_000, np.random.default_rng(0))).all()
    for column, size in enumerate((14, 50, 3)):
        values, counts = np.unique(styles[:, column], return_counts=True)
        assert len(values) == size
        assert abs(counts - 20_000 / size).max() < 5 * (20_000 / size) ** 0.5
    fused = draw_dialog_styles(2000, np.random.default_rng(0), FUSED_STARTS)
    assert set(fused[:, 0]) == set(range(13))
