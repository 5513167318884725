"""Exemplars are others than the query, all different, of its group, and seeded."""

import numpy as np
import pytest

from flanjax.data.fewshot import FewShot, choose_shots, draw_shot_templates
from flanjax.errors import ConfigError


def _choose(keys, groups=None, shots=(2, 3), seed=0, queries=None):
    groups = groups or [""] * len(keys)
    queries = keys if queries is None else queries
    query_groups = groups if len(queries) == len(groups) else [""] * len(queries)
    rng = np.random.default_rng(seed)
    return choose_shots(queries, keys, query_groups, groups, FewShot(shots), rng)


def test_a_query_is_never_its_own_exemplar_and_none_comes_twice():
    # Eight rows, and as many exemplars as can be: every draw meets every danger.
    chosen = _choose(list("abcdefgh"), shots=7)
    for query, shots in enumerate(chosen):
        assert sorted(shots) == [i for i in range(8) if i != query]


def test_rows_with_the_query_s_text_are_no_exemplars_for_it():
    keys = ["a", "a", "b", "c"]
    for query, shots in enumerate(_choose(keys, shots=2)):
        found = [keys[i] for i in shots if i >= 0]
        assert keys[query] not in found and len(set(found)) == len(found) == 2


def test_two_or_three_exemplars_come_equally_often():
    counts = (_choose([str(i) for i in range(4000)]) >= 0).sum(axis=1)
    assert set(counts) == {2, 3} and abs(counts.mean() - 2.5) < 0.05


def test_exemplars_come_from_the_query_s_group():
    groups = [str(i % 5) for i in range(100)]
    chosen = _choose([str(i) for i in range(100)], groups, shots=3)
    for query, shots in enumerate(chosen):
        assert {groups[i] for i in shots} == {groups[query]}


def test_a_pool_without_others_gives_no_exemplars():
    assert (_choose(["a"], shots=2) == -1).all()
    assert (_choose([], queries=["a", "b"], groups=[], shots=2) == -1).all()


def test_rows_that_repeat_are_neither_slow_nor_hide_the_others():
    keys = ["same"] * 20_000 + ["a", "b", "c"]
    chosen = _choose(keys, shots=3)
    assert {tuple(sorted(shots)) for shots in chosen[:20_000]} == {
        (20_000, 20_001, 20_002)
    }
    assert (_choose(["same"] * 20_000, shots=3) == -1).all()


def test_the_same_seed_gives_the_same_and_another_seed_other_exemplars():
    keys = [str(i) for i in range(200)]
    assert (_choose(keys) == _choose(keys)).all()
    assert (_choose(keys) != _choose(keys, seed=1)).any()


@pytest.mark.parametrize("shots", [0, (3, 2), (0, 2)])
def test_a_range_without_exemplars_is_refused(shots):
    with pytest.raises(ConfigError, match="no range"):
        FewShot(shots)


def test_exemplars_in_order_are_the_pool_s_first_but_never_the_query():
    few_shot = FewShot(2, in_order=True)
    rng = np.random.default_rng(0)
    groups, pool = ["x", "x", "x", "y", "y"], ["a", "b", "c", "d", "e"]
    queries, query_groups = ["q", "b", "d", "z"], ["x", "x", "y", "none"]
    chosen = choose_shots(queries, pool, query_groups, groups, few_shot, rng)
    assert chosen.tolist() == [[0, 1], [0, 2], [4, -1], [-1, -1]]
    with pytest.raises(ConfigError, match="draws nothing"):
        FewShot((2, 3), in_order=True)


def test_templates_of_exemplars_differ_as_long_as_there_are_enough():
    rng = np.random.default_rng(0)
    few = draw_shot_templates((500, 5), 3, rng)
    assert all(set(row[:3]) == {0, 1, 2} and row[3] != row[4] for row in few)
    many = draw_shot_templates((4000, 5), 10, rng)
    assert all(len(set(row)) == 5 for row in many)
    assert abs(np.bincount(many.ravel()) - 2000).max() < 200
