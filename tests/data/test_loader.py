"""The loader: whole batches by plan, whoever reads them and wherever one starts."""

import json
import subprocess
import sys

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.loader import make_loader, make_plan
from flanjax.data.plan import Position
from flanjax.errors import ConfigError, DataError

LAYOUT = Layout("encoder_decoder", 64, 16)
TASKS = {"a": (50, 0.5), "b": (9, 0.2), "c": (200, 0.3)}


@pytest.fixture
def load(make_resolved, tmp_path):
    resolved = make_resolved(TASKS)

    def load(count, **settings):
        settings = {"batch_size": 8, "seed": 1, "block_examples": 100, **settings}
        with make_loader(resolved, tmp_path, LAYOUT, **settings) as loader:
            return [next(loader) for _ in range(count)]

    load.resolved = resolved
    return load


def same(one, two):
    assert one.hash == two.hash and one.position == two.position
    assert one.examples == two.examples and (one.counts == two.counts).all()
    for name, value in one.features.items():
        assert np.array_equal(value, two.features[name]), name


def test_features_hold_the_planned_examples(load, tmp_path):
    plan = make_plan(load.resolved, tmp_path, LAYOUT, 1, 100)
    rows, position = plan.rows(Position(), 16)
    first, second = load(2)
    assert first.examples + second.examples == rows and second.position == position
    tokens = first.features["encoder_input_tokens"]
    for row, ids in zip(first.examples, tokens, strict=True):
        places = np.flatnonzero(ids >= 10_000)
        marks = zip(ids[places - 1] - 1000, ids[places] - 10_000, strict=True)
        assert list(marks) == row
    assert first.features["encoder_input_tokens"].shape == (8, 64)
    assert first.counts.sum() == sum(map(len, first.examples))


@pytest.mark.parametrize("step", [1, 7, 20])
def test_resuming_at_any_step_continues_the_straight_run(load, step):
    straight = load(step + 3)
    resumed = load(3, position=straight[step - 1].position)
    for one, two in zip(straight[step:], resumed, strict=True):
        same(one, two)


@pytest.mark.parametrize("hosts", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_hosts(load, hosts):
    whole = load(5)
    parts = [load(5, host_index=i, host_count=hosts) for i in range(hosts)]
    for step, batch in enumerate(whole):
        mine = [part[step] for part in parts]
        assert {part.hash for part in mine} == {batch.hash}
        assert {part.position for part in mine} == {batch.position}
        assert sum((part.examples for part in mine), []) == batch.examples
        for name, value in batch.features.items():
            joined = np.concatenate([part.features[name] for part in mine])
            assert np.array_equal(joined, value)


def test_prefetch_and_threads_do_not_change_batches(load):
    plain = load(6, prefetch=0)
    for one, two in zip(plain, load(6, prefetch=5, threads=3), strict=True):
        same(one, two)


def test_realised_shares_follow_the_mixture(load):
    counts = sum(batch.counts for batch in load(120))
    shares = counts / counts.sum()
    assert np.allclose(shares, [0.5, 0.2, 0.3], atol=0.01)


def test_batches_that_cannot_be_divided_are_refused(load):
    with pytest.raises(ConfigError, match="not divisible by 3"):
        load(1, host_count=3)


def test_a_store_that_breaks_under_way_is_one_clear_error(load, tmp_path):
    (tmp_path / load.resolved.members[0].path / "tokens.bin").unlink()
    with pytest.raises(DataError, match="prepare"):
        load(3)


_HOST = """
import json, sys
from pathlib import Path
from flanjax.data.layout import Layout
from flanjax.data.loader import make_loader
from flanjax.data.plan import Position
from flanjax.data.store import ResolvedMixture

store, index, count, steps, block, row = sys.argv[1], *map(int, sys.argv[2:])
resolved = ResolvedMixture.load(Path(store) / "mixtures" / "mix.json")
with make_loader(
    resolved, store, Layout("encoder_decoder", 64, 16), 8, seed=1, block_examples=100,
    position=Position(block, row), host_index=index, host_count=count,
) as loader:
    for _ in range(steps):
        batch = next(loader)
        print(json.dumps([batch.hash, batch.position, batch.examples]))
"""


def hosts(store, count, steps, position=(0, 0)):
    """What each of `count` real processes loads: [hash, position, its rows] a step."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _HOST]
            + list(map(str, (store, index, count, steps, *position))),
            stdout=subprocess.PIPE,
        )
        for index in range(count)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    return [[json.loads(line) for line in out.splitlines()] for out in outputs]


@pytest.mark.slow
def test_hosts_in_processes_of_their_own_agree_for_200_steps(make_resolved, tmp_path):
    """Also after a resume, and with another task in the store than the mixture's."""
    make_resolved(TASKS).save(tmp_path / "mixtures" / "mix.json")
    (whole,) = hosts(tmp_path, 1, 200)
    assert len({hash for hash, _, _ in whole}) == 200
    make_resolved({"another": (30, 1.0)})
    for count in (2, 4):
        parts = hosts(tmp_path, count, 200)
        for step, (hash, position, rows) in enumerate(whole):
            mine = [part[step] for part in parts]
            assert {part[0] for part in mine} == {hash}
            assert all(part[1] == position for part in mine)
            assert sum((part[2] for part in mine), []) == rows
        resumed = hosts(tmp_path, count, 100, whole[99][1])
        for part in resumed:
            assert [step[0] for step in part] == [step[0] for step in whole[100:]]


def test_the_rows_of_packed_blocks_are_remembered_in_the_store(load, tmp_path):
    straight = load(30)
    again = make_plan(load.resolved, tmp_path, LAYOUT, 1, 100)
    assert again.position_of(29, 8) == straight[28].position
    assert not again._blocks, "found without packing"


def test_a_mixture_opens_from_one_file(load, tmp_path):
    first = load(2)
    (index,) = (tmp_path / "index").iterdir()
    for member in load.resolved.members:
        (tmp_path / member.path / "lengths.npy").unlink()
    for one, two in zip(first, load(2), strict=True):
        same(one, two)
    index.write_bytes(index.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"lengths\.npy"):
        load(1)


def test_more_tasks_than_files_may_be_open(load, tmp_path, monkeypatch):
    wanted = load(20)
    monkeypatch.setattr("resource.getrlimit", lambda what: (4, 4))
    for one, two in zip(wanted, load(20), strict=True):
        same(one, two)


def test_loading_imports_no_tensorflow():
    code = (
        "import sys, flanjax.data.loader, flanjax.data.guards, flanjax.data.ledger;"
        "assert 'tensorflow' not in sys.modules and 'seqio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
