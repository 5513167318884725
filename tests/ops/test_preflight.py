"""`flanjax check`: what it says of topologies, data, weights and memory."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flanjax.cli import main
from flanjax.config import load_config
from flanjax.data.store import (
    EvalEntry,
    Example,
    Member,
    ResolvedMixture,
    TaskWriter,
    resolved_path,
)
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError, DataError
from flanjax.eval.suites import EvalSpec, to_json
from flanjax.ops import preflight
from flanjax.ops.preflight_data import look_at_data
from flanjax.ops.topology import CHIPS, GIB, parse_topology
from flanjax.progress import Progress
from flanjax.train.peak import peak_flops

RECIPE = "gin/recipes/tiny.gin"
TINY = [f"--gin_file={RECIPE}", "--topology", "cpu:8"]


@pytest.mark.parametrize(
    ("text", "devices", "gib"),
    [
        ("v5p:8x8x4", 256, 95),
        ("v5e:16x16", 256, 16),
        ("v6e:2x4", 8, 32),
        ("v4:4x4x4", 64, 32),
        ("tpu7x:2x2x1", 8, 96),  # Two devices on each chip.
    ],
)
def test_a_topology_names_its_devices_and_their_memory(text, devices, gib):
    topology = parse_topology(text)
    assert topology.num_devices == devices
    assert topology.hbm == gib * GIB
    assert topology.peak and topology.peak > 1e14
    assert parse_topology(text, slices=3).num_devices == 3 * devices


def test_every_chip_has_a_peak_and_an_example_that_parses():
    for chip in CHIPS.values():
        assert parse_topology(chip.example).peak


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5", "v5p"), ("TPU v5 lite", "v5e"), ("TPU v6 lite", "v6e")],
)
def test_the_kinds_that_libtpu_reports_have_the_peaks_of_their_chips(kind, name):
    device = SimpleNamespace(device_kind=kind)
    assert peak_flops([device]) == parse_topology(CHIPS[name].example).peak


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v5p-512", "Did you mean 'v5p'?"),
        ("v5p:512", "512 chips is no shape"),
        ("v5e:4x4x4", "v5e:AxB"),
        ("v9:2x2", "families: v4, v5e, v5p, v6e, tpu7x, cpu"),
        ("cpu:0", "cpu:N"),
        ("v4:", "v4:4x4x4"),
    ],
)
def test_a_topology_that_does_not_exist_ends_with_status_2(text, said, capsys):
    assert main(["check", f"--gin_file={RECIPE}", "--topology", text]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "no configuration given"),
        ([*TINY, "--mfu", "0"], "--mfu is 0"),
        ([*TINY, "--hbm=-1"], "--hbm is -1"),
        ([*TINY, "--slices", "0"], "--slices is 0"),
        ([*TINY, "--gin.MeshConfig.tensor=3"], "does not fit 8 device(s)"),
        ([*TINY, "--gin.MeshConfig.tensor=8"], "4 attention heads"),
        ([*TINY, "--gin.BATCH_SIZE=12"], "does not divide"),
        ([*TINY, "--gin.T5Config.remat_policy=ful"], "Did you mean 'full'?"),
    ],
)
def test_a_configuration_that_cannot_run_ends_with_status_2(flags, said, capsys):
    assert main(["check", *flags, "--no_data", "--no_compile"]) == 2
    assert said in capsys.readouterr().err


def test_an_estimate_is_printed_as_json(capsys):
    flags = [*TINY, "--gin.MeshConfig.fsdp=8", "--hbm", "1"]
    assert main(["check", *flags, "--no_data", "--no_compile", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"data": 1, "fsdp": 8, "sequence": 1, "tensor": 1}
    parts = dict(found["estimate"])
    assert parts.pop("peak") == sum(parts.values())
    # 886,272 float32 parameters and two moments; only relative biases are whole.
    assert parts["parameters"] == pytest.approx(886_272 * 4 / 8, rel=0.01)
    assert parts["optimizer"] == pytest.approx(2 * parts["parameters"], rel=0.01)
    assert found["step_seconds"] == pytest.approx(
        found["step_flops"] / (0.4 * found["peak_flops"])
    )
    assert found["train"] is None and found["problems"] == []


def test_without_libtpu_memory_is_estimated_and_it_says_so(monkeypatch):
    monkeypatch.setattr(preflight, "has_libtpu", lambda: False)
    config, _ = load_config([RECIPE], ["MODEL_DIR=x", "MeshConfig.fsdp=4", "EVALS=()"])
    options = preflight.Options(topology=parse_topology("v5e:2x2"), data=False)
    report = preflight.preflight(config, options, Progress())
    assert "libtpu is not installed" in report.notes[0]
    assert "pip install 'flanjax[tpu]'" in report.notes[0]
    assert report.train is None and report.estimate is not None
    assert report.needed == report.estimate.peak
    assert not report.problems


@pytest.fixture
def config(tmp_path: Path):
    """The tiny run, with two tasks and an evaluation written as `prepare` would."""
    config, _ = load_config(
        [RECIPE], [f"MODEL_DIR={tmp_path}", f"STORE_DIR={tmp_path / 'store'}"]
    )
    good = [Example(np.arange(5, 20), np.array([7, 8]), {})] * 4
    members = tuple(
        Member(n, 1.0, 0.5, None, 4, _write(config, n, good), "f", {}) for n in "ab"
    )
    spec = EvalSpec("exam", "a", max_decode_tokens=5)
    vocabulary = load_vocabulary("bytes")
    ResolvedMixture(
        version=json.loads(_info(config, "a").read_text())["version"],
        name="tiny",
        vocabulary={
            "spec": "bytes",
            "fingerprint": vocabulary.fingerprint(),
            "size": vocabulary.size,
        },
        seed=0,
        passes=1,
        members=members,
        validation=(),
        evals=(EvalEntry(to_json(spec), _write(config, "exam", good), "f", 4),),
        files={},
    ).save(resolved_path(config.prepare))
    return config


def _info(config, name: str) -> Path:
    return Path(config.prepare.store_dir) / "tasks" / name / "info.json"


def _write(config, name: str, examples) -> str:
    folder = _info(config, name).parent
    folder.mkdir(parents=True, exist_ok=True)
    writer = TaskWriter(folder)
    for example in examples:
        writer.add(example)
    writer.finish({})
    return f"tasks/{name}"


def test_one_example_of_every_task_is_laid_out(config):
    found = look_at_data(config, "prepare it")
    assert (found.members, found.examples, found.evals) == (2, 8, ("exam",))
    assert found.new_tokens == 5


def test_data_that_are_not_prepared_come_with_the_command(config):
    resolved_path(config.prepare).unlink()
    with pytest.raises(DataError, match="not prepared yet") as caught:
        look_at_data(config, "flanjax data prepare --gin_file=x")
    assert caught.value.fix == "flanjax data prepare --gin_file=x"


def test_every_task_that_fails_is_named_with_its_reason(config):
    _write(config, "a", [Example(np.array([5, 384]), np.array([7]), {})])
    (_info(config, "b").parent / "lengths.npy").write_bytes(b"damaged")
    _write(config, "exam", [])
    with pytest.raises(DataError) as caught:
        look_at_data(config, "prepare it")
    what = caught.value.what
    assert "3 of the run's tasks" in what
    assert "a: it holds the token id 384, and the model has 384" in what
    assert "b: prepared task is missing or damaged" in what
    assert "eval exam: it has no examples" in what


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path):
    config, _ = load_config([RECIPE], ["MODEL_DIR=x", "T5Config.vocab_size=300"])
    with pytest.raises(ConfigError, match="384 ids and the model 300"):
        look_at_data(config, "prepare it")


def test_weights_that_cannot_be_opened_are_reported_with_their_place(config, capsys):
    flags = [f"--gin.STORE_DIR={config.prepare.store_dir}", "--no_compile", "--json"]
    flags.append(f"--gin.INITIAL_CHECKPOINT_PATH={config.model_dir}/weights")
    status = main(["check", *TINY, *flags])
    problems = json.loads(capsys.readouterr().out)["problems"]
    (problem,) = [p for p in problems if config.model_dir in str(p)]
    assert status == problems[0]["status"] and problem["status"] in (2, 5)
    assert problem["fix"]
