"""Reading registered mixtures as trees, with stand-ins for SeqIO's registries."""

from types import SimpleNamespace

import pytest

from flanjax.data.mixing import (
    add_empty_mixture,
    checked_members,
    read_tree,
    resolve_shares,
)
from flanjax.errors import ConfigError


class Registry:
    """SeqIO's registries, as far as they are asked."""

    def __init__(self, content):
        self.content = content

    def names(self):
        return self.content.keys()

    def get(self, name):
        return self.content[name]


def tree(name, mixtures):
    registered = {
        each: SimpleNamespace(rate_per_task_name=rates)
        for each, rates in mixtures.items()
    }
    tasks = Registry({"a": "task a", "b": "task b"})
    return read_tree(name, tasks, Registry(registered))


def test_a_registered_mixture_becomes_a_tree_of_rates():
    root = tree("all", {"all": {"inner": 0.5, "b": 0.5}, "inner": {"a": 3, "b": 1}})
    found = resolve_shares(root, {"a": 10, "b": 10})
    assert {s.name: s.share for s in found} == {"a": 0.375, "b": 0.625}
    assert root.children[0].children[0].task == "task a"


def test_a_task_alone_is_a_tree():
    assert tree("a", {}).children == ()


def test_a_mixture_that_holds_itself_is_refused_with_the_way_round():
    mixtures = {"top": {"x": 1}, "x": {"a": 1, "y": 1}, "y": {"x": 1}}
    with pytest.raises(ConfigError, match="'x' holds itself: x > y > x") as caught:
        tree("top", mixtures)
    assert caught.value.exit_code == 2
    assert "leave 'x' out of 'y'" in str(caught.value)


def test_a_mixture_in_two_places_is_no_cycle():
    mixtures = {"top": {"x": 1, "y": 1}, "x": {"a": 1}, "y": {"x": 1}}
    assert len(tree("top", mixtures).tasks()) == 1


def test_an_unknown_member_names_the_nearest_and_the_mixture():
    with pytest.raises(ConfigError, match="Did you mean 'inner'") as caught:
        tree("all", {"all": {"iner": 1}, "inner": {"a": 1}})
    assert "mixture 'all'" in str(caught.value)


def test_a_mixture_that_is_empty_on_purpose_says_what_to_do():
    add_empty_mixture("nothing_at_all", "evaluate the initial checkpoint")
    with pytest.raises(ConfigError, match="evaluate the initial checkpoint"):
        tree("nothing_at_all", {})


def test_members_named_twice_and_names_taken_are_refused():
    assert checked_members("m", [("a", 1), ("b", 2)]) == [("a", 1), ("b", 2)]
    with pytest.raises(ConfigError, match="'a' comes twice in mixture 'm'"):
        checked_members("m", [("a", 1), ("b", 2), ("a", 3)])
    with pytest.raises(ConfigError, match="'m' exists already"):
        checked_members("m", [("a", 1)], registered=["m"])
    with pytest.raises(ConfigError, match="no members"):
        checked_members("m", [])
