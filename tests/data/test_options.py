"""The drawn option formats are FLAN's numbers: 16 starts, 87 item lists, 3 ends."""

import numpy as np

from flanjax.data.options import (
    COUNTS_THROUGH,
    ENDS,
    FIXED_STYLE,
    ITEM_NAMES,
    MAX_OPTIONS,
    STARTS,
    draw_styles,
)


def test_there_are_sixteen_starts_eighty_seven_item_lists_and_three_ends():
    starts, items = STARTS[1:], ITEM_NAMES[1:]
    assert len(set(starts)) == 16 and "" in starts
    assert sum(start.endswith(".") for start in starts) == 2
    assert len(set(items)) == 87 and sum(COUNTS_THROUGH[1:]) == 64
    assert ENDS == ("", ";", ".")
    assert all(len(names) == MAX_OPTIONS for names in items)


def test_item_names_that_count_never_repeat_and_bullets_always_do():
    for names, counts in zip(ITEM_NAMES, COUNTS_THROUGH, strict=True):
        stripped = {name.strip() for name in names}
        assert len(stripped) == (MAX_OPTIONS if counts else 1)
        assert all(name[0].isspace() and name[-1] == " " for name in names)
    numerals = [names for names in ITEM_NAMES if names[0] == "\ni. "]
    assert [n.strip() for n in numerals[0][3:19:5]] == ["iv.", "ix.", "xiv.", "xix."]


def test_the_fixed_style_is_options_and_dashes():
    start, item, end = FIXED_STYLE
    assert STARTS[start] + ITEM_NAMES[item][0] + ENDS[end] == "OPTIONS:\n- "


def test_draws_reach_every_part_alike_and_repeat_with_the_seed():
    styles = draw_styles(20_000, np.random.default_rng(0))
    assert (styles == draw_styles(20_000, np.random.default_rng(0))).all()
    for column, size in ((0, 16), (1, 87), (2, 3)):
        values, counts = np.unique(styles[:, column], return_counts=True)
        assert len(values) == size
        assert abs(counts - 20_000 / size).max() < 5 * (20_000 / size) ** 0.5
    assert abs(np.array(COUNTS_THROUGH)[styles[:, 1]].mean() - 64 / 87) < 0.02
