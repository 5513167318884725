"""The ledger's arithmetic agrees with what the plan then does."""

import dataclasses
import json

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.ledger import ledger, realised
from flanjax.data.loader import make_plan
from flanjax.data.plan import Position

TASKS = {"a": (50, 0.7), "b": (9, 0.1), "c": (200, 0.2)}


def test_expected_counts_and_epochs_are_what_the_plan_realises(make_resolved, tmp_path):
    resolved = make_resolved(TASKS)
    layout = Layout("encoder_decoder", 64, 16)
    plan = make_plan(resolved, tmp_path, layout, seed=0, block_examples=200)
    rows = ledger(resolved, steps=100, batch_size=8, plan=plan)
    assert json.loads(json.dumps(rows)) == rows
    used, _ = plan.rows(Position(), 800)
    members = np.bincount([m for row in used for m, _ in row], minlength=3)
    for row, count in zip(realised(rows, members), members, strict=True):
        assert row["realised_examples"] == count
        assert row["expected_examples"] == pytest.approx(count, rel=0.05)
        assert row["epochs"] == pytest.approx(count / row["examples"], rel=0.05)
        assert row["realised_share"] == pytest.approx(row["share"], abs=0.01)
    assert sum(row["token_share"] for row in rows) == pytest.approx(1)


def test_without_a_plan_it_says_what_is_prepared(make_resolved):
    rows = ledger(make_resolved(TASKS))
    assert [row["task"] for row in rows] == list(TASKS)
    assert "expected_examples" not in rows[0] and rows[0]["mean_inputs"] > 2


def test_epochs_count_rows_of_the_source_not_their_renderings(make_resolved, tmp_path):
    """Two passes render 25 rows as 50 examples; 100 examples show each row 4 times."""
    resolved = dataclasses.replace(make_resolved({"a": (50, 1.0)}), passes=2)
    plan = make_plan(resolved, tmp_path, Layout("encoder_decoder", 64, 16), seed=0)
    (row,) = ledger(resolved, steps=10, batch_size=8, plan=plan)
    assert row["epochs"] == pytest.approx(row["expected_examples"] / 25, rel=1e-3)
