"""Reads the tokens of any examples of a mixture, in the order they are needed.

    reader = MixtureReader(resolved.members, plan, store_dir)
    tokens, starts = reader.read(members, examples)     # two int arrays of one length
    tokens[starts[0]:]                                  # inputs, targets of example 0

A batch has few examples of each task: of 1,836 tasks hardly two. So nothing is read
ahead and nothing is kept: one short read for each example, from files that stay open.
"""

import os
from collections.abc import Sequence

import numpy as np

from flanjax.data.plan import Plan
from flanjax.data.store import Member
from flanjax.data.tokens import TOKENS_FILE, TokenFiles, record_words


class MixtureReader:
    """The token files of a mixture's members.

    Args:
      members: stored members in the plan's order.
      plan: its lengths say where in a file an example is.
      store_dir: the store.
    """

    def __init__(
        self, members: Sequence[Member], plan: Plan, store_dir: str | os.PathLike
    ):
        self._plan = plan
        self._files = TokenFiles(
            [os.path.join(store_dir, member.path, TOKENS_FILE) for member in members]
        )
        # Word at which each example begins, in all files as if they were one.
        words = record_words(plan.lengths)
        self._ends = np.cumsum(words, out=words)
        first = plan.offsets
        self._before = np.where(first > 0, self._ends[first - 1], 0)

    def read(
        self, members: np.ndarray, examples: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads examples, from any thread.

        Args:
          members: int [n], index of each example's member.
          examples: int [n], its index in the member.

        Returns:
          tokens int32 [any], and int64 [n], where in them each example's inputs begin,
          directly followed by its targets.

        Raises:
          DataError: a file is missing or damaged.
        """
        where = self._plan.offsets[members] + examples
        words = record_words(self._plan.lengths[where])
        places = self._ends[where] - words - self._before[members]
        records = self._files.read(members.tolist(), places.tolist(), words.tolist())
        return np.frombuffer(b"".join(records), "<i4"), np.cumsum(words) - words
