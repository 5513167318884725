"""A run does not go on with other data than it began with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flanjax.train.setup import _difference

ROOT = Path(__file__).resolve().parents[2]


def test_the_message_names_what_changed_came_and_went():
    before = {"a": "1", "b": "1", "c": "1"}
    now = {"a": "1", "b": "2", "d": "1"}
    assert _difference(before, now) == "changed: b; added: d; removed: c"
    assert "no task changed" in _difference(before, before)
    many = {f"t{i:02}": "1" for i in range(30)}
    assert _difference(many, {}).endswith("t09 and 20 more")


@pytest.mark.slow
def test_a_changed_template_makes_resume_refuse_and_name_the_tasks(tmp_path):
    (tmp_path / "templates").mkdir()
    shutil.copy(ROOT / "mixtures/tiny.py", tmp_path / "own_tiny.py")
    templates = tmp_path / "templates" / "tiny.toml"
    text = (ROOT / "mixtures/templates/tiny.toml").read_text()
    templates.write_text(text)

    def train(steps):
        command = [sys.executable, "-m", "flanjax", "train"]
        command += [f"--gin_file={ROOT / 'gin/recipes/tiny.gin'}"]
        values = {
            "MODEL_DIR": tmp_path / "run",
            "STORE_DIR": tmp_path / "store",
            "MIXTURE_OR_TASK_MODULE": "('own_tiny',)",
            "TRAIN_STEPS": steps,
            "EVAL_PERIOD": 0,
        }
        command += [f"--gin.{name}={value}" for name, value in values.items()]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        environment.pop("XLA_FLAGS", None)
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment
        )

    first = train(2)
    assert first.returncode == 0, first.stderr
    place = text.index("{text}", text.index("[sum_cot]"))
    templates.write_text(text[:place] + "Now: " + text[place:])
    second = train(4)
    assert second.returncode == 5, second.stderr
    assert "changed: tiny_sum" in second.stderr and "tiny_mood" not in second.stderr
