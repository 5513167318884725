"""Padded cost: what rows of some lengths cost, and which lengths cost least."""

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.lengths_search import measure, row_flops, search


def flan_like(count, seed=0):
    random = np.random.default_rng(seed)
    inputs = random.lognormal(np.log(150) - 0.405, 0.9, count).clip(1, 4096)
    targets = random.lognormal(np.log(20) - 0.5, 1.0, count).clip(1, 1024)
    return np.stack([inputs, targets], axis=1).astype(np.int32)


def test_a_cost_is_rows_times_the_price_of_a_row():
    raw = np.array([[9, 3], [9, 3], [9, 3]])
    cost = measure(Layout("encoder_decoder", 20, 8), raw)
    assert cost.rows == 2 and cost.cut == 0
    assert cost.inputs_fill == 30 / 40 and cost.targets_fill == 12 / 16
    assert cost.tokens == 2 * 28 / 3
    assert cost.flops == pytest.approx(2 * row_flops(cost.layout) / 3)


def test_a_decoders_two_fills_are_parts_of_one_sequence():
    cost = measure(Layout("decoder", 20, 8), np.array([[9, 3], [9, 3]]))
    assert (cost.inputs_fill, cost.targets_fill) == (20 / 28, 8 / 28)


def test_balancing_the_fills_by_a_shorter_target_limit_costs_more_rows():
    raw = np.minimum(flan_like(8192), [1023, 143])
    wide = measure(Layout("encoder_decoder", 1024, 256), raw)
    balanced = measure(Layout("encoder_decoder", 1024, 144), raw)
    assert balanced.targets_fill > wide.targets_fill
    assert balanced.rows > wide.rows


@pytest.mark.parametrize("kind", ["encoder_decoder", "decoder"])
def test_the_search_finds_nothing_dearer_and_cuts_off_no_more(kind):
    layout, raw = Layout(kind, 256, 256), flan_like(2048) // 4 + 1
    present = measure(layout, raw)
    costs = search(layout, raw)
    assert costs[0].flops <= present.flops and present in costs
    assert [c.flops for c in costs] == sorted(c.flops for c in costs)
    assert all(cost.cut <= max(present.cut, 0.01) for cost in costs)
    # Targets of mean 6 in a limit of 256: most of the decoder is padding.
    if kind == "encoder_decoder":
        assert costs[0].flops < 0.75 * present.flops
        assert costs[0].layout.targets_length < 256


def test_the_price_of_a_row_counts_padding_and_long_rows_more_than_in_proportion():
    one = row_flops(Layout("encoder_decoder", 512, 128))
    two = row_flops(Layout("encoder_decoder", 1024, 256))
    assert 2 < two / one < 2.5
