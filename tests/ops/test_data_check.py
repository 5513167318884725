"""`flanjax data check` from its command line, and training that heeds it."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_MODULE = """
import json
from pathlib import Path
import seqio
from flanjax.data.sources import JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import Template
from flanjax.eval.suites import EvalSpec, add_eval

HERE = Path(__file__).parent
TEMPLATES = [Template("t/0", "Read this and answer: {text}", "{answer}"),
             Template("t/1", "{text} What would you say?", "{answer}")]

def add(name, split):
    source = JsonlSource({split: HERE / f"{name}.jsonl"})
    info = TaskInfo("test", name, "open", licence="CC0-1.0")
    add_instruction_task(name, source, TEMPLATES, info, prompt_types=["zs_noopt"])

add("exam", "test")
for name in ("clean", "renamed", "copied", "loud"):
    add(name, "train")
    seqio.MixtureRegistry.add(f"mix_{name}", [(f"{name}_zs_noopt", 1.0)])
seqio.MixtureRegistry.add(
    "mix_all", [(f"{n}_zs_noopt", 1.0) for n in ("clean", "renamed", "copied", "loud")])
add_eval(EvalSpec("exam", "exam_zs_noopt"))
"""


def _rows(rng: random.Random, count: int) -> list[dict]:
    words = [f"w{number}" for number in range(400)]
    return [
        {"text": " ".join(rng.choices(words, k=20)), "answer": rng.choice(words)}
        for _ in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(0)
    exam, clean = _rows(rng, 50), _rows(rng, 60)
    loud = {**exam[4], "text": exam[4]["text"].upper().replace(" ", "   ")}
    files = {
        "exam": exam,
        "clean": clean,
        "renamed": [{**row, "answer": "x"} for row in exam],
        "copied": [*_rows(rng, 30), exam[11]],
        "loud": [*_rows(rng, 30), loud],
    }
    for name, rows in files.items():
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "leaky_tasks.py").write_text(_MODULE)
    return tmp_path


def _check(folder: Path, mixture: str) -> tuple[int, dict]:
    command = [sys.executable, "-m", "flanjax", "data", "check", mixture]
    command += ["--mixtures", "leaky_tasks", "--store_dir", "store", "--json"]
    command += ["--lengths", "300,32"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 3), done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_three_planted_leaks_are_found_and_the_clean_task_is_not(folder: Path):
    status, verdict = _check(folder, "mix_all")
    assert status == 3
    found = {o["task"]: o for o in verdict["overlaps"]}
    assert set(found) == {"renamed", "copied", "loud"}
    assert found["renamed"]["exact_rows"] == 50
    assert found["copied"]["exact_rows"] == found["loud"]["exact_rows"] == 1
    assert found["copied"]["quotes"][0]["held_out_row"] == "exam.jsonl:12"
    assert len(verdict["failed"]) == 3


def test_a_clean_mixture_passes(folder: Path):
    status, verdict = _check(folder, "mix_clean")
    assert (status, verdict["failed"], verdict["overlaps"]) == (0, [], [])


def test_training_refuses_a_mixture_whose_check_failed(folder: Path):
    flags = [
        "--gin_file=gin/recipes/tiny.gin",
        "--gin.SEED=7",
        "--gin.MIXTURE_OR_TASK_NAME=mix_copied",
        "--gin.MIXTURE_OR_TASK_MODULE=leaky_tasks",
        "--gin.PrepareConfig.store_dir=store",
        "--gin.PrepareConfig.evals=()",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 300, 'targets': 32}",
        "--gin.TRAIN_STEPS=1",
        "--gin.RunConfig.initial_eval=False",
    ]
    flanjax = [sys.executable, "-m", "flanjax"]
    checked = subprocess.run(
        [*flanjax, "data", "check", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert checked.returncode == 3, checked.stderr[-2000:]
    command = [*flanjax, "train", "--gin.MODEL_DIR=run", *flags]
    refused = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert refused.returncode == 3, refused.stderr[-2000:]
    assert "copied holds 1 rows of exam" in refused.stderr
    assert "allow_failed_check" in refused.stderr
    allowed = subprocess.run(
        [*command, "--gin.DataConfig.allow_failed_check=True"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert allowed.returncode == 0, allowed.stderr[-2000:]
    assert "although the data check failed" in allowed.stdout
