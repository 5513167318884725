import numpy as np
import pytest

from flanjax.eval.stats import paired_gain, score, wilson


@pytest.mark.parametrize(
    "successes, n, low, high",
    [  # scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
        (0, 10, 0.0, 0.2775327998628892),
        (10, 10, 0.7224672001371106, 1.0),
        (3, 10, 0.10779126740630075, 0.6032218525388546),
        (50, 100, 0.40383153121626, 0.59616846878374),
    ],
)
def test_wilson_interval_has_the_known_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-9)


def test_a_proportion_has_its_standard_error_and_a_wilson_interval():
    result = score([1, 1, 0, 1])
    assert (result.value, result.n) == (0.75, 4)
    assert result.stderr == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    assert (result.low, result.high) == wilson(3, 4)


def test_a_mean_has_a_bootstrap_interval_close_to_the_normal_one():
    values = np.random.default_rng(1).uniform(size=400)
    result = score(values)
    assert result.value == pytest.approx(values.mean())
    assert result.high - result.low == pytest.approx(2 * 1.96 * result.stderr, rel=0.05)
    assert score(values) == result


def test_a_gain_is_averaged_over_evals_not_over_examples():
    pairs = {"big": ([0] * 90, [1] * 90), "small": ([1] * 10, [1] * 10)}
    gain = paired_gain(pairs)
    assert (gain.value, gain.low, gain.high, gain.n) == (0.5, 0.5, 0.5, 100)


def test_the_interval_of_a_gain_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        pairs = {}
        for name in ("a", "b"):
            before = rng.random(60) < 0.3
            after = np.where(rng.random(60) < 0.4, rng.random(60) < 0.8, before)
            pairs[name] = (before, after)
        gain = paired_gain(pairs)
        hits += gain.low <= 0.4 * (0.8 - 0.3) <= gain.high
    assert 180 <= hits <= 199


def test_values_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="a: 2 values before, 1 after"):
        paired_gain({"a": ([0, 1], [1])})
    with pytest.raises(ValueError, match="no evals"):
        paired_gain({})
    with pytest.raises(ValueError, match="no values"):
        score([])
