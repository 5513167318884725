"""Bad data given by a user: one message that names the place, and status 3 or 2."""

from pathlib import Path

import pytest

from flanjax.cli import main

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
import seqio
from flanjax.data.fewshot import FewShot
from flanjax.data.sources import JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile

HERE = {here!r}
add_instruction_task(
    "{name}",
    JsonlSource({{"train": HERE + "/rows.jsonl"}}),
    TemplateFile(HERE + "/templates.toml")["colour"],
    TaskInfo("test", "colour", "open", licence="CC0-1.0"),
    has_options=False,
    prompt_types=("zs_noopt",),
)
seqio.MixtureRegistry.add("{name}_mixture", [("{name}_zs_noopt", {rate})])
"""
TEMPLATES = """[[colour.templates]]
inputs = "What colour is {thing}?"
targets = "{colour}"
"""
ROWS = '{"thing": "snow", "colour": "white"}\n{"thing": "coal", "colour": "black"}\n'


@pytest.fixture
def prepare(tmp_path, monkeypatch, request):
    """Writes a small collection of a user and prepares it; returns the status."""
    name = f"bad_{abs(hash(request.node.name))}"

    def run(templates=TEMPLATES, rows=ROWS, rate=1.0, mixture=None):
        (tmp_path / "templates.toml").write_text(templates)
        (tmp_path / "rows.jsonl").write_text(rows)
        module = MODULE.format(here=str(tmp_path), name=name, rate=rate)
        (tmp_path / f"{name}.py").write_text(module)
        monkeypatch.syspath_prepend(str(tmp_path))
        gin = [
            f"--gin_file={ROOT / 'gin/recipes/tiny.gin'}",
            f"--gin.MIXTURE_OR_TASK_MODULE=('{name}',)",
            f"--gin.MIXTURE_OR_TASK_NAME={mixture or name + '_mixture'}",
            "--gin.EVALS=()",
            f"--gin.STORE_DIR={tmp_path / 'store'}",
        ]
        return main(["data", "prepare", *gin])

    return run


def test_a_small_collection_of_a_user_prepares(prepare):
    assert prepare() == 0


def test_a_malformed_row_names_file_and_line(prepare, capsys):
    assert prepare(rows=ROWS + '{"thing": "sky", "colour": \n') == 3
    assert "rows.jsonl:3" in capsys.readouterr().err


def test_a_template_with_an_unknown_field_names_file_line_and_nearest(prepare, capsys):
    wrong = TEMPLATES.replace("{thing}", "{thang}")
    assert prepare(templates=wrong) == 3
    error = capsys.readouterr().err
    assert "templates.toml:1" in error and "thing" in error


def test_a_rate_of_zero_is_refused(prepare, capsys):
    assert prepare(rate=0) == 3
    assert "zs_noopt" in capsys.readouterr().err


def test_a_mixture_nobody_registered_is_refused_with_the_nearest(prepare, capsys):
    assert prepare(mixture="tiny_") == 2
    assert "tiny_" in capsys.readouterr().err
