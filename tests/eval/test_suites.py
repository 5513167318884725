import json

import pytest

from flanjax.errors import ConfigError
from flanjax.eval import suites
from flanjax.eval.suites import EvalSpec, add_eval, add_suite, resolve_evals


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(suites, "_EVALS", {})
    monkeypatch.setattr(suites, "_SUITES", {})


def test_suites_resolve_in_order_and_each_eval_once():
    for name in "abc":
        add_eval(EvalSpec(name, task=f"{name}_fs_opt"))
    add_suite("first", ["b", "a"])
    add_suite("all", ["first", "c"])
    assert [spec.name for spec in resolve_evals(["c", "all", "a"])] == ["c", "b", "a"]


def test_an_unknown_name_is_an_error_that_offers_the_nearest():
    add_eval(EvalSpec("boolq_held", task="t"))
    with pytest.raises(ConfigError, match="Did you mean 'boolq_held'"):
        resolve_evals(["boolq_hold"])
    with pytest.raises(ConfigError, match="unknown extractor 'numbr'.*'number'"):
        EvalSpec("x", task="t", extractor="numbr")


def test_a_name_is_registered_once_unless_the_content_is_the_same():
    add_eval(EvalSpec("a", task="t"))
    add_eval(EvalSpec("a", task="t"))
    with pytest.raises(ConfigError, match="registered already"):
        add_eval(EvalSpec("a", task="other"))
    with pytest.raises(ConfigError, match="registered already"):
        add_suite("a", ["a"])


@pytest.mark.parametrize("field", ["max_examples", "max_decode_tokens"])
def test_limits_are_at_least_one(field):
    with pytest.raises(ConfigError, match="at least 1"):
        EvalSpec("a", task="t", **{field: 0})


def test_options_are_not_scored_before_a_chain_of_thought():
    with pytest.raises(ConfigError, match="eval 'a'"):
        EvalSpec("a", task="t", style="cot", score_choices=True)


def test_a_spec_survives_json():
    spec = EvalSpec("a", task="t", stop=("\n\n",), scorers=("f1",), max_examples=3)
    assert suites.from_json(json.loads(json.dumps(suites.to_json(spec)))) == spec
    with pytest.raises(ConfigError, match="unknown key 'stops'.*'stop'"):
        suites.from_json({**suites.to_json(spec), "stops": []})
    with pytest.raises(ConfigError, match="bad eval"):
        suites.from_json({"name": "a"})
