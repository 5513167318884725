"""Rows come from files as they are, and a bad one is named by file and line."""

import gzip
import json
import zipfile

import pytest

from flanjax.data import identity
from flanjax.data.identity import function_identity
from flanjax.data.natural_instructions import NaturalInstructionsSource
from flanjax.data.sources import (
    FunctionSource,
    JsonlSource,
    PartitionedSource,
    TsvSource,
    ZipSource,
)
from flanjax.errors import ConfigError, DataError

LABELS = ("no", "yes")


def _labelled(row):
    return {"text": row["text"], "answer": LABELS[row["label"]]}


def _jsonl(path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    content = lines.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_rows_have_mapped_fields_and_ids_of_their_lines(tmp_path, name):
    path = _jsonl(tmp_path / name, [{"text": str(i), "label": i % 2} for i in range(5)])
    source = JsonlSource(
        {"train": path}, fields=lambda r: None if r["text"] == "1" else _labelled(r)
    )
    rows = list(source.rows("train"))
    assert [row["text"] for row in rows] == ["0", "2", "3", "4"]
    assert [row["row_id"] for row in rows] == [f"{name}:{i}" for i in (1, 3, 4, 5)]
    assert rows == list(source.rows("train"))


def test_a_limit_counts_the_rows_that_are_kept(tmp_path):
    path = _jsonl(tmp_path / "a.jsonl", [{"n": i} for i in range(9)])
    odd = JsonlSource({"train": path}, lambda r: r if r["n"] % 2 else None, limit=2)
    assert [row["n"] for row in odd.rows("train")] == [1, 3]


@pytest.mark.parametrize(
    ("line", "message"),
    [(b'{"text": ', "malformed JSON"), (b"[1]", "not an object"), (b"\xff", "UTF-8")],
)
def test_a_malformed_jsonl_row_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=message) as error:
        list(JsonlSource({"train": path}).rows("train"))
    assert f"{path}:3" in str(error.value)
    assert error.value.exit_code == 3


def test_a_row_that_fields_cannot_map_is_named_with_its_keys(tmp_path):
    path = _jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": 0}, {"txt": "x"}])
    with pytest.raises(DataError, match=r"a\.jsonl:2.*") as error:
        list(JsonlSource({"train": path}, fields=_labelled).rows("train"))
    assert "the keys txt" in str(error.value)


def test_a_missing_file_and_an_unknown_split_say_what_to_do(tmp_path):
    source = JsonlSource({"train": tmp_path / "none.jsonl"})
    with pytest.raises(DataError, match="none.jsonl"):
        list(source.rows("train"))
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        list(source.rows("trian"))


def test_a_literal_backslash_n_in_tsv_is_a_newline(tmp_path):
    path = tmp_path / "cot.tsv"
    path.write_text('Which?\\nOptions:\\n- "a"\ta\tBecause.\\nSo.\n')
    source = TsvSource({"train": path}, columns=("question", "answer", "rationale"))
    (row,) = source.rows("train")
    assert row["question"] == 'Which?\nOptions:\n- "a"'
    assert row["rationale"] == "Because.\nSo."


def test_a_tsv_line_with_a_column_too_many_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("question\tanswer\n1\t2\n1\t2\t3\n")
    with pytest.raises(DataError, match=r"a\.tsv:3"):
        list(TsvSource({"train": path}).rows("train"))


def test_zip_members_are_read_in_turn_and_nothing_is_opened_before(tmp_path):
    archive, calls = tmp_path / "wheel.whl", []
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("data/a.jsonl", '{"q": "1"}\n')
        writer.writestr("data/b.jsonl.gz", gzip.compress(b'{"q": "2"}\n'))
        writer.writestr("data/c.csv", 'q,r\n"two\nlines",x\n')
        writer.writestr("data/d.json", '[{"q": "4"}]')
    members = {
        "train": ("data/a.jsonl", "data/b.jsonl.gz", "data/c.csv", "data/d.json"),
        "test": "data/no.jsonl",
    }

    def find():
        calls.append(1)
        return archive

    source = ZipSource(find, members)
    assert source.splits == ("train", "test") and not calls
    rows = list(source.rows("train"))
    assert [row["q"] for row in rows] == ["1", "2", "two\nlines", "4"]
    assert [row["row_id"] for row in rows][:2] == ["a.jsonl:1", "b.jsonl.gz:1"]
    with pytest.raises(DataError, match="no member 'data/no.jsonl'"):
        source.fingerprint("test")


def test_a_fingerprint_follows_content_fields_and_limit(tmp_path):
    path = _jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": 1}])
    first = JsonlSource({"train": path}, _labelled).fingerprint("train")
    assert first == JsonlSource({"train": path}, _labelled).fingerprint("train")
    assert first != JsonlSource({"train": path}).fingerprint("train")
    assert first != JsonlSource({"train": path}, _labelled, 5).fingerprint("train")
    _jsonl(path, [{"text": "other", "label": 1}])
    assert first != JsonlSource({"train": path}, _labelled).fingerprint("train")


def test_a_function_is_another_one_when_a_constant_it_reads_changes(monkeypatch):
    before = function_identity(_labelled)
    assert before == function_identity(_labelled)
    monkeypatch.setitem(_labelled.__globals__, "LABELS", ("false", "true"))
    identity._identity.cache_clear()  # Another process.
    assert before != function_identity(_labelled)


def test_a_function_is_another_one_when_what_it_closes_over_changes():
    def with_labels(labels):
        return lambda row: {"answer": labels[row["label"]]}

    same = [function_identity(with_labels(("no", "yes"))) for _ in range(2)]
    assert same[0] == same[1] != function_identity(with_labels(("n", "y")))


def test_parts_of_a_split_never_share_a_row_nor_a_passage():
    rows = [{"passage": f"p{i // 3}", "question": str(i)} for i in range(60)]
    base = FunctionSource(lambda split: iter(rows), ("test",), "f")
    parts = {"test": 12, "validation": 6, "train": None}
    source = PartitionedSource(base, "test", parts, by="passage")
    found = {split: list(source.rows(split)) for split in source.splits}
    assert sum(map(len, found.values())) == 60
    assert len(found["test"]) == 12 and len(found["validation"]) == 6
    passages = [{row["passage"] for row in part} for part in found.values()]
    assert not passages[0] & passages[1] and not passages[1] & passages[2]
    assert not passages[0] & passages[2]
    assert found["train"] == list(source.rows("train"))


def test_only_one_part_can_take_the_rest():
    base = FunctionSource(lambda split: iter([{"q": "1"}]), ("test",), "f")
    with pytest.raises(ConfigError, match="only one part"):
        list(PartitionedSource(base, "test", {"a": None, "b": None}).rows("a"))


def _niv2(tmp_path, name="task1.json", **changes):
    task = {
        "Definition": ["Add."],
        "Positive Examples": [{"input": "1 1", "output": "2", "explanation": "Sum."}],
        "Instances": [{"id": "i-1", "input": "2 2", "output": ["4", "four"]}],
        **changes,
    }
    path = tmp_path / name
    path.write_text(json.dumps({k: v for k, v in task.items() if v is not None}))
    return path


def test_both_schemas_of_natural_instructions_give_the_same_fields(tmp_path):
    instances = [{"input": "2 2", "output": "4"}]
    legacy = _niv2(tmp_path, "task2.json", Definition="Add.", Instances=instances)
    (new,) = NaturalInstructionsSource(_niv2(tmp_path)).rows("train")
    (old,) = NaturalInstructionsSource(legacy).rows("train")
    assert new["row_id"] == "i-1" and old["row_id"] == "task2:0"
    assert new["definition"] == old["definition"] == "Add."
    assert new["references"] == ["4", "four"] and new["output"] == old["output"] == "4"
    assert new["example_output"] == "2" and new["example_explanation"] == "Sum."
    assert set(new) == set(old)


def test_positive_examples_are_a_split_of_their_own(tmp_path):
    source = NaturalInstructionsSource(_niv2(tmp_path), split="test")
    (row,) = source.rows("examples")
    assert source.splits == ("test", "examples")
    assert (row["input"], row["output"], row["shot_group"]) == ("1 1", "2", "task1")


@pytest.mark.parametrize("missing", ["Definition", "Instances", "Positive Examples"])
def test_a_natural_instructions_file_without_a_part_is_named(tmp_path, missing):
    path = _niv2(tmp_path, **{missing: None})
    with pytest.raises(DataError, match=f"no '{missing}'") as error:
        list(NaturalInstructionsSource(path).rows("train"))
    assert str(path) in str(error.value)


def test_every_shared_natural_instructions_task_is_read(shared):
    for folder in ("niv2/tasks", "niv2/legacy_schema"):
        source = NaturalInstructionsSource(shared / "data" / folder, limit=3)
        rows = list(source.rows("train"))
        assert len({row["task"] for row in rows}) == len(source._paths())
        assert all(row["definition"] and row["references"] for row in rows)
        assert len({(row["task"], row["row_id"]) for row in rows}) == len(rows)


def test_every_shared_chain_of_thought_file_is_read(shared):
    columns = ("question", "answer", "rationale")
    counts = {"aqua": 2728, "creak": 6915, "ecqa": 7112, "gsm8k": 7473}
    for name, count in counts.items():
        path = shared / "data" / "cot" / f"{name}_train.tsv.gz"
        rows = list(TsvSource({"train": path}, columns).rows("train"))
        assert len(rows) == count
        assert not any("\\n" in value for row in rows for value in row.values())
