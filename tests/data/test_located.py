"""Datasets are found by name, in every format, cut and sampled as asked."""

import gzip
import itertools
import json
import time
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from flanjax.data.located import DatasetSource, cut, data_root, local_files, sample
from flanjax.errors import ConfigError, DataError

ROWS = [{"q": f"é {number}", "n": number} for number in range(10)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root and no TFDS folder but its own."""
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "d").mkdir()
    return tmp_path


def _jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _table(rows, separator) -> bytes:
    lines = [separator.join(map(str, row.values())) for row in rows]
    return "\n".join([separator.join(rows[0]), *lines, ""]).encode()


CONTENTS = {
    "jsonl": _jsonl(ROWS),
    "json": json.dumps(ROWS, indent=1).encode(),
    "tsv": _table(ROWS, "\t"),
    "csv": _table(ROWS, ","),
}


def _write(path, content: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _train(part="train", **settings):
    return DatasetSource("d", {"train": part}, **settings)


def _numbers(source, split="train"):
    return [int(row["n"]) for row in source.rows(split)]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_split_is_read_in_every_text_format(root, kind, packed):
    _write(root / f"d/train.{kind}{packed}", CONTENTS[kind])
    source = _train()
    rows = list(source.rows("train"))
    assert [row["q"] for row in rows] == [row["q"] for row in ROWS]
    assert source.present("train") and f"train.{kind}{packed}" in source.where("train")
    first_line = 2 if kind in ("tsv", "csv") else 1
    assert rows[0]["row_id"] == f"train.{kind}{packed}:{first_line}"


def test_parquet_rows_keep_numbers_lists_and_records(root):
    rows = [
        {"n": i, "options": ["a", "b"], "answers": {"text": ["x"]}} for i in range(3)
    ]
    _parquet(root / "d/train.parquet", rows)
    found = list(_train().rows("train"))
    assert [{k: v for k, v in row.items() if k != "row_id"} for row in found] == rows
    assert found[2]["row_id"] == "train.parquet:3"


@pytest.mark.parametrize("suffix", ["", "-c0ffee"])
def test_shards_are_one_split_in_order(root, suffix):
    for shard in (1, 0, 2):
        name = f"train-{shard:05d}-of-00003{suffix}.jsonl.gz"
        _write(root / "d" / name, _jsonl(ROWS[shard * 3 : shard * 3 + 3]))
    assert _numbers(_train()) == list(range(9))
    (root / "d" / f"train-00001-of-00003{suffix}.jsonl.gz").unlink()
    with pytest.raises(DataError, match="2 shards lie there, not one each of 3"):
        _train().fingerprint("train")


def test_a_folder_for_the_split_and_a_file_for_the_dataset_are_found(root):
    for shard in range(2):
        _parquet(root / f"a/train/{shard:04d}.parquet", ROWS[shard * 5 : shard * 5 + 5])
    assert _numbers(DatasetSource("a", {"train": "train"})) == list(range(10))
    _write(root / "p3/v1.11_prompt.jsonl.gz", CONTENTS["jsonl"])
    source = DatasetSource("p3/v1.11_prompt", {"train": "train", "test": "test"})
    assert _numbers(source) == list(range(10))
    assert not source.present("test")


def test_names_that_only_begin_like_the_split_are_other_splits(root):
    _write(root / "d/train2.jsonl", CONTENTS["jsonl"])
    _write(root / "d/train_small.jsonl", CONTENTS["jsonl"])
    _write(root / "d/train.txt", b"")
    assert local_files("d", "train") == []
    assert _numbers(_train("train2")) == list(range(10))


def test_a_split_that_lies_there_twice_is_not_guessed(root):
    _write(root / "d/train.jsonl", CONTENTS["jsonl"])
    _write(root / "d/train.csv", CONTENTS["csv"])
    with pytest.raises(DataError, match="more than once") as error:
        list(_train().rows("train"))
    assert "train.csv" in str(error.value) and "train.jsonl" in str(error.value)


BOUNDS = (None, 0, 1, 3, 7, 10, 12, -1, -3, -10, -12)


@pytest.mark.parametrize("size", [0, 1, 10])
def test_cutting_a_stream_is_slicing_a_list(size):
    for start, stop in itertools.product(BOUNDS, BOUNDS):
        expected = list(range(size))[start:stop]
        assert list(cut(iter(range(size)), start, stop)) == expected, (start, stop)


def test_reserved_rows_are_in_one_part_only(root):
    _write(root / "d/train.jsonl", CONTENTS["jsonl"])
    _write(root / "d/validation.jsonl", _jsonl([{"n": 99}]))
    parts = {
        "train": "train[:-3]",
        "validation": "train[-3:]",
        "middle": "train[2:4]",
        "test": "validation",
    }
    source = DatasetSource("d", parts)
    assert source.splits == tuple(parts)
    assert _numbers(source) == list(range(7))
    assert _numbers(source, "validation") == [7, 8, 9]
    assert _numbers(source, "middle") == [2, 3]
    assert _numbers(source, "test") == [99]
    assert len({source.fingerprint(split) for split in parts}) == 4


@pytest.mark.parametrize("part", ["train[", "train[:10%]", "train[1]", "", "a+b"])
def test_a_part_that_cannot_be_read_is_refused_at_once(part):
    with pytest.raises(ConfigError, match="cannot read the part"):
        _train(part)


def test_a_limited_split_is_an_even_sample_in_the_order_of_the_file(root):
    rows = [{"n": number} for number in range(2000)]
    _write(root / "d/train.jsonl", _jsonl(rows))
    kept = _numbers(_train(limit=200))
    assert len(set(kept)) == 200 and kept == sorted(kept)
    assert kept == _numbers(_train(limit=200))
    # 50 of each quarter are expected, with a standard deviation of six.
    quarters = [sum(n // 500 == quarter for n in kept) for quarter in range(4)]
    assert all(25 <= count <= 75 for count in quarters)
    skipping = _train(fields=lambda r: r if r["n"] % 2 else None, limit=200)
    assert all(n % 2 for n in _numbers(skipping)) and len(_numbers(skipping)) == 200
    assert _numbers(_train(limit=5000)) == list(range(2000))


def test_sampling_holds_no_more_rows_than_it_keeps():
    def rows():
        for number in range(20_000):
            yield {"text": "x" * 1000 + str(number)}

    tracemalloc.start()
    kept = list(sample(rows(), 100, "seed"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == 100 and peak < 2_000_000  # All of them are 20 MB.


def test_without_data_every_place_and_what_to_do_is_named(root):
    source = _train(tfds="super_glue/rte:1.0.2")
    assert not source.present("train")
    for read in (source.fingerprint, lambda split: list(source.rows(split))):
        with pytest.raises(DataError) as error:
            read("train")
        message = str(error.value)
        for place in (
            f"{root}/d/train[",
            f"{root}/d/train/",
            f"{root}/d.{{jsonl",
            f"{root}/tfds/super_glue/rte/1.0.2",
            f"{root}/elsewhere/super_glue/rte/1.0.2",
        ):
            assert place in message
        build = f"tfds build super_glue/rte:1.0.2 --data_dir={root}/tfds"
        assert build in message and error.value.exit_code == 3
    assert str(root / "d") in source.where("train")


BAD = {
    "invalid UTF-8": ("jsonl", b'{"n": 1}\n{"n": "\xff"}\n', "UTF-8", 2),
    "malformed JSON": ("jsonl", b'{"n": 1}\n\n{"n": \n', "malformed", 3),
    "a list in a line": ("jsonl", b"[1]\n", "not an object", 1),
    "invalid UTF-8 in a list": ("json", b'[{"n":\n"\xff"}]', "UTF-8", 2),
    "lines in a list's place": ("json", b'{"n": 1}\n{"n": 2}\n', "malformed", 2),
    "no objects": ("json", b'[{"n": 1},\n 2]', "not an object", 2),
    "a cell too many": ("csv", b"n,q\n1,2\n1,2,3\n", "3 columns", 3),
    "a cell too few": ("tsv", b"n\tq\n1\t2\n1\n", "1 columns", 3),
    "invalid UTF-8 in a table": ("tsv", b"n\tq\n1\t\xff\n", "UTF-8", 2),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_malformed_row_is_named_by_file_and_line(root, case, packed):
    kind, content, message, line = BAD[case]
    path = _write(root / f"d/train.{kind}{packed}", content)
    with pytest.raises(DataError, match=message) as error:
        list(_train().rows("train"))
    assert f"{path}:{line}" in str(error.value)


def test_a_file_cut_short_is_named(root):
    path = root / "d/train.jsonl.gz"
    path.write_bytes(gzip.compress(_jsonl(ROWS * 500))[:-200])
    with pytest.raises(DataError, match="damaged archive"):
        list(_train().rows("train"))
    path.unlink()
    _write(root / "d/train.parquet", b"PAR1 and no more")
    with pytest.raises(DataError, match="Parquet"):
        list(_train().rows("train"))


def test_a_long_cell_of_a_table_is_read(root):
    _write(root / "d/train.csv", b'n,q\n1,"' + b"x" * 300_000 + b'"\n')
    (row,) = _train().rows("train")
    assert len(row["q"]) == 300_000


def test_the_fingerprint_follows_files_part_fields_and_limit(root):
    path = _write(root / "d/train.jsonl", CONTENTS["jsonl"])
    first = _train().fingerprint("train")
    others = [
        _train("train[:5]"),
        _train(limit=3),
        _train(fields=lambda row: {"n": row["n"]}),
    ]
    assert first == _train().fingerprint("train")
    assert len({first, *(source.fingerprint("train") for source in others)}) == 4
    _write(path, _jsonl(ROWS[:9]))
    assert first != _train().fingerprint("train")


def test_big_files_are_told_apart_without_being_read(root, monkeypatch):
    monkeypatch.setattr("flanjax.data.located.HASHED_BYTES", 100)
    path = _write(root / "d/train.jsonl", CONTENTS["jsonl"])
    monkeypatch.setattr("flanjax.data.located.file_digest", None)
    first = _train().fingerprint("train")
    assert first == _train().fingerprint("train")
    time.sleep(0.01)
    _write(path, CONTENTS["jsonl"])
    assert first != _train().fingerprint("train")


def test_the_data_root_is_the_one_named_or_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("FLANJAX_DATA")
    assert data_root().parts[-3:] == (".cache", "flanjax", "data")


def test_the_shared_sets_are_found(shared, tmp_path, monkeypatch):
    (tmp_path / "muffin").symlink_to(shared.resolve() / "data/t0sf_muffin")
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    parts = {"train": "train[:-50]", "validation": "train[-50:]", "test": "validation"}
    source = DatasetSource("muffin/cb", parts)
    counts = {split: sum(1 for _ in source.rows(split)) for split in parts}
    assert counts == {"train": 200, "validation": 50, "test": 56}
