"""Preparing: SeqIO's own tokens, nothing made twice, nothing half made."""

import json
import os
import shutil
import sys

import pytest
import seqio

from flanjax.data import prepare_task as prepare_task_module
from flanjax.data.prepare import prepare
from flanjax.data.store import (
    PrepareConfig,
    ResolvedMixture,
    TaskStore,
    is_fresh,
    resolved_path,
)
from flanjax.errors import ConfigError, DataError

MODULE = """
from pathlib import Path

import seqio
import tensorflow as tf

from flanjax.data.fewshot import FewShot
from flanjax.data.mixing import examples_proportional
from flanjax.data.seqio_vocabulary import LazyVocabulary
from flanjax.data.sources import JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile
from flanjax.eval.suites import EvalSpec, add_eval

HERE = Path(__file__).parent


def dataset(split, shuffle_files, seed=None):
    texts = [f"{split} {i}" for i in range(20)]
    return tf.data.Dataset.from_tensor_slices({"inputs": texts, "targets": texts})


FEATURE = seqio.Feature(LazyVocabulary(), add_eos=True)
FEATURES = {"inputs": FEATURE, "targets": FEATURE}
seqio.TaskRegistry.add(
    "prep_plain",
    source=seqio.FunctionDataSource(dataset, splits=["train", "validation"]),
    preprocessors=[
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features=FEATURES,
)


@seqio.map_over_dataset
def broken(example):
    return {**example, "targets": tf.strings.substr(example["targets"], 999, 1)}


seqio.TaskRegistry.add(
    "prep_broken",
    source=seqio.FunctionDataSource(dataset, splits=["train"]),
    preprocessors=[
        broken, seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder()
    ],
    output_features=FEATURES,
)
seqio.TaskRegistry.add(
    "prep_no_cache_point",
    source=seqio.FunctionDataSource(dataset, splits=["train"]),
    preprocessors=[seqio.preprocessors.tokenize],
    output_features=FEATURES,
)
seqio.TaskRegistry.add(
    "prep_other_vocabulary",
    source=seqio.FunctionDataSource(dataset, splits=["train"]),
    preprocessors=[seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder()],
    output_features={"targets": seqio.Feature(seqio.PassThroughVocabulary(9, eos_id=5))},
)

INFO = TaskInfo("test", "sums", "arithmetic")
templates = TemplateFile(HERE / "templates.toml")
for name in ("sums", "words"):
    add_instruction_task(
        f"prep_{name}",
        JsonlSource({"train": HERE / f"{name}.jsonl", "test": HERE / f"{name}.jsonl"}),
        templates[name],
        INFO,
        few_shot=FewShot(shots=2),
    )
for name in ("gone", "lost"):
    add_instruction_task(
        f"prep_{name}",
        JsonlSource({"train": HERE / f"{name}.jsonl"}),
        templates["sums"],
        INFO,
        prompt_types=["zs_noopt"],
    )
seqio.MixtureRegistry.add(
    "prep_inner",
    [("prep_sums_zs_noopt", examples_proportional(cap=10)), ("prep_plain", 30)],
)
seqio.MixtureRegistry.add(
    "prep_mix", [("prep_inner", 0.4), ("prep_sums_fs_noopt", 0.6)]
)
seqio.MixtureRegistry.add(
    "prep_missing",
    [("prep_plain", 1), ("prep_gone_zs_noopt", 1), ("prep_lost_zs_noopt", 2)],
)
seqio.MixtureRegistry.add("prep_zero", [("prep_plain", 1), ("prep_words_zs_noopt", 0)])
seqio.MixtureRegistry.add(
    "prep_two", [("prep_sums_zs_noopt", 1), ("prep_words_zs_noopt", 1)]
)
add_eval(EvalSpec("prep_eval", task="prep_words_zs_noopt", max_examples=7))
"""
TEMPLATES = """
[sums]
[[sums.templates]]
inputs = "Add {a} and {b}."
targets = "{answer}"
[[sums.templates]]
inputs = "{a} + {b} ="
targets = "{answer}"
[words]
[[words.templates]]
inputs = "Add {a} and {b} please."
targets = "{answer}"
"""


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    """A folder with a module of tasks, imported once: SeqIO's registry is global."""
    folder = tmp_path_factory.mktemp("mixtures")
    (folder / "prep_tasks.py").write_text(MODULE)
    (folder / "templates.toml").write_text(TEMPLATES)
    rows = [{"a": i, "b": i + 1, "answer": str(2 * i + 1)} for i in range(30)]
    for name in ("sums", "words"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def run(mixtures, tmp_path):
    def run(mixture, say=lambda text: None, **settings):
        config = PrepareConfig(
            mixture, ("prep_tasks",), "bytes", str(tmp_path / "store"), **settings
        )
        path = prepare(config, say)
        assert path == resolved_path(config) and is_fresh(path)[0]
        return ResolvedMixture.load(path)

    run.store = tmp_path / "store"
    return run


def stored(run, entry):
    store = TaskStore(run.store / entry.path)
    return store.read(range(len(store)))


def files_of(store):
    paths = [path for path in (store / "tasks").rglob("*") if path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in paths}


def test_prepared_tokens_are_those_of_seqio(run):
    resolved = run("prep_mix", seed=5)
    assert {m.name for m in resolved.members} == {
        "prep_plain", "prep_sums_zs_noopt", "prep_sums_fs_noopt"
    }  # fmt: skip
    for member in resolved.members:
        task = seqio.get_mixture_or_task(member.name)
        theirs = task.get_dataset(None, "train", shuffle=False, seed=5)
        theirs = list(theirs.as_numpy_iterator())
        ours = stored(run, member)
        assert len(ours) == len(theirs) == member.num_examples > 0
        for mine, other in zip(ours, theirs, strict=True):
            for name in ("inputs", "targets"):
                assert [*getattr(mine, name), 1] == other[name].tolist()
                text = other[f"{name}_pretokenized"].decode()
                assert mine.meta[f"{name}_pretokenized"] == text
        lengths = TaskStore(run.store / member.path).lengths
        assert lengths.tolist() == [[len(e.inputs), len(e.targets)] for e in ours]


def test_examples_keep_their_provenance(run):
    members = {m.name: m for m in run("prep_mix").members}
    member = members["prep_sums_fs_noopt"]
    for example in stored(run, member):
        meta = example.meta
        assert meta["task_name"] == member.name and meta["prompt_type"] == "fs_noopt"
        assert len(meta["shot_ids"]) == 2 and meta["row_id"] not in meta["shot_ids"]
        assert meta["template_id"].startswith("sums/")
    assert member.info["collection"] == "test" and member.info["dataset"] == "sums"


def test_shares_are_those_of_seqio(run):
    resolved = run("prep_mix")
    mixture = seqio.MixtureRegistry.get("prep_mix")
    inner = seqio.MixtureRegistry.get("prep_inner")
    for member in resolved.members:
        if member.name == "prep_sums_fs_noopt":
            assert member.share == pytest.approx(0.6)
    shares = {m.name: m.share for m in resolved.members}
    assert shares["prep_sums_zs_noopt"] == pytest.approx(0.4 * 10 / 40)
    for member in resolved.members:
        task = seqio.TaskRegistry.get(member.name)
        assert member.share == pytest.approx(mixture.get_rate(task))
    assert inner.total_rate == 40
    caps = {m.name: m.cap for m in resolved.members}
    assert caps["prep_sums_zs_noopt"] == 10 and caps["prep_plain"] is None


def test_nothing_is_made_twice_and_a_seed_or_pass_is_made_anew(run):
    first = run("prep_two")
    before = files_of(run.store)
    assert run("prep_two") == first
    assert files_of(run.store) == before
    two = run("prep_two", passes=2)
    assert [m.num_examples for m in two.members] == [60, 60]
    inputs = [e.meta["inputs_pretokenized"] for e in stored(run, two.members[0])]
    assert inputs[:30] != inputs[30:]
    assert run("prep_two", seed=1).fingerprint != first.fingerprint


def test_a_changed_template_makes_only_its_own_tasks_again(run, mixtures):
    before = {m.name: m.path for m in run("prep_two").members}
    file = mixtures / "templates.toml"
    file.write_text(TEMPLATES.replace(" please", ", if you can"))
    try:
        config = PrepareConfig(
            "prep_two", ("prep_tasks",), "bytes", str(run.store)
        )  # fmt: skip
        assert is_fresh(resolved_path(config)) == (False, f"{file} has changed")
        after = {m.name: m for m in run("prep_two").members}
        assert after["prep_sums_zs_noopt"].path == before["prep_sums_zs_noopt"]
        changed = after["prep_words_zs_noopt"]
        assert changed.path != before["prep_words_zs_noopt"]
        text = stored(run, changed)[0].meta["inputs_pretokenized"]
        assert text.endswith("if you can.")
    finally:
        file.write_text(TEMPLATES)


def test_evaluations_and_validation_are_samples_that_no_seed_changes(run):
    resolved = run("prep_mix", evals=("prep_eval",), max_validation_examples=5)
    (entry,) = resolved.evals
    assert entry.spec["name"] == "prep_eval" and entry.num_examples == 7
    rows = {e.meta["row_id"] for e in stored(run, entry)}
    assert len(rows) == 7
    assert [m.name for m in resolved.validation] == ["prep_plain"]
    assert resolved.validation[0].num_examples == 5
    other = run("prep_mix", evals=("prep_eval",), seed=9, max_validation_examples=5)
    assert other.evals == resolved.evals and other.members != resolved.members
    assert [v.path for v in other.validation] == [v.path for v in resolved.validation]


def test_an_interrupted_prepare_leaves_nothing_half_made(run, monkeypatch):
    writer = prepare_task_module.TaskWriter

    class Interrupted(writer):
        def add(self, example):
            super().add(example)
            if len(self) == 10:
                raise KeyboardInterrupt

    monkeypatch.setattr(prepare_task_module, "TaskWriter", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("prep_two")
    assert not files_of(run.store)
    monkeypatch.setattr(prepare_task_module, "TaskWriter", writer)
    assert [m.num_examples for m in run("prep_two").members] == [30, 30]


def test_leftovers_of_a_killed_prepare_are_not_used_and_go_away(run):
    (member, _) = run("prep_two").members
    final = run.store / member.path
    dead = final.with_name(f".{final.name}.{os.uname().nodename}.4194304.tmp")
    shutil.move(final, dead)
    (dead / "info.json").unlink()
    assert [m.num_examples for m in run("prep_two").members] == [30, 30]
    assert not dead.exists()


def test_every_missing_source_is_in_one_message_and_can_be_left_out(run):
    with pytest.raises(DataError) as caught:
        run("prep_missing")
    message = str(caught.value)
    assert "prep_gone_zs_noopt" in message and "prep_lost_zs_noopt" in message
    assert "gone.jsonl" in message and "--allow_missing" in message
    said = []
    resolved = run("prep_missing", said.append, allow_missing=True)
    assert [(m.name, m.share) for m in resolved.members] == [("prep_plain", 1.0)]
    assert sum("left out" in line for line in said) == 2


def test_a_malformed_row_is_named_by_file_and_line(run, mixtures):
    file = mixtures / "gone.jsonl"
    file.write_text('{"a": 1, "b": 2, "answer": "3"}\n{"a": 1,\n')
    try:
        with pytest.raises(DataError, match=r"gone\.jsonl:2"):
            run("prep_gone_zs_noopt")
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("mixture", "settings", "error", "message"),
    [
        ("prep_mx", {}, ConfigError, "Did you mean 'prep_mix'"),
        ("prep_mix", {"evals": ("prep_evl",)}, ConfigError, "Did you mean 'prep_eval'"),
        ("prep_mix", {"split": "trian"}, DataError, "no split 'trian'"),
        ("prep_zero", {}, DataError, "'prep_words_zs_noopt' in mixture 'prep_zero'"),
        ("prep_no_cache_point", {}, ConfigError, "CacheDatasetPlaceholder"),
        ("prep_other_vocabulary", {}, ConfigError, "the run's is bytes"),
        ("prep_broken", {}, DataError, "prep_broken"),
    ],
)
def test_what_is_wrong_is_said_clearly(run, mixture, settings, error, message):
    with pytest.raises(error, match=message):
        run(mixture, **settings)


def test_a_missing_module_is_a_config_error(tmp_path):
    config = PrepareConfig("mix", ("no_such_module",), "bytes", str(tmp_path))
    with pytest.raises(ConfigError, match="no_such_module"):
        prepare(config, lambda text: None)


@pytest.mark.slow
def test_worker_processes_make_the_same(run, tmp_path):
    one = run("prep_two")
    first = [[e.to_bytes() for e in stored(run, m)] for m in one.members]
    shutil.rmtree(run.store)
    two = run("prep_two", num_workers=2)
    assert two == one
    assert first == [[e.to_bytes() for e in stored(run, m)] for m in two.members]
