"""Which exemplars stand before which query: chosen by number, before any rendering.

    FewShot(shots=(2, 3), max_tokens=1920)   # FLAN's x-shot; FewShot(shots=5) fixed

Exemplars take the template of their query. FLAN draws 25 exemplars and keeps those
whose template happens to be the query's, which leaves two or three of each ten
templates, each number as often: here that number is drawn outright.
https://github.com/google-research/FLAN/blob/main/flan/v2/few_shot.py
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from flanjax.errors import ConfigError

NO_SHOT = -1


@dataclass(frozen=True)
class FewShot:
    """How many exemplars, and how many tokens the whole prompt may have.

    Args:
      shots: a number, or (least, most) of a uniform draw for each query.
      max_tokens: the longest run of first exemplars is kept that fits with the query;
        examples left without any are dropped.
    """

    shots: int | tuple[int, int] = (2, 3)
    max_tokens: int = 1920

    def __post_init__(self):
        least, most = self.range
        if not 1 <= least <= most:
            raise ConfigError(
                f"FewShot(shots={self.shots}) is no range of at least one exemplar",
                fix="give a positive number, or (least, most)",
            )

    @property
    def range(self) -> tuple[int, int]:
        """Least and most exemplars."""
        shots = self.shots
        return (shots, shots) if isinstance(shots, int) else (shots[0], shots[1])


def choose_shots(
    query_keys: Sequence[Hashable],
    pool_keys: Sequence[Hashable],
    query_groups: Sequence[str],
    pool_groups: Sequence[str],
    few_shot: FewShot,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws exemplars for each query, none equal to it and no two alike.

    Args:
      query_keys: what makes a query the same as an exemplar (its text, say).
      pool_keys: likewise of each row that may be an exemplar.
      query_groups: exemplars come from the same group only.
      pool_groups: likewise of each row that may be an exemplar.
      few_shot: how many.
      rng: where the draws come from.

    Returns:
      int32 [queries, most shots], indices into the pool, filled with -1 at the end.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(pool_groups):
        members.setdefault(group, []).append(index)
    least, most = few_shot.range
    counts = rng.integers(least, most + 1, len(query_keys))
    # A few spare draws each: most queries then need no second look at the pool.
    draws = rng.random((len(query_keys), most + 4))
    chosen = np.full((len(query_keys), most), NO_SHOT, np.int32)
    for query, (key, group) in enumerate(zip(query_keys, query_groups, strict=True)):
        pool = members.get(group, [])
        drawn = [pool[int(x * len(pool))] for x in draws[query]] if pool else []
        shots = _first_distinct(drawn, key, pool_keys, counts[query])
        if len(shots) < counts[query]:
            rest = [pool[i] for i in rng.permutation(len(pool))]
            shots = _first_distinct(drawn + rest, key, pool_keys, counts[query])
        chosen[query, : len(shots)] = shots
    return chosen


def _first_distinct(
    candidates: Sequence[int],
    own_key: Hashable,
    pool_keys: Sequence[Hashable],
    count: int,
) -> list[int]:
    seen = {own_key}
    shots: list[int] = []
    for candidate in candidates:
        if len(shots) == count:
            break
        if pool_keys[candidate] not in seen:
            seen.add(pool_keys[candidate])
            shots.append(candidate)
    return shots
