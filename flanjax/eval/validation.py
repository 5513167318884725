"""Loss per target token on validation splits, task by task.

    validation = Validation(model, layout, resolved, store_dir)
    validation.run(params, progress)["validation/boolq_zs_opt"]["loss"].value

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
    ):
        self._layout, self._store_dir = layout, Path(store_dir)
        self._members = resolved.validation
        self._rows, self._place = rows, place
        config = LossConfig(z_loss=0.0)
        self._sums = jax.jit(
            lambda params, batch: loss_and_metrics(model, params, batch, config)
        )

    @functools.cached_property
    def tokens(self) -> int:
        """Tokens that one run puts through the model, padding included."""
        batches = [b for m in self._members for b in self._batches[m.name]]
        return sum(map(_tokens, batches))

    def run(
        self, params: Any, progress: Callable[[str, int], None]
    ) -> dict[str, dict[str, Score]]:
        """Scores every member.

        Args:
          params: of the model.
          progress: called after each batch with what was done and how many tokens.

        Returns:
          "validation/<task>" -> {"loss": nats per target token, "accuracy": share of
          target tokens that are the model's first choice}, and "validation/all" over
          all tokens. n counts tokens; tokens of one example depend on each other, so
          there is no interval (low and high equal the value).
        """
        scores, total = {}, np.zeros(3)
        for member in self._members:
            sums = np.zeros(3)
            for batch in self._batches[member.name]:
                loss, aux = self._sums(params, self._place(batch))
                sums += [float(loss), float(aux["correct"]), float(aux["weight_sum"])]
                progress(f"validation loss of {member.name}", _tokens(batch))
            scores[f"validation/{member.name}"] = _scores(sums)
            total += sums
        return scores | ({ALL: _scores(total)} if scores else {})

    @functools.cached_property
    def _batches(self) -> dict[str, list[dict[str, np.ndarray]]]:
        return {member.name: self._pack(member) for member in self._members}

    def _pack(self, member: Member) -> list[dict[str, np.ndarray]]:
        """Feature batches of one member, [rows, length]; the last is filled up."""
        store = TaskStore(self._store_dir / member.path)
        examples = store.read(range(len(store)))
        raw = np.array([(len(e.inputs), len(e.targets)) for e in examples], np.int32)
        sizes = self._layout.sizes(raw.reshape(-1, 2))
        order, starts = pack(sizes, self._layout.limits)
        rows = [
            [examples[i] for i in order[start:end]]
            for start, end in zip(starts[:-1], starts[1:], strict=True)
        ]
        rows += [[]] * (-len(rows) % self._rows)
        return [
            self._layout.batch(rows[i : i + self._rows])
            for i in range(0, len(rows), self._rows)
        ]


def _tokens(batch: dict[str, np.ndarray]) -> int:
    return sum(v.size for name, v in batch.items() if name.endswith("input_tokens"))


def _scores(sums: np.ndarray) -> dict[str, Score]:
    loss, correct, tokens = sums
    tokens = max(tokens, 1.0)

    def mean(total: float) -> Score:
        value = float(total / tokens)
        return Score(value, int(tokens), 0.0, value, value)

    return {"loss": mean(loss), "accuracy": mean(correct)}
