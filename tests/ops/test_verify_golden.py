import json
import shutil

import numpy as np
import pytest

from flanjax.ops import verify_golden as module
from flanjax.ops.compare import compare, compare_trees
from flanjax.ops.verify_golden import verify_golden


@pytest.fixture
def only(monkeypatch):
    """Limits verify_golden to the named checks."""

    def limit(*names):
        chosen = {name: module._CHECKS[name] for name in names}
        monkeypatch.setattr(module, "_CHECKS", chosen)

    return limit


@pytest.mark.slow
def test_every_number_recorded_from_t5x_is_reproduced(shared):
    rows = verify_golden(shared / "golden" / "t5x")
    assert len(rows) >= 70
    assert [row for row in rows if not row.ok] == []


def test_missing_and_damaged_files_are_failed_rows_that_name_them(
    shared, tmp_path, only
):
    only("relative-position buckets", "schedules", "decoding")
    golden = shared / "golden" / "t5x"
    assert not verify_golden(tmp_path)[0].ok
    shutil.copy(golden / "meta.json", tmp_path)
    shutil.copy(golden / "lr_schedules.npz", tmp_path)
    (tmp_path / "decode.npz").write_bytes(b"not a zip file")
    rows = verify_golden(tmp_path)
    failed = [row.check for row in rows if not row.ok]
    assert len(failed) == 2
    assert "relpos_buckets.npz" in failed[0] and failed[1].startswith("decoding")
    assert sum(row.check.startswith("schedule ") and row.ok for row in rows) == 8


def test_a_wrong_recording_is_noticed(shared, tmp_path, only):
    only("schedules")
    golden = shared / "golden" / "t5x"
    meta = json.loads((golden / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    rates = dict(np.load(golden / "lr_schedules.npz").items())
    rates["cosine"] = rates["cosine"] * np.float32(1 + 1e-5)
    np.savez(tmp_path / "lr_schedules.npz", **rates)
    rows = {row.check: row for row in verify_golden(tmp_path)}
    assert not rows["schedule cosine"].ok and rows["schedule constant"].ok
    assert rows["schedule cosine"].max_error == pytest.approx(1e-5, rel=0.1)


def test_comparisons_fail_on_nan_other_shapes_and_other_names():
    assert compare("x", [1.0], [1.0 + 1e-6], rtol=1e-5).ok
    assert not compare("x", [np.nan], [1.0], rtol=1e-5).ok
    assert not compare("x", [[1.0]], [1.0], atol=1.0).ok
    assert not compare("x", [2], [1]).ok
    got = {"a": np.ones(2), "b": {"c": np.full(1, np.nan)}}
    row = compare_trees("t", got, {"a": np.ones(2), "b/c": np.ones(1)}, atol=1.0)
    assert not row.ok and "b/c" in row.check
    assert not compare_trees("t", got, {"a": np.ones(2)}, atol=1.0).ok
