"""Registering costs nothing, and what is wrong with a task is said with its place."""

import time

import pytest
import seqio

from flanjax.data import tasks
from flanjax.data.sources import FunctionSource, JsonlSource
from flanjax.data.tasks import (
    TaskInfo,
    add_instruction_task,
    import_mixtures,
    task_examples,
    task_names,
)
from flanjax.data.templates import Template, TemplateFile, load_templates
from flanjax.errors import ConfigError, DataError

INFO = TaskInfo("test", "colours", "choice")
TOML = """
[[colours.templates]]
inputs = "{text}\\n\\nWhich of {number}?\\n\\n{options_}"
targets = "{answer}"
"""


def _rows(split):
    yield {"text": "a", "number": 1, "answer": "red", "options": ["red", "blue"]}


SOURCE = FunctionSource(_rows, ("train", "test"), "rows")


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(tasks, "_TASKS", {})


@pytest.fixture
def templates(tmp_path):
    path = tmp_path / "colours.toml"
    path.write_text(TOML)
    return TemplateFile(path)["colours"]


def _add(name, templates, source=SOURCE, **arguments):
    return add_instruction_task(name, source, templates, INFO, **arguments)


def _examples(name, split="train"):
    return task_examples(name, split, 10)


def test_hundreds_of_tasks_register_in_under_a_second_and_read_nothing(tmp_path):
    source = JsonlSource({"train": tmp_path / "absent.jsonl"})
    file = TemplateFile(tmp_path / "absent.toml")
    start, before = time.process_time(), len(task_names())
    for i in range(150):
        _add(f"t{i}", file["x"], source, has_options=True)
    assert time.process_time() - start < 1
    assert len(task_names()) == before + 600
    with pytest.raises(DataError, match=r"absent\.toml"):
        _examples("t0_zs_opt")


def test_a_template_with_an_unknown_field_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(TOML.replace("{text}\\n\\nWhich", "{txt}\\n\\nWhich"))
    _add("bad", TemplateFile(path)["colours"])
    with pytest.raises(DataError, match="unknown field 'txt'") as error:
        _examples("bad_zs_noopt")
    line = load_templates(path)["colours"][0].where
    assert line == f"{path}:2" and line in str(error.value)
    assert "Did you mean 'text'" in str(error.value)


def test_a_row_without_a_field_or_without_options_is_named():
    def rows(split):
        yield {"text": "a", "answer": "x", "options": ["x"]}
        yield {"text": None, "answer": "x", "options": []}

    source = FunctionSource(rows, ("train",), "r")
    cases = {
        "field": ("{text}", "no field 'text'"),
        "opts": ("{options_}", "0 options"),
    }
    for name, (text, message) in cases.items():
        template = [Template("t/0", text, "{answer}", "f:1")]
        _add(name, template, source, prompt_types=["zs_opt"])
        with pytest.raises(DataError, match=f"r:train:2 has {message}"):
            _examples(f"{name}_zs_opt")


def test_choices_that_make_no_sense_are_refused_at_registration(templates):
    for arguments, message in (
        ({"prompt_types": ["zs_optt"]}, "Did you mean 'zs_opt'"),
        ({"option_style": "radnom"}, "Did you mean 'random'"),
        ({"template_assignment": "round"}, "Did you mean 'round_robin'"),
        ({"exemplar_split": "tran"}, "Did you mean 'train'"),
    ):
        with pytest.raises(ConfigError, match=message):
            _add("refused", templates, **arguments)
    _add("colours", templates)
    with pytest.raises(ConfigError, match="exists already"):
        _add("colours", templates)


def test_templates_that_give_options_away_or_hide_them_are_refused(templates):
    _add("away", templates, has_options=True, option_fields=["number"])
    with pytest.raises(DataError, match="shows options") as error:
        _examples("away_zs_noopt")
    assert templates.load()[0].where in str(error.value)
    blind = [Template("b/0", "{text}", "{answer}", "b.toml:1")]
    _add("blind", blind, has_options=True)
    with pytest.raises(DataError, match="no template of blind_zs_opt shows"):
        _examples("blind_zs_opt")
    with pytest.raises(DataError, match="no template for only_fs_opt"):
        only = [Template("o/0", "{text}", "{answer}", prompt_types=("zs_opt",))]
        _add("only", only, prompt_types=["fs_opt"])
        _examples("only_fs_opt")


def test_unknown_names_splits_and_modules_are_configuration_errors(templates):
    _add("colours", templates, has_options=True)
    with pytest.raises(ConfigError, match="Did you mean 'colours_zs_opt'"):
        _examples("colours_zs_op")
    with pytest.raises(ConfigError, match="no split 'dev'"):
        _examples("colours_zs_opt", "dev")
    with pytest.raises(ConfigError, match="no module 'mixtures_absent"):
        import_mixtures(["mixtures_absent.x"])
