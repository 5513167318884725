"""Which exemplars stand before which query: chosen by number, before any rendering.

    FewShot(shots=(2, 3), max_tokens=1920)   # FLAN's x-shot; FewShot(shots=5) fixed
    FewShot(shots=5, in_order=True)          # the same five for all, to evaluate

Exemplars take the template of their query, but in the mixed form each has its own. For
the first form FLAN draws 25 exemplars and keeps those
whose template happens to be the query's, which leaves two or three of each ten
templates, each number as often: here that number is drawn outright.
https://github.com/google-research/FLAN/blob/main/flan/v2/few_shot.py
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flanjax.errors import ConfigError

NO_SHOT = -1
# Distinct rows looked at when the first draws gave too few: far more than a prompt has
# exemplars.
_SECOND_LOOK = 100


@dataclass(frozen=True)
class FewShot:
    """How many exemplars, and how many tokens the whole prompt may have.

    Args:
      shots: a number, or (least, most) of a uniform draw for each query.
      max_tokens: the longest run of first exemplars is kept that fits with the query;
        examples left without any are dropped.
      in_order: take the first rows of the exemplars' split, in its order, for every
        query. That is for evaluation, where no question may be lost: queries left
        without an exemplar are kept.
    """

    shots: int | tuple[int, int] = (2, 3)
    max_tokens: int = 1920
    in_order: bool = False

    def __post_init__(self):
        least, most = self.range
        if self.in_order and least != most:
            raise ConfigError(
                f"FewShot(shots={self.shots}, in_order=True) draws nothing",
                fix="give the number of exemplars, shots=5",
            )
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
    may_be_own: bool = False,
) -> np.ndarray:
    """Chooses exemplars for each query, none equal to it and no two alike.

    Args:
      query_keys: what makes a query the same as an exemplar (its text, say).
      pool_keys: likewise of each row that may be an exemplar.
      query_groups: exemplars come from the same group only.
      pool_groups: likewise of each row that may be an exemplar.
      few_shot: how many.
      rng: where the draws come from.
      may_be_own: whether an exemplar may equal its query all the same (the switch
        "self_exemplars").

    Returns:
      int32 [queries, most shots], indices into the pool, filled with -1 at the end.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(pool_groups):
        members.setdefault(group, []).append(index)
    least, most = few_shot.range
    if few_shot.in_order:
        distinct = {g: _distinct(pool, pool_keys) for g, pool in members.items()}
        return _first_of_pool(query_keys, pool_keys, query_groups, distinct, most)
    counts = rng.integers(least, most + 1, len(query_keys))
    # A few spare draws each: most queries then need no second look at the pool.
    draws = rng.random((len(query_keys), most + 4))
    distinct: dict[str, list[int]] = {}
    chosen = np.full((len(query_keys), most), NO_SHOT, np.int32)
    for query, (key, group) in enumerate(zip(query_keys, query_groups, strict=True)):
        pool = members.get(group, [])
        drawn = [pool[int(x * len(pool))] for x in draws[query]] if pool else []
        key = None if may_be_own else key
        shots = _first_distinct(drawn, key, pool_keys, counts[query])
        if len(shots) < counts[query]:
            if group not in distinct:
                distinct[group] = _distinct(pool, pool_keys)
            rest = _some(distinct[group], _SECOND_LOOK, rng)
            shots = _first_distinct(drawn + rest, key, pool_keys, counts[query])
        chosen[query, : len(shots)] = shots
    return chosen


def _distinct(pool: Sequence[int], pool_keys: Sequence[Hashable]) -> list[int]:
    """Returns the first row of each key."""
    found: dict[Hashable, int] = {}
    for index in pool:
        found.setdefault(pool_keys[index], index)
    return list(found.values())


def _some(pool: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
    """Returns rows in random order, all different; a shuffle of all costs too much."""
    if len(pool) <= most:
        return [pool[i] for i in rng.permutation(len(pool))]
    return [pool[i] for i in dict.fromkeys(rng.integers(len(pool), size=most).tolist())]


def _first_of_pool(
    query_keys: Sequence[Hashable],
    pool_keys: Sequence[Hashable],
    query_groups: Sequence[str],
    members: Mapping[str, Sequence[int]],
    count: int,
) -> np.ndarray:
    chosen = np.full((len(query_keys), count), NO_SHOT, np.int32)
    for query, (key, group) in enumerate(zip(query_keys, query_groups, strict=True)):
        shots = _first_distinct(members.get(group, []), key, pool_keys, count)
        chosen[query, : len(shots)] = shots
    return chosen


def draw_shot_templates(
    shape: tuple[int, int], templates: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws a template for each exemplar, for one query all different if they suffice.

    FLAN cuts exemplars from a stream in which templates take turns, so that five in a
    row have five templates.

    Args:
      shape: (queries, exemplars of each).
      templates: how many there are to draw from.
      rng: where the draws come from.

    Returns:
      int32 [queries, exemplars], numbers of templates.
    """
    queries, shots = shape
    rounds = [
        rng.random((queries, templates)).argsort(axis=1)
        for _ in range(-(-shots // templates))
    ]
    return np.concatenate(rounds, axis=1)[:, :shots].astype(np.int32)


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
