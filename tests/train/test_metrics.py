import json

import numpy as np
import pytest

from flanjax.errors import DataError
from flanjax.train.metrics import MetricWriter, read_metrics


def test_a_resumed_run_has_one_point_for_each_step(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3, 4):
        writer.write(step, "train", {"loss": np.float32(10 - step)})
    writer.close()
    writer = MetricWriter(tmp_path, start_step=2)
    writer.write(3, "train", {"loss": 6.5})
    writer.close()
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 9), (2, 8), (3, 6.5)]


def test_a_line_cut_off_by_a_kill_is_dropped_and_others_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\n{"step": 2, "ki')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    MetricWriter(tmp_path, start_step=5).close()
    assert path.read_text() == '{"step": 1, "kind": "train"}\n'
    path.write_text('nonsense\n{"step": 2, "kind": "train"}\n')
    with pytest.raises(DataError, match="metrics.jsonl:1"):
        read_metrics(tmp_path)


def test_every_line_is_strict_json_and_tensorboard_has_t5x_folders(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, "train", {"loss": np.float32("nan"), "batch_hash": "ab"})
    writer.write(1, "validation", {"validation/boolq/loss": 1.0})
    writer.write(1, "eval", {"boolq/exact_match": 0.5})
    writer.write(1, "event", {"message": "restored"})
    writer.close()

    def refuse(constant):
        raise AssertionError(constant)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert rows[0]["loss"] is None and rows[0]["batch_hash"] == "ab"
    for folder in ("train", "training_eval/boolq", "inference_eval/boolq"):
        if folder != "train":  # Not a number: nothing to draw.
            assert list((tmp_path / folder).glob("events.*")), folder
