"""Tables of rows: what they keep, what they say of bad rows, what they cost."""

import subprocess
import sys

import pytest

from flanjax.data import rows as rows_module
from flanjax.data.rows import load_table, read_rows
from flanjax.data.sources import FunctionSource, JsonlSource
from flanjax.data.templates import Template
from flanjax.errors import DataError

TEMPLATES = [Template("t/0", "{text}\n{options_}", "{answer}")]


def _source(rows):
    return FunctionSource(lambda split: iter(rows), ("train",), "r")


def test_rows_equal_in_all_but_the_answer_have_one_key_and_share_their_options():
    rows = [
        {"text": f"t{i // 2}", "answer": "ab"[i % 2], "options": ["a", "b"]}
        for i in range(4)
    ]
    table = load_table(_source(rows), "train", TEMPLATES, "answer")
    assert table.fields == ("answer", "text") and table.values[3] == ("b", "t1")
    first, second, third, _ = table.keys
    assert first == second != third
    assert table.options[0] is table.options[3]


def test_rows_of_answers_alone_are_told_apart_by_them():
    rows = [{"answer": "a", "dialog": ["x"]}, {"answer": "b", "dialog": ["x"]}]
    templates = [Template("t/0", "Say something.", "{answer}")]
    one, other = load_table(_source(rows), "train", templates, "answer").keys
    assert one != other
    templates = [Template("t/0", "{dialog_}", "{answer}")]
    one, other = load_table(_source(rows), "train", templates, "answer").keys
    assert one == other


def test_a_bad_row_of_a_file_is_named_by_file_line_and_field(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = '{"text": "a", "answer": "b", "options": ["b"]}\n'
    source = JsonlSource({"train": path})
    for bad, message in (
        ('{"text": null, "answer": "b", "options": ["b"]}', "no field 'text'"),
        ('{"text": ["a"], "answer": "b", "options": ["b"]}', "a list for the field"),
        (
            '{"text": "a", "answer": "b", "options": "b"}',
            "a str in its field 'options'",
        ),
        ('{"text": "a", "answer": "c", "options": ["b"]}', "the answer 'c'"),
        ('{"text": "a", "answer": "b"}', "0 options"),
    ):
        path.write_text(good + bad + "\n")
        with pytest.raises(DataError, match=f"row rows.jsonl:2 has {message}") as error:
            load_table(source, "train", TEMPLATES, "answer")
        assert str(path) in str(error.value) and "fix:" in str(error.value)


def test_an_answer_may_differ_from_its_option_in_space_around_it():
    rows = [{"text": "t", "answer": "b ", "options": ["a", " b"]}]
    assert load_table(_source(rows), "train", TEMPLATES, "answer").values


def test_the_forms_of_a_dataset_read_its_rows_once_and_few_are_kept(monkeypatch):
    monkeypatch.setattr(rows_module, "_kept", type(rows_module._kept)())
    monkeypatch.setattr(rows_module, "_ROWS_KEPT", 10)
    read = []

    def rows(split):
        read.append(split)
        yield from ({"text": str(i)} for i in range(4))

    source = FunctionSource(rows, ("a", "b", "c"), "r")
    for split in ("a", "b", "a", "b", "c", "b", "a"):
        assert len(read_rows(source, split)) == 4
    assert read == ["a", "b", "c", "a"]


_LARGE = """
from pathlib import Path
from flanjax.data.rows import load_table
from flanjax.data.sources import FunctionSource
from flanjax.data.templates import Template

def rows(split):
    for i in range(200_000):
        text = f"row {i} " + "x" * 1000
        yield {"text": text, "options": ["yes", "no"], "answer": "no"}

templates = [Template("t/0", "{text}\\n{options_}", "{answer}")]
table = load_table(FunctionSource(rows, ("train",), "r"), "train", templates, "answer")
# Not getrusage: its peak is that of the process that started this one, if larger.
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hundred_thousand_rows_of_a_kilobyte_take_under_a_gigabyte():
    command = [sys.executable, "-c", _LARGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000  # kB. Measured: 400,000.
