"""Bad data given by a user: one message that names the place, and status 3 or 2."""

import itertools
import json

import pytest

from flanjax.cli import main
from flanjax.data.guards import check_lengths
from flanjax.data.layout import make_layout
from flanjax.data.store import PrepareConfig, ResolvedMixture, resolved_path
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import DataError

MODULE = """
import seqio
from flanjax.data.fewshot import FewShot
from flanjax.data.sources import JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile

HERE = {here!r}
add_instruction_task(
    "{name}",
    JsonlSource({{"train": HERE + "/rows.jsonl"}}, fields={fields}),
    TemplateFile(HERE + "/templates.toml")["colour"],
    TaskInfo("test", "colour", "open", licence="CC0-1.0"),
    has_options={has_options},
    prompt_types=("{prompt_type}",),
    few_shot=FewShot(max_tokens=100),
)
seqio.MixtureRegistry.add("{name}_mixture", [("{name}_{prompt_type}", {rate})])
"""
TEMPLATES = """[[colour.templates]]
inputs = "What colour is {thing}?"
targets = "{colour}"
"""
ROWS = '{"thing": "snow", "colour": "white"}\n{"thing": "coal", "colour": "black"}\n'
numbers = itertools.count()


class Collection:
    """A small collection of a user in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.name = folder, f"bad_{next(numbers)}"
        self.store = folder / "store"

    def write(self, templates=TEMPLATES, rows=ROWS, more="", **settings):
        """Writes its files; `more` is Python behind the module's end."""
        (self.folder / "templates.toml").write_text(templates)
        if rows is not None:
            data = rows if isinstance(rows, bytes) else rows.encode()
            (self.folder / "rows.jsonl").write_bytes(data)
        defaults = {"fields": None, "has_options": False, "rate": 1.0}
        filled = {**defaults, "prompt_type": "zs_noopt", **settings}
        text = MODULE.format(here=str(self.folder), name=self.name, **filled)
        text += more.replace("NAME", self.name)
        (self.folder / f"{self.name}.py").write_text(text)

    def prepare(self, *flags, mixture="mixture"):
        """Returns the command's status."""
        command = ["data", "prepare", f"{self.name}_{mixture}", *flags]
        command += ["--mixtures", self.name, "--store_dir", str(self.store)]
        return main(command)

    def resolved(self, **settings):
        name = f"{self.name}_mixture"
        store = str(self.store)
        config = PrepareConfig(name, (self.name,), "bytes", store, **settings)
        return ResolvedMixture.load(resolved_path(config))

    def left(self):
        """What the store holds, empty directories and hidden files included."""
        return sorted(str(p.relative_to(self.store)) for p in self.store.rglob("*"))


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return Collection(tmp_path)


@pytest.fixture
def refused(collection, capsys):
    """Writes and prepares what cannot be; returns the status and the one message."""

    def run(mixture="mixture", **content):
        collection.write(**content)
        status = collection.prepare(mixture=mixture)
        assert not collection.left(), "nothing half-written stays"
        error = capsys.readouterr().err
        assert error.count("error: ") == 1 and "Traceback" not in error
        return status, error

    return run


def test_a_small_collection_of_a_user_prepares(collection):
    collection.write()
    assert collection.prepare() == 0
    assert ".scratch" not in collection.left()


def test_a_malformed_row_names_file_and_line(refused):
    status, error = refused(rows=ROWS + '{"thing": "sky", "colour": \n')
    assert status == 3 and "rows.jsonl:3" in error


def test_a_row_without_a_field_names_row_and_field(refused):
    status, error = refused(rows=ROWS + '{"thing": "sky"}\n')
    assert status == 3 and "rows.jsonl:3 has no field 'colour'" in error


def test_a_row_that_the_fields_function_cannot_read_names_row_and_key(refused):
    fields = 'lambda row: {"thing": row["thing"], "colour": row["colour"]}'
    status, error = refused(rows=ROWS + '{"thing": "sky"}\n', fields=fields)
    assert status == 3 and "rows.jsonl:3" in error and "colour" in error


def test_text_that_is_not_utf_8_names_file_and_line(refused):
    rows = ROWS.encode() + '{"thing": "sky", "colour": "blauweiß"}\n'.encode("latin-1")
    status, error = refused(rows=rows)
    assert status == 3 and "not UTF-8" in error and "rows.jsonl:3" in error


def test_a_missing_file_is_named_with_the_way_on(refused):
    status, error = refused(rows=None)
    assert status == 3 and "no such file" in error and "rows.jsonl" in error
    assert "--allow_missing" in error


@pytest.mark.parametrize("rows", ["", "\n"])
def test_an_empty_file_is_refused(refused, rows):
    status, error = refused(rows=rows)
    assert status == 3 and "no rows in split 'train'" in error and "rows.jsonl" in error


def test_a_fields_function_that_skips_every_row_is_refused(refused):
    status, error = refused(fields="lambda row: None")
    assert status == 3 and "no rows" in error and "skips every row" in error


def test_a_budget_that_no_exemplar_fits_names_budget_and_shortest_prompt(refused):
    rows = [{"thing": "x" * 90 + str(i), "colour": str(i)} for i in range(9)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    status, error = refused(rows=lines, prompt_type="fs_noopt")
    assert status == 3 and "few-shot budget of 100 tokens" in error
    shortest = int(error.split("one exemplar has ")[1].split()[0])
    assert 2 * 91 < shortest < 300 and "max_tokens" in error


def test_a_row_with_27_options_is_refused_and_named(refused):
    options = [f"c{i}" for i in range(27)]
    row = {"thing": "sky", "colour": "c3", "answer": "c3", "options": options}
    templates = TEMPLATES.replace("?", "?{options_}").replace("{colour}", "{answer}")
    status, error = refused(
        rows=json.dumps(row) + "\n",
        templates=templates,
        has_options=True,
        prompt_type="zs_opt",
    )
    assert status == 3 and "27 options" in error and "rows.jsonl:1" in error
    assert "bullets" in error


def test_a_template_with_an_unknown_field_names_file_line_and_nearest(refused):
    status, error = refused(templates=TEMPLATES.replace("{thing}", "{thang}"))
    assert status == 3 and "templates.toml:1" in error and "thing" in error


def test_a_rate_of_zero_is_refused(collection, capsys):
    collection.write(rate=0)
    assert collection.prepare() == 3
    assert "zs_noopt" in capsys.readouterr().err
    assert not (collection.store / "mixtures").exists()


def test_a_mixture_nobody_registered_is_refused_with_the_nearest(refused):
    status, error = refused(mixture="mixtur")
    assert status == 2 and "_mixtur'" in error and "_mixture'?" in error


def test_a_second_mixture_or_task_of_one_name_is_refused_at_its_line(refused):
    again = 'seqio.MixtureRegistry.add("NAME_mixture", [("NAME_zs_noopt", 1)])\n'
    status, error = refused(more=again)
    line = MODULE.count("\n") + 1
    assert status == 2 and "duplicate" in error and f".py:{line}" in error


def test_a_second_task_of_one_name_is_refused(refused):
    again = MODULE[MODULE.index("add_instruction_task(\n") : MODULE.index("seqio.Mix")]
    filled = again.format(
        here="", name="NAME", fields=None, has_options=False, prompt_type="zs_noopt"
    )
    status, error = refused(more=filled)
    assert status == 2 and "a task named 'bad_" in error and "exists already" in error


def test_a_mixture_of_a_mixture_that_comes_later_is_refused_at_its_line(refused):
    cycle = 'seqio.MixtureRegistry.add("NAME_a", [("NAME_b", 1)])\n'
    cycle += 'seqio.MixtureRegistry.add("NAME_b", [("NAME_a", 1)])\n'
    status, error = refused(more=cycle)
    line = MODULE.count("\n") + 1
    assert status == 2 and f".py:{line}" in error and "_b" in error


def test_mixtures_that_hold_each_other_are_refused_with_the_circle(refused):
    cycle = """
seqio.MixtureRegistry.add("NAME_b", [("NAME_zs_noopt", 1)])
seqio.MixtureRegistry.add("NAME_a", [("NAME_b", 1)])
seqio.MixtureRegistry.remove("NAME_b")
seqio.MixtureRegistry.add("NAME_b", [("NAME_a", 1)])
"""
    status, error = refused(more=cycle, mixture="a")
    assert status == 2 and "_a > bad_" in error and "_b > bad_" in error


def test_a_task_whose_every_example_is_too_long_is_refused_by_the_guard(collection):
    collection.write()
    assert collection.prepare() == 0
    vocabulary = load_vocabulary("bytes")
    lengths = {"inputs": 8, "targets": 8}
    layout = make_layout("encoder_decoder", lengths, vocabulary)
    with pytest.raises(DataError, match="100.0% inputs truncated of 2 examples"):
        check_lengths(collection.resolved(), collection.store, layout)


def test_with_allow_missing_the_rest_shares_what_is_left_and_the_ledger_says_so(
    collection, capsys
):
    more = """
for number in (1, 2):
    add_instruction_task(
        f"NAME_gone{number}",
        JsonlSource({"train": f"{HERE}/gone{number}.jsonl"}),
        TemplateFile(HERE + "/templates.toml")["colour"],
        TaskInfo("test", "colour", "open"),
        prompt_types=("zs_noopt",),
    )
seqio.MixtureRegistry.add(
    "NAME_inner", [("NAME_zs_noopt", 1), ("NAME_gone1_zs_noopt", 9)]
)
add_instruction_task(
    "NAME_more",
    JsonlSource({"train": HERE + "/rows.jsonl"}),
    TemplateFile(HERE + "/templates.toml")["colour"],
    TaskInfo("test", "colour", "open"),
    prompt_types=("zs_noopt",),
)
seqio.MixtureRegistry.add(
    "NAME_outer",
    [("NAME_inner", 1), ("NAME_more_zs_noopt", 3), ("NAME_gone2_zs_noopt", 4)],
)
"""
    collection.write(more=more)
    flags = ["--mixtures", collection.name, "--store_dir", str(collection.store)]
    show = ["mixture", "show", f"{collection.name}_outer", *flags, "--allow_missing"]
    assert collection.prepare(mixture="outer") == 3
    assert "2 tasks of test: no such file" in capsys.readouterr().err
    assert collection.prepare("--allow_missing", mixture="outer") == 0
    out = capsys.readouterr().out
    assert "left out: 2 tasks of test: no such file" in out
    assert main([*show, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["share"] for row in shown["members"]] == [0.25, 0.75]
    missing = {(each["task"], each["what"]) for each in shown["missing"]}
    name = collection.name
    assert missing == {
        (f"{name}_gone{number}_zs_noopt", "no such file") for number in (1, 2)
    }
    assert main(show) == 0
    assert "left out: 2 tasks: no such file" in capsys.readouterr().out
