import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from flanjax.ops import verify_golden as module
from flanjax.ops.compare import compare, compare_trees
from flanjax.ops.golden_files import Golden
from flanjax.ops.verify_golden import verify_golden


@pytest.fixture
def golden(shared):
    return shared / "golden" / "t5x"


@pytest.fixture
def only(monkeypatch):
    """Limits verify_golden to the named checks."""

    def limit(*names):
        chosen = {name: module.CHECKS[name] for name in names}
        monkeypatch.setattr(module, "CHECKS", chosen)

    return limit


@pytest.fixture
def copied(golden, tmp_path):
    """Makes a directory of named files, some of their arrays changed or left out."""

    def copy(added=None, **changes):
        meta = json.loads((golden / "meta.json").read_text())
        files = dict(added or {})
        for name, change in changes.items():
            with np.load(golden / f"{name}.npz") as file:
                files[name] = change(dict(file.items()))
        for name, arrays in files.items():
            np.savez(tmp_path / f"{name}.npz", **arrays)
        meta["arrays"] = {f"{n}.npz": dict.fromkeys(files[n]) for n in files}
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        return verify_golden(tmp_path)

    return copy


def same(arrays):
    return arrays


@pytest.mark.slow
def test_every_number_recorded_from_t5x_is_reproduced(golden):
    """As a user runs it: XLA's optimisation is on, and one device is enough."""
    command = [sys.executable, "-m", "flanjax", "verify", "golden", str(golden)]
    plain = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, "--json"], env=plain, capture_output=True, text=True, check=False
    )
    rows = json.loads(done.stdout)
    assert len(rows) >= 150
    assert [row for row in rows if row["verdict"] is not True] == []
    assert done.returncode == 0


def test_missing_and_damaged_files_are_failed_rows_that_name_them(
    golden, tmp_path, only
):
    only("relative-position buckets", "schedules", "decoding")
    assert not verify_golden(tmp_path)[0].ok
    shutil.copy(golden / "meta.json", tmp_path)
    shutil.copy(golden / "lr_schedules.npz", tmp_path)
    (tmp_path / "decode.npz").write_bytes(b"not a zip file")
    rows = verify_golden(tmp_path)
    failed = [row.check for row in rows if not row.ok]
    assert "relpos_buckets.npz" in failed[0] and failed[1].startswith("decoding")
    assert sum(row.check.startswith("schedule ") and row.ok for row in rows) == 8


def test_what_no_check_looks_at_is_a_failed_row_that_names_it(only, copied):
    only("relative-position buckets")
    rows = copied(
        {"traj_other": {"loss": np.zeros(3)}},
        relpos_buckets=lambda arrays: arrays | {"sideways": arrays["causal"]},
    )
    failed = {row.check for row in rows if not row.ok}
    assert failed == {
        "relpos_buckets.npz: sideways: not compared",
        "traj_other.npz: not compared",
    }


def test_a_wrong_recording_is_noticed(only, copied):
    only("schedules")
    rows = copied(
        lr_schedules=lambda arrays: (
            arrays | {"cosine": arrays["cosine"] * np.float32(1 + 1e-5)}
        )
    )
    rows = {row.check: row for row in rows}
    assert not rows["schedule cosine"].ok and rows["schedule constant"].ok
    assert rows["schedule cosine"].max_error == pytest.approx(1e-5, rel=0.1)


KEPT = "beam2_alpha1.0/padded/"


def _beams(arrays, name=KEPT, change=same):
    """One search alone, under a name, with its results changed."""
    others = ("encoder_input_tokens_padded", "max_decode_len", "score_batch/")
    kept = {k: v for k, v in arrays.items() if k.startswith(others)}
    for result in ("tokens", "scores"):
        kept[f"{name}{result}"] = change(arrays[f"{KEPT}{result}"])
    return kept


def test_faults_in_decoding_are_noticed(only, copied):
    only("decoding")

    def failed(*, params=same, **changes):
        rows = copied(
            decode=lambda arrays: _beams(arrays, **changes), decode_params=params
        )
        assert len(rows) == 3
        return [row.check for row in rows if not row.ok]

    tokens, scores = f"{KEPT[:-1]} tokens", f"{KEPT[:-1]} scores"
    assert failed() == []
    other_penalty = failed(name="beam2_alpha0.9/padded/")
    assert "beam2_alpha0.9/padded scores" in other_penalty
    assert failed(change=lambda x: x[:, ::-1]) == [tokens, scores]

    def perturbed(arrays):
        name = "decoder/layers_0/self_attention/out/kernel"
        return arrays | {name: arrays[name] * np.float32(1.01)}

    assert set(failed(params=perturbed)) >= {scores, "scores of given targets"}


def test_a_scanned_networks_arrays_are_read_layer_by_layer(golden):
    """By recorded axes alone, whatever the code knows of names."""
    recorded = Golden.open(golden)
    axes = recorded.axes("scalable_param_axes")
    for file, slot in (("params", ""), ("traj_final_opt_state", "v_col")):
        arrays = recorded.arrays(f"scalable_{file}.npz")
        flat = recorded.flat(f"scalable_{file}.npz")
        for stack, inner in (("encoder", "attention"), ("decoder", "self_attention")):
            for kernel in ("query", "out"):
                name = f"{inner}/{kernel}/kernel"
                path = f"{stack}/{stack}/{name}"
                names = [a for a in axes[path] if not (slot and a == "embed")]
                for i in range(recorded.meta["config"][stack[:3]]):
                    suffix = f"/{slot}" if slot else ""
                    layer = np.take(arrays[path + suffix], i, names.index("layers"))
                    got = flat[f"{stack}/layers_{i}/{name}{suffix}"]
                    assert got.ndim == layer.ndim - 1
                    np.testing.assert_array_equal(got.ravel(), layer.ravel())


@pytest.mark.slow
def test_a_fault_in_training_is_noticed(only, copied):
    only("training, scanned network")
    path = "encoder/encoder/mlp/wo/kernel"

    def swap_layers(arrays):
        value = arrays[f"{path}/v_row"]
        return arrays | {f"{path}/v_row": value[::-1]}

    rows = copied(
        train_batches=same,
        scalable_params=same,
        scalable_traj=same,
        scalable_traj_final_params=lambda arrays: (
            arrays | {path: arrays[path] + np.float32(3e-6)}
        ),
        scalable_traj_final_opt_state=swap_layers,
    )
    failed = [row.check for row in rows if not row.ok]
    assert len(failed) == 2
    assert "final parameters (worst: encoder/layers_" in failed[0]
    assert "v_row (worst: encoder/layers_" in failed[1]
    assert "mlp/wo/kernel" in failed[0] and "mlp/wo/kernel" in failed[1]


def test_comparisons_fail_on_nan_other_shapes_and_other_names():
    assert compare("x", [1.0], [1.0 + 1e-6], rtol=1e-5).ok
    assert not compare("x", [np.nan], [1.0], rtol=1e-5).ok
    assert not compare("x", [[1.0]], [1.0], atol=1.0).ok
    assert not compare("x", [2], [1]).ok
    got = {"a": np.ones(2), "b": {"c": np.full(1, np.nan)}}
    row = compare_trees("t", got, {"a": np.ones(2), "b/c": np.ones(1)}, atol=1.0)
    assert not row.ok and "b/c" in row.check
    assert not compare_trees("t", got, {"a": np.ones(2)}, atol=1.0).ok
