"""Guards name the tasks whose examples do not fit."""

import pytest

from flanjax.data.guards import check_lengths
from flanjax.data.layout import Layout
from flanjax.errors import DataError


def test_fitting_data_gives_a_row_per_task(make_resolved, tmp_path):
    resolved = make_resolved({"a": (30, 0.5), "b": (20, 0.5)})
    rows = check_lengths(resolved, tmp_path, Layout("encoder_decoder", 21, 7))
    assert [row["task"] for row in rows] == ["a", "b"]
    assert all(row["inputs_truncated"] == 0 == row["targets_empty"] for row in rows)
    assert rows[0]["examples"] == 30 and 15 < rows[0]["longest_inputs"] < 20


def test_too_many_truncated_examples_stop_with_their_tasks(make_resolved, tmp_path):
    resolved = make_resolved({"a": (30, 0.5), "b": (20, 0.5)})
    layout = Layout("encoder_decoder", 6, 7)
    with pytest.raises(DataError) as caught:
        check_lengths(resolved, tmp_path, layout, threshold=0.2)
    message = str(caught.value)
    assert "a: " in message and "b: " in message and "inputs truncated" in message
    rows = check_lengths(resolved, tmp_path, layout, threshold=1)
    assert rows[0]["inputs_truncated"] > 0.5


def test_empty_targets_are_counted(make_resolved, tmp_path):
    resolved = make_resolved({"a": (30, 1.0)}, targets=(0, 1))
    with pytest.raises(DataError, match="100.0% empty targets of 30"):
        check_lengths(resolved, tmp_path, Layout("encoder_decoder", 21, 7))
