"""The loader: whole batches by plan, whoever reads them and wherever one starts."""

import subprocess
import sys

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.loader import make_loader, make_plan, read_rows
from flanjax.data.plan import Position
from flanjax.data.store import OpenStores
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


def test_rows_are_read_in_their_order(load, tmp_path):
    rows = [[(2, 5), (0, 1)], [], [(2, 0), (2, 5)]]
    read = read_rows(rows, load.resolved.members, OpenStores(tmp_path))
    ids = [[example.meta["row_id"] for example in row] for row in read]
    assert ids == [["c:5", "a:1"], [], ["c:0", "c:5"]]


def test_loading_imports_no_tensorflow():
    code = (
        "import sys, flanjax.data.loader, flanjax.data.guards, flanjax.data.ledger;"
        "assert 'tensorflow' not in sys.modules and 'seqio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
