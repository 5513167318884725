"""Preparing: SeqIO's own tokens, nothing made twice, nothing half made."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import seqio

from flanjax.data import prepare_task as prepare_task_module
from flanjax.data.ensure import _message, ensure_prepared
from flanjax.data.faithful import active
from flanjax.data.prepare import prepare
from flanjax.data.scratch import scratch_directory
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
    output_features={
        "targets": seqio.Feature(seqio.PassThroughVocabulary(9, eos_id=5))
    },
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


class Run:
    """Prepares mixtures of the module into one store."""

    def __init__(self, store):
        self.store = store

    def config(self, mixture, **settings):
        return PrepareConfig(
            mixture, ("prep_tasks",), "bytes", str(self.store), **settings
        )

    def __call__(self, mixture, say=lambda text: None, **settings):
        config = self.config(mixture, **settings)
        path = prepare(config, say)
        assert path == resolved_path(config) and is_fresh(path)[0]
        return ResolvedMixture.load(path)

    def read(self, entry):
        store = TaskStore(self.store / entry.path)
        return store.read(range(len(store)))

    def files(self):
        paths = [path for path in (self.store / "tasks").rglob("*") if path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in paths}


def contents(store):
    paths = [path for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


@pytest.fixture
def run(mixtures, tmp_path):
    return Run(tmp_path / "store")


@pytest.fixture(scope="module")
def mix(mixtures, tmp_path_factory):
    """The nested mixture with validation and an evaluation, prepared once."""
    run = Run(tmp_path_factory.mktemp("store"))
    settings = {"evals": ("prep_eval",), "max_validation_examples": 5, "seed": 5}
    return run, run("prep_mix", **settings), settings


def test_prepared_tokens_are_those_of_seqio(mix):
    run, resolved, _ = mix
    names = {"prep_plain", "prep_sums_zs_noopt", "prep_sums_fs_noopt"}
    assert {m.name for m in resolved.members} == names
    for member in resolved.members:
        task = seqio.get_mixture_or_task(member.name)
        theirs = task.get_dataset(None, "train", shuffle=False, seed=5)
        theirs = list(theirs.as_numpy_iterator())
        ours = run.read(member)
        assert len(ours) == len(theirs) == member.num_examples > 0
        for mine, other in zip(ours, theirs, strict=True):
            for name in ("inputs", "targets"):
                assert [*getattr(mine, name), 1] == other[name].tolist()
                text = other[f"{name}_pretokenized"].decode()
                assert mine.meta[f"{name}_pretokenized"] == text
        lengths = TaskStore(run.store / member.path).lengths
        assert lengths.tolist() == [[len(e.inputs), len(e.targets)] for e in ours]


def test_examples_keep_their_provenance(mix):
    run, resolved, _ = mix
    member = next(m for m in resolved.members if "_fs_" in m.name)
    for example in run.read(member):
        meta = example.meta
        assert meta["task_name"] == member.name and meta["prompt_type"] == "fs_noopt"
        assert len(meta["shot_ids"]) == 2 and meta["row_id"] not in meta["shot_ids"]
        assert meta["template_id"].startswith("sums/")
    assert member.info["collection"] == "test" and member.info["dataset"] == "sums"


def test_shares_are_those_of_seqio(mix):
    _, resolved, _ = mix
    mixture = seqio.MixtureRegistry.get("prep_mix")
    for member in resolved.members:
        task = seqio.TaskRegistry.get(member.name)
        assert member.share == pytest.approx(mixture.get_rate(task))
    shares = {m.name: m.share for m in resolved.members}
    assert shares["prep_sums_zs_noopt"] == pytest.approx(0.4 * 10 / 40)
    caps = {m.name: m.cap for m in resolved.members}
    assert caps["prep_sums_zs_noopt"] == 10 and caps["prep_plain"] is None


def test_evaluations_and_validation_are_samples_that_no_seed_changes(mix):
    run, resolved, settings = mix
    (entry,) = resolved.evals
    assert entry.spec["name"] == "prep_eval" and entry.num_examples == 7
    assert len({e.meta["row_id"] for e in run.read(entry)}) == 7
    assert [m.name for m in resolved.validation] == ["prep_plain"]
    assert resolved.validation[0].num_examples == 5
    other = run("prep_plain", **{**settings, "seed": 9})
    assert other.evals == resolved.evals
    assert [v.path for v in other.validation] == [v.path for v in resolved.validation]
    assert other.members[0].path not in {m.path for m in resolved.members}


def test_nothing_is_made_twice_and_a_seed_or_pass_is_made_anew(run):
    first = run("prep_sums_zs_noopt")
    before = run.files()
    assert run("prep_sums_zs_noopt") == first
    assert run.files() == before
    two = run("prep_sums_zs_noopt", passes=2, seed=1)
    assert two.fingerprint != first.fingerprint
    assert two.members[0].num_examples == 60
    inputs = [e.meta["inputs_pretokenized"] for e in run.read(two.members[0])]
    assert inputs[:30] != inputs[30:]


def test_passes_render_each_row_anew_and_keep_their_number(run, tmp_path):
    (member,) = run("prep_sums_fs_noopt", passes=3).members
    examples = run.read(member)
    assert member.num_examples == 90
    passes = [[e.meta for e in examples if e.meta["pass"] == n] for n in range(3)]
    rows = [[meta["row_id"] for meta in each] for each in passes]
    assert len(rows[0]) == 30 and rows[0] == rows[1] == rows[2]
    shots = [tuple(map(tuple, (m["shot_ids"] for m in each))) for each in passes]
    templates = [tuple(meta["template_id"] for meta in each) for each in passes]
    assert len(set(shots)) == len(set(templates)) == 3
    again = Run(tmp_path / "again")
    again("prep_sums_fs_noopt", passes=3)
    assert contents(again.store) == contents(run.store)
    (single,) = run("prep_sums_fs_noopt").members
    assert [e.inputs.tolist() for e in run.read(single)] == [
        e.inputs.tolist() for e in examples[:30]
    ]


def test_what_is_kept_names_no_place_of_this_machine(run, mixtures):
    run("prep_two")
    for name, data in contents(run.store).items():
        if name.startswith("tasks/"):
            assert str(mixtures).encode() not in data, name


def test_a_switch_of_faithful_makes_its_own_examples_in_processes_too(run):
    plain = run("prep_sums_fs_noopt").members[0]
    switches = ("self_exemplars",)
    (member,) = run("prep_sums_fs_noopt", faithful=switches).members
    assert member.path != plain.path and member.info["faithful"] == list(switches)
    assert not active(), "a run's switches are its own"


def test_a_change_while_it_is_prepared_is_noticed(run, mixtures, monkeypatch):
    file = mixtures / "sums.jsonl"
    before = file.read_text()

    class Slow(prepare_task_module.TaskWriter):
        def add(self, example):
            super().add(example)
            file.write_text(before + before)

    monkeypatch.setattr(prepare_task_module, "TaskWriter", Slow)
    try:
        with pytest.raises(DataError, match="changed while it was prepared"):
            run("prep_sums_zs_noopt", allow_missing=True)
        assert not (run.store / "tasks").exists()
    finally:
        file.write_text(before)


def test_a_changed_template_makes_only_its_own_tasks_again(run, mixtures):
    before = {m.name: m.path for m in run("prep_two").members}
    file = mixtures / "templates.toml"
    file.write_text(TEMPLATES.replace(" please", ", if you can"))
    try:
        path = resolved_path(run.config("prep_two"))
        assert is_fresh(path) == (False, f"{file} has changed")
        files = run.files()
        after = {m.name: m for m in run("prep_two").members}
        made = [name for name in run.files() if name not in files]
        assert len(made) == len(files) // 2 and not files.items() - run.files().items()
        assert all("prep_words_zs_noopt" in name for name in made)
        assert after["prep_sums_zs_noopt"].path == before["prep_sums_zs_noopt"]
        changed = after["prep_words_zs_noopt"]
        assert changed.path != before["prep_words_zs_noopt"]
        text = run.read(changed)[0].meta["inputs_pretokenized"]
        assert text.endswith("if you can.")
    finally:
        file.write_text(TEMPLATES)


def test_changed_data_is_noticed(mix, mixtures):
    run, _, settings = mix
    path = resolved_path(run.config("prep_mix", **settings))
    file = mixtures / "sums.jsonl"
    before = file.read_text()
    file.write_text(before.replace('"a": 3,', '"a": 33,'))
    try:
        assert is_fresh(path) == (False, f"{file} has changed")
    finally:
        file.write_text(before)
    assert is_fresh(path)[0]


def test_an_interrupted_prepare_leaves_nothing_half_made(run, monkeypatch):
    writer = prepare_task_module.TaskWriter

    class Interrupted(writer):
        def add(self, example):
            super().add(example)
            if len(self) == 10:
                raise KeyboardInterrupt

    monkeypatch.setattr(prepare_task_module, "TaskWriter", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("prep_plain")
    assert not run.files()
    monkeypatch.setattr(prepare_task_module, "TaskWriter", writer)
    assert run("prep_plain").members[0].num_examples == 20


def test_leftovers_of_a_killed_prepare_go_away_and_those_of_a_live_one_stay(run):
    scratch = run.store / ".scratch"
    dead = scratch / f"{os.uname().nodename}.7-0badcafe"
    dead.mkdir(parents=True)
    (dead / "tokens.bin").write_bytes(b"half")
    dead.with_name(dead.name + ".lock").touch()
    with scratch_directory(run.store) as live:
        assert run("prep_plain").members[0].num_examples == 20
        assert sorted(scratch.iterdir()) == [live, live.with_name(live.name + ".lock")]
    assert not scratch.exists()


def test_every_missing_source_is_in_one_message_and_can_be_left_out(run):
    with pytest.raises(DataError) as caught:
        run("prep_missing")
    message = str(caught.value)
    assert "prep_gone_zs_noopt" in message and "prep_lost_zs_noopt" in message
    assert "gone.jsonl" in message and "--allow_missing" in message
    said = []
    resolved = run("prep_missing", said.append, allow_missing=True)
    assert [(m.name, m.share) for m in resolved.members] == [("prep_plain", 1.0)]
    assert sum("left out" in line for line in said) == 1
    assert [m["task"] for m in resolved.missing] == [
        "prep_gone_zs_noopt",
        "prep_lost_zs_noopt",
    ]


def test_what_is_missing_is_said_again_whenever_the_mixture_is_opened(run):
    run("prep_missing", allow_missing=True)
    said = []
    ensure_prepared(run.config("prep_missing", allow_missing=True), said.append)
    assert len(said) == 1 and "data are missing" in said[0]


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
def test_worker_processes_make_the_same(run):
    settings = {"faithful": ("self_exemplars",), "passes": 2}
    one = run("prep_mix", **settings)
    first = contents(run.store)
    shutil.rmtree(run.store)
    assert run("prep_mix", num_workers=2, **settings) == one
    assert contents(run.store) == first


KILLED = """
import json, os, signal, sys
from flanjax.data import prepare_task
from flanjax.data.prepare import prepare
from flanjax.data.store import PrepareConfig

made = []


class Killed(prepare_task.TaskWriter):
    def add(self, example):
        super().add(example)
        made.append(example)
        if len(made) == 45:
            os.kill(os.getpid(), signal.SIGKILL)


prepare_task.TaskWriter = Killed
prepare(PrepareConfig(**json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_prepare_that_is_killed_goes_on_where_it_was(run, mixtures):
    """SIGKILL in the second task: the first is kept, nothing else looks whole."""
    config = run.config("prep_two")
    command = [sys.executable, "-c", KILLED, json.dumps(dataclasses.asdict(config))]
    environment = {**os.environ, "PYTHONPATH": str(mixtures)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    whole = {path: time for path, time in run.files().items() if "/." not in path}
    (directory,) = {Path(path).parent for path in whole}
    assert TaskStore(directory).read([0]) and not resolved_path(config).exists()
    assert [m.num_examples for m in run("prep_two").members] == [30, 30]
    after = run.files()
    assert whole.items() <= after.items()
    assert len({Path(path).parent for path in after}) == 2


def test_a_childs_message_is_found_behind_what_its_libraries_print():
    message = "2 tasks cannot be prepared:\n  a: read error: broken\n  fix:   copy it"
    assert _message(f"WARNING: no GPU\nerror: {message}\n") == message
    assert _message(f"error: {message}\n") == message
    assert _message("Killed\n") == "Killed"
