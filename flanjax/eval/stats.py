"""How sure a score is: intervals for scores and for paired gains.

    score([1, 1, 0, 1])   # Score(value=0.75, n=4, stderr=0.22, low=0.30, high=0.95)
    paired_gain({"boolq": (before, after), "asdiv": (before, after)})

All intervals are 95 %. The bootstrap's generator has a fixed seed: the same values
give the same interval.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution.
_RESAMPLES = 10_000
_CHUNK = 500


@dataclasses.dataclass(frozen=True)
class Score:
    """A mean with its uncertainty.

    Attributes:
      value: the mean.
      n: number of examples.
      stderr: standard error of the mean.
      low: lower end of the 95 % interval.
      high: upper end of the 95 % interval.
    """

    value: float
    n: int
    stderr: float
    low: float
    high: float


def score(values: Sequence[float]) -> Score:
    """Mean of one value per example: Wilson interval for 0/1 values, else bootstrap.

    Raises:
      ValueError: there are no values.
    """
    array = np.asarray(values, np.float64)
    if not array.size:
        raise ValueError("no values to average")
    mean = float(array.mean())
    if np.isin(array, (0.0, 1.0)).all():
        low, high = wilson(float(array.sum()), array.size)
        stderr = math.sqrt(mean * (1 - mean) / array.size)
    else:
        low, high = _percentiles(_resampled_means(array, np.random.default_rng(0)))
        stderr = _stderr(array)
    return Score(mean, array.size, stderr, low, high)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; sound at 0, at 1 and for small n.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    p, z2 = successes / n, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_gain(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Score:
    """Mean over evals of the mean gain of the same examples, after minus before.

    Args:
      pairs: per eval the values before and after, example by example.

    Returns:
      The gain with a bootstrap interval that resamples examples inside each eval
      (the evals themselves are the fixed strata); n counts examples.

    Raises:
      ValueError: there are no pairs, or an eval's values do not pair up.
    """
    if not pairs:
        raise ValueError("no evals to compare")
    rng = np.random.default_rng(0)
    means, variances, resampled, n = [], [], np.zeros(_RESAMPLES), 0
    for name in sorted(pairs):
        before, after = (np.asarray(side, np.float64) for side in pairs[name])
        if before.shape != after.shape or not before.size:
            raise ValueError(f"{name}: {before.size} values before, {after.size} after")
        gains = after - before
        means.append(gains.mean())
        variances.append(_stderr(gains) ** 2)
        resampled += _resampled_means(gains, rng) / len(pairs)
        n += gains.size
    low, high = _percentiles(resampled)
    stderr = math.sqrt(sum(variances)) / len(pairs)
    return Score(float(np.mean(means)), n, stderr, low, high)


def _stderr(array: np.ndarray) -> float:
    return float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else 0.0


def _resampled_means(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of bootstrap samples, drawn as counts of each distinct value."""
    values, counts = np.unique(array, return_counts=True)
    draws = [
        rng.multinomial(array.size, counts / array.size, size=_CHUNK) @ values
        for _ in range(_RESAMPLES // _CHUNK)
    ]
    return np.concatenate(draws) / array.size


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
