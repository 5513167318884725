"""Stamps of files: no reading where size and time say enough."""

import os

import pytest

from flanjax.data import identity
from flanjax.data.identity import (
    change_of,
    file_digest,
    file_times,
    function_identity,
    recorded_files,
)
from flanjax.data.store import STORE_VERSION, EvalEntry, ResolvedMixture, is_fresh
from flanjax.data.vocabulary import load_vocabulary


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    return path


def stamp(path, take=file_digest):
    with recorded_files() as files:
        take(path)
    return files[str(path)]


def test_an_untouched_file_is_not_read_again(file, monkeypatch):
    kept = stamp(file)

    def read(*arguments):
        raise AssertionError("it was read")

    monkeypatch.setattr(identity, "_content_digest", read)
    assert change_of(str(file), kept) == ""


def test_a_touched_file_is_the_same_only_if_its_content_is(file):
    kept, by_time = stamp(file), stamp(file, file_times)
    os.utime(file, ns=(1, 1))
    assert change_of(str(file), kept) == ""
    assert change_of(str(file), by_time) == "has changed"
    file.write_text("two")
    assert change_of(str(file), kept) == "has changed"
    file.unlink()
    assert change_of(str(file), kept) == "is gone"


def test_only_what_is_digested_inside_the_block_is_recorded(file):
    with recorded_files() as outer:
        file_digest(file)
        with recorded_files() as inner:
            pass
    assert list(outer) == [str(file)] and not inner
    file_digest(file)
    assert len(outer) == 1


class Unhashable:
    """A callable that no cache can hold."""

    __hash__ = None

    def __call__(self, row):
        return row


def test_a_callable_that_cannot_be_hashed_has_an_identity():
    assert function_identity(Unhashable()) == function_identity(Unhashable())


def test_freshness_of_1836_tasks_reads_no_source(tmp_path, monkeypatch):
    entries = []
    with recorded_files() as files:
        for number in range(1836):
            path = f"tasks/t{number}"
            (tmp_path / path).mkdir(parents=True)
            (tmp_path / path / "info.json").touch()
            source = tmp_path / path / "rows.json"
            source.write_text("[]")
            file_digest(source)
            entries.append(EvalEntry({}, path, "f", 1))
    vocabulary = load_vocabulary("bytes")
    about = {"spec": "bytes", "fingerprint": vocabulary.fingerprint(), "size": 384}
    resolved = ResolvedMixture(
        STORE_VERSION, "mix", about, 0, 1, (), (), tuple(entries), files
    )
    path = tmp_path / "mixtures" / "mix.json"
    resolved.save(path)

    def refuse(*_):
        raise AssertionError("size and time say that nothing has changed")

    monkeypatch.setattr("hashlib.file_digest", refuse)
    assert is_fresh(path) == (True, "nothing has changed")
