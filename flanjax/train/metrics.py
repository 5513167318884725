"""Metrics: one call writes a line of metrics.jsonl and the TensorBoard event.

    writer = MetricWriter(run_dir, start_step=300)
    writer.write(310, "train", {"loss": 1.25, "learning_rate": 1e-3})
    writer.write(400, "eval", {"boolq/exact_match": 0.7})

gives {"time": ..., "step": 310, "kind": "train", "loss": 1.25, ...} per line. A run
that resumes at step k drops what was written after k: a curve has one point per step.
TensorBoard folders are T5X's: train/, training_eval/<task>/, inference_eval/<task>/.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flanjax.errors import DataError

KINDS = ("train", "eval", "validation", "event")
_FOLDERS = {"eval": "inference_eval", "validation": "training_eval"}


class MetricWriter:
    """Appends metrics of one run; use it on the first process only.

    Args:
      run_dir: the run directory; metrics.jsonl lies at its top.
      start_step: step the run goes on from; what was written after it is dropped.
    """

    def __init__(self, run_dir: str | Path, start_step: int = 0):
        # Here and not on top, because reading metrics needs no protobuf; and not with
        # the first value, because it would hold up a step for seconds.
        from tensorboardX import SummaryWriter

        self._open_board = SummaryWriter
        self._run_dir = Path(run_dir)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._path = self._run_dir / "metrics.jsonl"
        self._start_step = start_step
        if self._path.exists():
            _truncate(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._boards: dict[str, Any] = {}

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Writes the values of one step.

        Args:
          step: steps done when they were measured.
          kind: 'train', 'eval', 'validation' or 'event'. Names of eval and validation
            values are "<task>/<metric>"; a name without a task is of task "all".
          values: numbers or scalar arrays (copied from the device here), and in
            events also text. Non-finite numbers are written as null.
        """
        assert kind in KINDS, kind
        plain = {name: _plain(value) for name, value in values.items()}
        line = {"time": round(time.time(), 3), "step": int(step), "kind": kind}
        text = json.dumps(line | plain, allow_nan=False)
        # One write for one line, on disk before the run goes on: a killed run loses
        # at most the line it was writing, and that one is dropped when read.
        self._file.write(text + "\n")
        self._file.flush()
        if kind != "train":
            os.fsync(self._file.fileno())
        if kind != "event":
            self._write_board(int(step), kind, plain)

    def close(self) -> None:
        """Flushes and closes every file."""
        self._file.close()
        for board in self._boards.values():
            board.close()

    def _write_board(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                folder, tag = _board_place(kind, name)
                self._board(folder).add_scalar(tag, value, step)

    def _board(self, folder: str) -> Any:
        if folder not in self._boards:
            # TensorBoard drops what an interrupted run logged from this step on.
            purge = self._start_step + 1 if self._start_step else None
            path = str(self._run_dir / folder)
            self._boards[folder] = self._open_board(
                path, purge_step=purge, flush_secs=10
            )
        return self._boards[folder]


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl; a last line cut off by a kill is left out.

    Raises:
      DataError: a line before the last is not JSON; names it.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(
                f"not a line of JSON: {error}",
                where=f"{path}:{number}",
                fix="delete the line",
            ) from error
    return rows


def _truncate(path: Path, last_step: int) -> None:
    """Keeps whole lines of steps up to `last_step`."""
    rows = [row for row in read_metrics(path.parent) if row["step"] <= last_step]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _board_place(kind: str, name: str) -> tuple[str, str]:
    """(folder, tag) of a value in TensorBoard."""
    if kind == "train":
        return "train", name
    task, slash, metric = name.removeprefix("validation/").rpartition("/")
    return f"{_FOLDERS[kind]}/{task if slash else 'all'}", metric


def _plain(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
