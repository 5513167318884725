"""What a step leaves behind: the progress line, metrics.jsonl, TensorBoard, the ledger.

    step 12/300  4%  loss 2.314  lr 1.0e-03  151 tok/s  wait 0 ms  mfu 38%  ETA 4:10

Device values are fetched one step late, so that the device never waits for the host.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from flanjax.config import RunConfig
from flanjax.data.loader import Batch
from flanjax.eval.stats import Score
from flanjax.progress import Progress
from flanjax.train.goodput import Goodput
from flanjax.train.metrics import MetricWriter
from flanjax.train.monitor import SpikeWatch
from flanjax.train.rundir import RunDir, write_json
from flanjax.train.setup import Training

ETA_STEPS = 20  # Steps the ETA's pace is averaged over.
LINE_SECONDS = 2.0  # Quick steps share a line; every one is in metrics.jsonl.
_LISTED_TASKS = 8


class RunLog:
    """Writes the record of a run while it goes on."""

    def __init__(
        self,
        config: RunConfig,
        training: Training,
        run_dir: RunDir,
        progress: Progress,
    ):
        self._config, self._training = config, training
        self._run_dir, self._progress = run_dir, progress
        self._writer = MetricWriter(run_dir.path, start_step=training.start_step)
        self._counts = training.counts.copy()
        self._pending: tuple[int, Any, Batch, float] | None = None
        self._pace: list[float] = []
        self._last = time.monotonic()
        self._shown = -LINE_SECONDS
        self._scores: dict[str, float] = {}
        self._spikes = SpikeWatch(config.monitor)
        self._waited = 0.0
        self._compiles = 1
        self.goodput = Goodput(sum(progress.seconds.values()))
        self.skipped_in_a_row = 0
        if training.start_step:
            self._writer.write(training.start_step, "event", {"event": "resumed"})
        self._write_ledger()

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Returns the next batch, and notes how long it had to be waited for."""
        start = time.monotonic()
        batch = next(batches)
        self._waited = time.monotonic() - start
        # A wait that ends before the devices have done their step costs nothing.
        if self._pending is not None and _done(self._pending[1]):
            self.goodput.claim("data", self._waited)
        return batch

    def step(self, step: int, metrics: Any, batch: Batch) -> None:
        """Notes a dispatched step and logs the one before it.

        Args:
          step: steps done including this one.
          metrics: device scalars of the step.
          batch: what it was trained on.
        """
        self._counts += batch.counts
        self._notice_compiling(step)
        if self._pace or self._pending:
            self.flush()
        else:
            self._last = time.monotonic()  # The first step also compiled.
        self._pending = (step, metrics, batch, self._waited)

    def flush(self) -> None:
        """Fetches and logs the pending step, if there is one."""
        if self._pending is None:
            return
        step, metrics, batch, waited = self._pending
        self._pending = None
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        spent = self._progress.seconds
        spent["training"] = spent.get("training", 0.0) + seconds
        self.skipped_in_a_row = (
            self.skipped_in_a_row + 1 if values.get("skipped") else 0
        )
        used = _nonpadding(batch.features)
        scored = int(np.count_nonzero(batch.features["decoder_loss_weights"]))
        flops = self._training.flops(**used, loss_tokens=scored)
        tokens = sum(used.values())
        values |= {
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "step_seconds": seconds,
            "data_wait_seconds": waited,
            "mfu": flops / seconds / self._training.peak,
            "goodput": self.goodput.share(),
        }
        values |= {f"seconds/{k}": v for k, v in self.goodput.seconds().items()}
        self._pace = [*self._pace, seconds][-ETA_STEPS:]
        if step % self._config.log_period == 0 or step == self._config.train_steps:
            self._writer.write(step, "train", values | {"batch_hash": batch.hash})
            self._show(step, values, now)
        self._watch_loss(step, values["loss"], batch)

    def evaluation(self, step: int, scores: Mapping[str, Mapping[str, Score]]) -> None:
        """Writes one evaluation's scores everywhere they are looked for."""
        plain = {
            name: {metric: dataclasses.asdict(score) for metric, score in each.items()}
            for name, each in scores.items()
        }
        flat = {
            f"{name}/{metric}": score.value
            for name, each in scores.items()
            for metric, score in each.items()
        }
        validation = {k: v for k, v in flat.items() if k.startswith("validation/")}
        self._writer.write(step, "validation", validation)
        evals = {k: v for k, v in flat.items() if k not in validation}
        self._writer.write(step, "eval", evals)
        self._run_dir.results(step, plain)
        self._write_ledger()
        self._scores = flat
        for name, each in scores.items():
            if not name.startswith("validation/") or name == "validation/all":
                shown = ", ".join(f"{m} {s.value:.3f}" for m, s in each.items())
                self._progress.line(f"  step {step}  {name}: {shown}")
        self._last = time.monotonic()

    def counts(self) -> list[int]:
        """Examples trained on so far, per task; kept in checkpoints."""
        return self._counts.tolist()

    def best_metrics(self) -> dict[str, float]:
        """The last evaluation's scores, by which the best checkpoint is kept."""
        return self._scores

    def finish(self) -> None:
        """Logs what is pending and writes the realised shares."""
        self.flush()
        self._write_ledger()
        self._writer.close()
        self._progress.line(self.goodput.line())

    def _watch_loss(self, step: int, loss: float, batch: Batch) -> None:
        """Logs a loss spike with what was in its batch."""
        usual = self._spikes.seen(loss)
        if usual is None:
            return
        order = np.argsort(-batch.counts)[:_LISTED_TASKS]
        members = self._training.resolved.members
        tasks = ", ".join(
            f"{members[i].name} {batch.counts[i]}" for i in order if batch.counts[i]
        )
        event = {"event": "loss spike", "loss": loss, "usual": usual, "examples": tasks}
        self._writer.write(step, "event", event)
        self._progress.line(
            f"loss spike at step {step}: {loss:.3f}, usually {usual:.3f}; "
            f"examples in its batch: {tasks}"
        )

    def _notice_compiling(self, step: int) -> None:
        """Says when a step was compiled again: shapes should never change."""
        compiles = self._training.train_step.compiles
        if compiles > self._compiles:
            self._compiles = compiles
            self._writer.write(step, "event", {"event": "compiled again"})
            self._progress.line(f"step {step} was compiled again")

    def _show(self, step: int, values: dict[str, float], now: float) -> None:
        last = step == self._config.train_steps
        if now - self._shown >= LINE_SECONDS or last or values.get("skipped"):
            self._shown = now
            self._progress.line(self._line(step, values))
            self._run_dir.status(steps_done=step)

    def _write_ledger(self) -> None:
        total = max(1, int(self._counts.sum()))
        rows = [
            row | {"realised_examples": int(n), "realised_share": n / total}
            for row, n in zip(self._training.ledger, self._counts, strict=True)
        ]
        resolved = self._training.resolved
        missing = list(resolved.missing)
        content = {"mixture": resolved.name, "members": rows, "missing": missing}
        write_json(self._run_dir.path / "ledger.json", content)

    def _line(self, step: int, values: dict[str, float]) -> str:
        total = self._config.train_steps
        eta = (total - step) * float(np.median(self._pace))
        skipped = "  SKIPPED: not finite" if values.get("skipped") else ""
        return (
            f"step {step}/{total} {100 * step // total:3d}%  "
            f"loss {values['loss']:.4f}  lr {values['learning_rate']:.1e}  "
            f"{values['tokens_per_second']:.0f} tok/s  "
            f"wait {1000 * values['data_wait_seconds']:.0f} ms  "
            f"mfu {100 * values['mfu']:.0f}%  "
            f"ETA {int(eta // 60)}:{int(eta % 60):02d}{skipped}"
        )


def _nonpadding(features: dict[str, np.ndarray]) -> dict[str, int]:
    """Tokens that are not padding, by the stack that reads them."""
    return {
        f"{stack}_tokens": int((features[f"{stack}_segment_ids"] > 0).sum())
        for stack in ("encoder", "decoder")
        if f"{stack}_segment_ids" in features
    }


def _done(metrics: Mapping[str, Any]) -> bool:
    """Whether the devices have computed a step's metrics."""
    return all(value.is_ready() for value in metrics.values())
