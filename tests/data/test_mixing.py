"""Rates, shares and nesting, without SeqIO."""

from types import SimpleNamespace

import pytest

from flanjax.data.mixing import (
    FLAN_RATES,
    Node,
    examples_proportional,
    resolve_shares,
    temperature_scaled,
)
from flanjax.errors import ConfigError, DataError

EXAMPLES = {"a": 100, "b": 300, "c": 1000}


class CountedTask:
    """A SeqIO task with 500 examples."""

    asked = 0

    def num_input_examples(self, split):
        self.asked += 1
        return 500


def mix(*children, name="mix", rate=1.0):
    nodes = [c if isinstance(c, Node) else Node(*c) for c in children]
    return Node(name, rate, tuple(nodes))


def shares(root, examples=EXAMPLES):
    return {s.name: s.share for s in resolve_shares(root, examples)}


def test_fixed_rates_are_relative():
    found = resolve_shares(mix(("a", 1), ("b", 3)), EXAMPLES)
    assert [(s.name, s.rate, s.share) for s in found] == [
        ("a", 1.0, 0.25),
        ("b", 3.0, 0.75),
    ]


def test_examples_proportional_rates_stop_at_the_cap():
    rate = examples_proportional(cap=200)
    found = resolve_shares(mix(("a", rate), ("b", rate), ("c", rate)), EXAMPLES)
    assert [s.rate for s in found] == [100, 200, 200]
    assert [s.cap for s in found] == [200] * 3
    assert sum(s.share for s in found) == pytest.approx(1)


def test_temperature_evens_tasks_out():
    rate = temperature_scaled(2, cap=400)
    assert shares(mix(("a", rate), ("c", rate)))["a"] == pytest.approx(1 / 3)


def test_a_nested_mixture_is_normalised_inside():
    inner = mix(("a", 30), ("b", 10), name="inner", rate=0.5)
    assert shares(mix(inner, ("c", 0.5))) == {"a": 0.375, "b": 0.125, "c": 0.5}


def test_a_task_in_two_mixtures_appears_once_with_both_shares():
    one = mix(("a", 1), ("b", 1), name="one")
    two = mix(("a", 1), name="two")
    assert shares(mix(one, two)) == {"a": 0.75, "b": 0.25}


def test_what_is_missing_leaves_its_share_to_its_siblings():
    inner = mix(("a", 1), ("gone", 3), name="inner")
    empty = mix(("gone2", 1), name="empty")
    assert shares(mix(inner, empty, ("b", 1))) == {"a": 0.5, "b": 0.5}
    with pytest.raises(DataError, match="no task of mixture 'mix'"):
        shares(mix(("gone", 1)))


def test_a_task_alone_is_its_own_mixture():
    assert shares(Node("a")) == {"a": 1.0}


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_names_task_and_mixture(rate):
    with pytest.raises(DataError, match="'b' in mixture 'mix'") as caught:
        shares(mix(("a", 1), ("b", rate)))
    assert caught.value.exit_code == 3


def test_a_foreign_rate_function_gets_the_task_and_its_failure_is_clear():
    task = SimpleNamespace(weight=3)
    root = mix(("a", 1), Node("b", lambda t: t.weight, task=task))
    assert shares(root)["b"] == 0.75
    with pytest.raises(DataError, match="rate function failed"):
        shares(mix(Node("b", lambda t: t.nothing, task=task)))


def test_rates_work_as_seqio_rate_functions():
    task = CountedTask()
    assert examples_proportional(cap=200)(task) == 200
    assert temperature_scaled(1)(task) == 500
    assert task.asked == 1  # Counting reads the data.


def test_bad_rates_are_refused_at_once():
    with pytest.raises(ConfigError):
        temperature_scaled(0)
    with pytest.raises(ConfigError):
        examples_proportional(0)


def test_the_papers_rates_sum_to_one():
    for name, rates in FLAN_RATES.items():
        total = sum(collection.rate for collection in rates.values())
        assert total == pytest.approx(1, abs=0.0011), name
    assert FLAN_RATES["flan2022"]["niv2"].task_rate.of(9_000) == 5_000
