"""`flanjax check` compiles for simulated devices and absent TPUs; what would fit."""

import json
import os
import subprocess
import sys

import pytest

from flanjax.cli import main
from flanjax.ops.preflight_compile import _needed
from flanjax.ops.topology import has_libtpu

DECODER = """
include "gin/recipes/tiny.gin"
MODEL = @DecoderConfig()
DecoderConfig:
  vocab_size = 384
  emb_dim = 128
  num_heads = 4
  num_kv_heads = 2
  head_dim = 32
  mlp_dim = 256
  num_layers = 2
"""


@pytest.fixture(params=["encoder_decoder", "decoder"])
def recipe(request, tmp_path) -> str:
    if request.param == "encoder_decoder":
        return "gin/recipes/tiny.gin"
    (tmp_path / "decoder.gin").write_text(DECODER)
    return str(tmp_path / "decoder.gin")


def _check(capsys, *flags) -> tuple[int, dict]:
    status = main(["check", *flags, "--no_data", "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_told_what_would_and_that_fits(recipe, capsys):
    flags = [f"--gin_file={recipe}", "--topology", "cpu:8", "--gin.BATCH_SIZE=64"]
    flags.append("--gin.DataConfig.feature_lengths={'inputs': 256, 'targets': 64}")
    status, found = _check(capsys, *flags)
    assert status == 0
    memory = found["train"]["memory"]
    parts = ("arguments", "outputs", "temporaries", "code")
    assert memory["peak"] == sum(memory[part] for part in parts)
    assert found["decode"]["memory"]["peak"] > 0
    assert found["train"]["collectives"][0]["kind"] == "all-reduce"

    gib = str(0.75 * memory["peak"] / 2**30)
    status, found = _check(capsys, *flags, "--hbm", gib, "--no_compile")
    assert status == 2
    (problem,) = found["problems"]
    assert "does not fit" in problem["what"]
    kinds = {kind for change in found["changes"] for kind in change["kinds"]}
    assert kinds >= {"remat", "microbatches"}
    for change in found["changes"][:2]:
        assert all(flag in problem["fix"] for flag in change["flags"])
        status, applied = _check(capsys, *flags, "--hbm", gib, *change["flags"])
        assert status == 0, change
        assert applied["train"]["memory"]["peak"] < float(gib) * 2**30


@pytest.mark.slow
def test_a_process_of_its_own_makes_the_devices_it_needs():
    flags = ["--gin_file=gin/recipes/tiny.gin", "--topology", "cpu:4", "--no_data"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "flanjax", "check", *flags, "--no_compile"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "mesh on cpu:4: data 4" in done.stdout


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
            "the total memory required for HLO temporaries (20.05G) exceeds available "
            "HBM (15.75G).",
            20.05,
        ),
        ("XLA:TPU compile permanent error. Used 512.0M of 256.0M hbm.", 0.5),
    ],
)
def test_what_libtpu_says_when_memory_does_not_suffice_is_read(message, gib):
    assert _needed(message) == pytest.approx(gib * 2**30)
    assert _needed("INTERNAL: something else") is None


@pytest.mark.slow
@pytest.mark.skipif(not has_libtpu(), reason="needs libtpu (pip install flanjax[tpu])")
def test_a_tpu_that_is_not_here_is_compiled_for(tmp_path):
    flags = ["--gin_file=gin/recipes/tiny.gin", "--topology", "v5e:2x2", "--no_data"]
    flags += ["--gin.MeshConfig.fsdp=4", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "flanjax", "check", *flags],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["train"]["memory"]["peak"] < found["hbm_bytes"]
    kinds = {one["kind"] for one in found["train"]["collectives"]}
    assert "all-gather" in kinds
    assert found["peak_flops"] == 4 * 197e12
