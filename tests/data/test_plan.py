"""The plan: exact shares, epochs without repeats, and an order that never moves."""

from collections import Counter

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.plan import Plan, PlanMember, Position
from flanjax.errors import ConfigError, DataError

LAYOUT = Layout("encoder_decoder", 64, 16)


def lengths(size, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([random.integers(1, 90, size), random.integers(1, 20, size)], 1)


def make(sizes=(40, 7, 500), shares=(0.6, 0.1, 0.3), **settings):
    members = [
        PlanMember(f"task{i}", lengths(size, i), share, f"fp{i}")
        for i, (size, share) in enumerate(zip(sizes, shares, strict=True))
    ]
    settings = {"layout": LAYOUT, "seed": 3, "block_examples": 64, **settings}
    return Plan(members, **settings)


def examples_of(plan, blocks):
    """All (member, example) pairs of the first blocks, block by block."""
    made = [plan.block(number) for number in range(blocks)]
    return [
        list(zip(b.members.tolist(), b.examples.tolist(), strict=True)) for b in made
    ]


@pytest.mark.parametrize("size", [1, 10, 64, 1000])
def test_realised_shares_are_exact_to_one_example_per_block(size):
    random = np.random.default_rng(size)
    shares = random.dirichlet(np.full(60, 0.3)) + 1e-9
    shares /= shares.sum()
    plan = make([5] * 60, shares, block_examples=size)
    total = np.zeros(60)
    for number, block in enumerate(examples_of(plan, 12), start=1):
        counts = np.bincount([m for m, _ in block], minlength=60)
        assert (np.abs(counts - size * shares) < 1 + 1e-9).all()
        total += counts
        assert (np.abs(total - number * size * shares) < 1).all()
        assert abs(len(block) - size) < 60


def test_a_block_holds_exactly_its_examples_when_shares_divide_it():
    for block in examples_of(make(shares=(0.5, 0.25, 0.25)), 5):
        assert Counter(m for m, _ in block) == {0: 32, 1: 16, 2: 16}


def test_an_example_repeats_only_after_all_others_were_used():
    plan = make()
    order = [pair for block in examples_of(plan, 30) for pair in block]
    for member, size in enumerate(plan.sizes):
        seen = Counter(example for m, example in order if m == member)
        assert max(seen.values()) - min(seen[i] for i in range(size)) <= 1
        assert set(seen) <= set(range(size))


def test_epochs_and_blocks_are_in_different_orders():
    plan = make((64,), (1.0,))
    first, second = examples_of(plan, 2)
    assert sorted(first) == sorted(second) == [(0, i) for i in range(64)]
    assert first != second


def test_rows_keep_to_the_limits_and_lose_nothing():
    plan = make()
    for number in range(4):
        block = plan.block(number)
        rows = [block.row(index) for index in range(block.num_rows)]
        assert sum(map(len, rows)) == len(block.members)
        for row in rows:
            raw = np.array([plan.members[m].lengths[e] for m, e in row])
            assert (LAYOUT.sizes(raw).sum(axis=0) <= LAYOUT.limits).all()


def test_neighbouring_rows_are_mixed():
    """Packing starts with the longest; consecutive batches must not show it."""
    plan = make((5000,), (1.0,), block_examples=5000)
    block = plan.block(0)
    firsts = [lengths(5000)[block.row(i)[0][1], 1] for i in range(block.num_rows)]
    halves = np.mean(firsts[: len(firsts) // 2]), np.mean(firsts[len(firsts) // 2 :])
    assert abs(halves[0] - halves[1]) < 1


def test_unpacked_rows_hold_one_example():
    plan = make(packing=False)
    assert all(len(row) == 1 for row in plan.rows(Position(), 200)[0])


def test_batches_in_any_split_and_from_any_position_are_the_same_rows():
    straight, _ = make().rows(Position(), 240)
    plan, position, pieces = make(), Position(), []
    for count in [1, 50, 9, 100, 80]:
        rows, position = plan.rows(position, count)
        pieces += rows
    assert pieces == straight
    for step in (0, 1, 17, 29):
        position = make().position_of(step, 8)
        rows, _ = make().rows(position, 8)
        assert rows == straight[step * 8 : step * 8 + 8]


def test_resuming_makes_one_block_only():
    plan = make()
    end = plan.position_of(40, 8)
    resumed = make()
    resumed.rows(end, 1)
    assert set(resumed._blocks) == {end.block}


def test_positions_are_canonical():
    plan = make()
    for count in (plan.block(0).num_rows, 100):
        assert plan.rows(Position(), count)[1] == plan.advance(Position(), count)
    assert plan.advance(Position(), plan.block(0).num_rows) == Position(1, 0)


def test_order_never_changes():
    """Recorded: a change here breaks every run's resume, and needs a new version."""
    assert make().order_hash() == "786d4c479e471ad0"
    assert make().fingerprint == "f44c6cea8d2f13c0"


def test_another_member_does_not_reorder_the_examples_of_others():
    one = make((64,), (1.0,))
    two = make((64, 64), (0.5, 0.5), block_examples=128)
    taken = [
        p._permutations.take(np.zeros(n, int), np.full(n, 64))[:64].tolist()
        for n, p in ((1, one), (2, two))
    ]
    assert taken[0] == taken[1]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"block_examples": 65},
        {"packing": False},
        {"layout": Layout("encoder_decoder", 64, 17)},
        {"shares": (0.6, 0.2, 0.2)},
        {"sizes": (40, 7, 501)},
    ],
)
def test_the_fingerprint_covers_what_decides_the_order(change):
    assert make(**change).fingerprint != make().fingerprint


def test_the_fingerprint_covers_the_members_fingerprints():
    plan = make()
    members = [m._replace(fingerprint="other") for m in plan.members]
    other = Plan(members, LAYOUT, plan.seed, plan.block_examples)
    assert other.fingerprint != plan.fingerprint


def test_bad_members_are_refused_by_name():
    with pytest.raises(DataError, match="task1") as caught:
        make(sizes=(4, 0, 4))
    assert "no examples" in str(caught.value)
    with pytest.raises(DataError, match="task2"):
        make(shares=(0.5, 0.5, 0.0))
    with pytest.raises(ConfigError, match="sum to"):
        make(shares=(0.5, 0.5, 0.5))


def test_thousands_of_tasks_plan_in_seconds():
    count = 2000
    plan = make([30] * count, [1 / count] * count, block_examples=8192)
    assert plan.block(1000).num_rows > 1000


def test_shares_of_1836_tasks_are_exact_over_100_000_draws():
    """Within one example a block, and no row comes back before all others were used."""
    random = np.random.default_rng(0)
    sizes = random.integers(3, 400, 1836)
    shares = random.pareto(1.2, 1836) + 0.01
    shares /= shares.sum()
    plan = make(sizes, shares, block_examples=8192, packing=False)
    total, used = np.zeros(1836), [Counter() for _ in sizes]
    for number in range(13):
        block = plan.block(number)
        counts = np.bincount(block.members, minlength=1836)
        assert (np.abs(counts - 8192 * shares) < 1 + 1e-6).all()
        total += counts
        pairs = zip(block.members.tolist(), block.examples.tolist(), strict=True)
        for member, example in pairs:
            used[member][example] += 1
    assert total.sum() > 100_000
    assert (np.abs(total - 13 * 8192 * shares) < 1).all()
    for seen, size in zip(used, sizes.tolist(), strict=True):
        times = [seen[example] for example in range(size)]
        assert max(times) - min(times) <= 1


def test_blocks_in_any_order_are_the_same_blocks():
    wanted = examples_of(make(), 12)
    plan = make()
    for number in (7, 2, 11, 3, 2, 0, 9):
        block = plan.block(number)
        pairs = zip(block.members.tolist(), block.examples.tolist(), strict=True)
        assert list(pairs) == wanted[number]
