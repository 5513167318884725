"""The store on disk: whole or refused, and fresh or named stale."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from flanjax.data.identity import file_digest, recorded_files
from flanjax.data.store import (
    Example,
    OpenStores,
    PrepareConfig,
    ResolvedMixture,
    TaskStore,
    TaskWriter,
    is_fresh,
    resolved_path,
)
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import DataError


def test_examples_come_back_as_written_in_the_order_asked_for(make_resolved, tmp_path):
    (member,) = make_resolved({"a": (50, 1.0)}).members
    store = TaskStore(tmp_path / member.path)
    indices = [49, 3, 3, 0]
    examples = store.read(indices)
    assert [e.meta["row_id"] for e in examples] == [f"a:{i}" for i in indices]
    lengths = [[len(e.inputs), len(e.targets)] for e in examples]
    assert store.lengths[indices].tolist() == lengths
    assert examples[0].inputs.dtype == np.int32 and len(store) == 50
    assert store.info["inputs_tokens"] == store.lengths[:, 0].sum()
    assert store.read([]) == []


def test_any_metadata_and_empty_sides_survive(tmp_path):
    writer = TaskWriter(tmp_path)
    meta = {"row_id": "ä:1", "shot_ids": ["a", "b"], "choices": []}
    writer.add(Example(np.array([1, 70_000], np.int32), np.array([], np.int32), meta))
    writer.add(Example(np.array([], np.int32), np.array([], np.int32), {}))
    writer.finish({})
    first, second = TaskStore(tmp_path).read([0, 1])
    assert first.meta == meta and first.inputs.tolist() == [1, 70_000]
    assert first.targets.shape == second.inputs.shape == (0,)


def test_the_same_examples_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        writer = TaskWriter(tmp_path / name)
        for index in range(20):
            ids = np.arange(index, dtype=np.int32)
            writer.add(Example(ids, ids[:3], {"row_id": f"a:{index}"}))
        writer.finish({"task": "a"})
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["tokens.bin", "meta.array_record"])
@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
def test_damage_is_a_data_error_that_names_the_file(
    make_resolved, tmp_path, name, damage
):
    (member,) = make_resolved({"a": (5, 1.0)}).members
    damage(tmp_path / member.path / name)
    with pytest.raises(DataError, match=name) as caught:
        TaskStore(tmp_path / member.path).read(range(5))
    assert "data prepare" in str(caught.value)


def test_a_directory_without_its_lengths_is_a_data_error(make_resolved, tmp_path):
    (member,) = make_resolved({"a": (5, 1.0)}).members
    (tmp_path / member.path / "lengths.npy").unlink()
    with pytest.raises(DataError, match="data prepare"):
        TaskStore(tmp_path / member.path)


def test_few_stores_are_open_at_once(make_resolved, tmp_path):
    resolved = make_resolved({f"t{i}": (3, 0.1) for i in range(10)})
    stores = OpenStores(tmp_path, limit=4)
    for _ in range(2):
        for index, member in enumerate(resolved.members):
            (example,) = stores.get(member.path).read([2])
            assert example.inputs[0] == 1000 + index
    assert len(stores._open) == 4


def test_a_resolved_mixture_survives_saving(make_resolved, tmp_path):
    resolved = make_resolved({"a": (5, 0.25), "b": (6, 0.75)})
    resolved.save(tmp_path / "m" / "mix.json")
    loaded = ResolvedMixture.load(tmp_path / "m" / "mix.json")
    assert loaded == resolved and loaded.fingerprint == resolved.fingerprint
    other = dataclasses.replace(resolved, members=resolved.members[::-1])
    assert other.fingerprint != resolved.fingerprint
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["mix.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}'])
def test_an_unreadable_resolved_mixture_is_a_data_error(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="x.json"):
        ResolvedMixture.load(tmp_path / "x.json")


def test_freshness_names_what_has_changed(make_resolved, tmp_path):
    module = tmp_path / "mixture.py"
    module.write_text("a = 1")
    with recorded_files() as files:
        file_digest(module)
    vocabulary = load_vocabulary("bytes")
    resolved = dataclasses.replace(
        make_resolved({"a": (5, 1.0)}),
        vocabulary={
            "spec": "bytes",
            "fingerprint": vocabulary.fingerprint(),
            "size": vocabulary.size,
        },
        files=files,
    )
    path = tmp_path / "mixtures" / "mix.json"
    assert is_fresh(path) == (False, "it was not prepared yet")
    resolved.save(path)
    assert is_fresh(path) == (True, "nothing has changed")
    os.utime(module, ns=(5, 5))
    assert is_fresh(path)[0], "touched, but equal"
    module.write_text("a = 2")
    assert is_fresh(path) == (False, f"{module} has changed")
    module.unlink()
    assert is_fresh(path) == (False, f"{module} is gone")
    module.write_text("a = 1")
    (tmp_path / resolved.members[0].path / "info.json").unlink()
    fresh, reason = is_fresh(path)
    assert not fresh and "missing from the store" in reason
    damaged = json.loads(path.read_text())
    damaged["vocabulary"]["fingerprint"] = "other"
    path.write_text(json.dumps(damaged))
    assert is_fresh(path) == (False, "vocabulary bytes has changed")


def test_the_resolved_path_depends_on_what_is_prepared_not_on_how():
    config = PrepareConfig("mix", ("m",), "bytes", "/store")
    same = dataclasses.replace(config, num_workers=4)
    other = dataclasses.replace(config, seed=1)
    assert resolved_path(same) == resolved_path(config) != resolved_path(other)
