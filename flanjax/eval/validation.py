"""Loss per target token on validation splits, task by task.

    validation = Validation(model, layout, resolved, store_dir)
    validation.run(params)["validation/boolq_zs_opt"]["loss"].value

Examples are packed into rows as in training; no z-loss, no label smoothing, no dropout.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flanjax.data.layout import Layout
from flanjax.data.packing import pack
from flanjax.data.store import Member, ResolvedMixture, TaskStore
from flanjax.eval.stats import Score
from flanjax.models.loss import LossConfig, loss_and_metrics

ALL = "validation/all"


class Validation:
    """The validation splits of a resolved mixture, packed once and kept.

    Args:
      model: from `build_model`.
      layout: as in training.
      resolved: its `validation` members are scored.
      store_dir: where they are.
      rows: rows of a batch.
      place: puts a batch of numpy arrays on the devices.
      max_examples: of each member at most; None takes all.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        resolved: ResolvedMixture,
        store_dir: str | Path,
        *,
        rows: int = 4,
        place: Callable[[Any], Any] = lambda batch: batch,
        max_examples: int | None = None,
    ):
        self._layout, self._store_dir = layout, Path(store_dir)
        self._members = resolved.validation
        self._rows, self._place, self._max_examples = rows, place, max_examples
        config = LossConfig(z_loss=0.0)
        self._sums = jax.jit(
            lambda params, batch: loss_and_metrics(model, params, batch, config)
        )

    def run(
        self, params: Any, progress: Callable[[str], None] = lambda line: None
    ) -> dict[str, dict[str, Score]]:
        """Scores every member.

        Args:
          params: of the model.
          progress: called with a line after each member.

        Returns:
          "validation/<task>" -> {"loss": nats per target token, "accuracy": share of
          target tokens that are the model's first choice}, and "validation/all" over
          all tokens. n counts tokens; tokens of one example depend on each other, so
          there is no interval (low and high equal the value).
        """
        scores, total = {}, np.zeros(3)
        for done, member in enumerate(self._members, start=1):
            sums = np.zeros(3)
            for batch in self._batches(member):
                loss, aux = self._sums(params, self._place(batch))
                sums += [float(loss), float(aux["correct"]), float(aux["weight_sum"])]
            scores[f"validation/{member.name}"] = _scores(sums)
            total += sums
            progress(f"validation {done}/{len(self._members)}: {member.name}")
        return scores | ({ALL: _scores(total)} if scores else {})

    @functools.cached_property
    def _packed(self) -> dict[str, list[dict[str, np.ndarray]]]:
        return {}

    def _batches(self, member: Member) -> list[dict[str, np.ndarray]]:
        """Feature batches of one member, [rows, length]; the last is filled up."""
        if member.name not in self._packed:
            store = TaskStore(self._store_dir / member.path)
            examples = store.read(range(len(store))[: self._max_examples])
            raw = np.array([(len(e.inputs), len(e.targets)) for e in examples])
            order, starts = pack(self._layout.sizes(raw), self._layout.limits)
            rows = [
                [examples[i] for i in order[start:end]]
                for start, end in zip(starts[:-1], starts[1:], strict=True)
            ]
            rows += [[]] * (-len(rows) % self._rows)
            self._packed[member.name] = [
                self._layout.batch(rows[i : i + self._rows])
                for i in range(0, len(rows), self._rows)
            ]
        return self._packed[member.name]


def _scores(sums: np.ndarray) -> dict[str, Score]:
    loss, correct, tokens = sums
    tokens = max(tokens, 1.0)

    def mean(total: float) -> Score:
        value = float(total / tokens)
        return Score(value, int(tokens), 0.0, value, value)

    return {"loss": mean(loss), "accuracy": mean(correct)}
