"""What a run left on disk, read so that nothing missing or cut short is an error.

    run = read_run("runs/quickstart")
    run.status["state"], run.steps, run.problems

The report is drawn for runs that are still going, were interrupted or failed, so each
file may be absent, empty or cut in its last line. What could not be read is named in
`Run.problems`, and the section that needs it says so.
"""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from flanjax.report.formats import is_number

VALIDATION = "validation"  # Losses on validation splits are no held-out scores.


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
      directory: where it lies.
      status: status.json: state, steps_done, steps_total, started, seconds, message.
      environment: environment.json.
      config: config.gin, the configuration as resolved.
      mixture: name of what was trained on.
      ledger: rows of ledger.json, one per training task.
      results: results.json: {step: {eval: {metric: {value, n, stderr, low, high}}}}.
      metrics: lines of metrics.jsonl as {time, step, kind, values: {name: value}}.
      problems: file name -> why it is missing or incomplete.
    """

    directory: Path
    status: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    mixture: str = ""
    ledger: list[dict[str, Any]] = field(default_factory=list)
    results: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    _records: dict[Path, list[dict[str, Any]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def steps(self) -> list[int]:
        """Steps with evaluation results, first to last."""
        return sorted(self.results)

    def scores(self, step: int | None) -> dict[str, dict[str, Any]]:
        """Results of one step, eval -> metric -> values; {} when there are none."""
        return self.results.get(step, {}) if step is not None else {}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl of one kind, in order of step."""
        return sorted(
            (line for line in self.metrics if line["kind"] == kind),
            key=lambda line: line["step"],
        )

    def records(self, step: int | None, name: str) -> list[dict[str, Any]]:
        """Records of one eval at one step; [] when there are none or no step.

        A file cut in the middle gives the records before the cut. Files are read once.
        """
        path = self.directory / "records" / str(step) / f"{name}.jsonl.zst"
        if path not in self._records:
            try:
                self._records[path] = list(_records(path))
            except OSError:
                self._records[path] = []
        return self._records[path]


def read_run(directory: str | os.PathLike[str]) -> Run:
    """Reads what there is of a run directory; see `Run`."""
    directory = Path(directory)
    problems: dict[str, str] = {}

    def whole(name: str, kind: type) -> Any:
        value = _json(directory / name, problems)
        if not isinstance(value, kind):
            if name not in problems:
                problems[name] = "has an unexpected layout"
            return kind()
        return value

    results = {
        int(step): {
            name: scores
            for name, scores in evals.items()
            if isinstance(scores, dict) and not name.startswith(VALIDATION)
        }
        for step, evals in whole("results.json", dict).items()
        if step.isdigit() and isinstance(evals, dict)
    }
    ledger = whole("ledger.json", dict)
    members = ledger.get("members")
    return Run(
        directory=directory,
        status=whole("status.json", dict),
        environment=whole("environment.json", dict),
        config=_text(directory / "config.gin", problems),
        mixture=str(ledger.get("mixture") or ""),
        ledger=[r for r in members or () if isinstance(r, dict)],
        results=results,
        metrics=_metrics(directory / "metrics.jsonl", problems),
        problems=problems,
    )


def _text(path: Path, problems: dict[str, str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        problems[path.name] = "not written yet"
    except OSError as error:
        problems[path.name] = f"cannot be read: {error.strerror}"
    return ""


def _json(path: Path, problems: dict[str, str]) -> Any:
    text = _text(path, problems)
    if path.name in problems:
        return None
    try:
        return json.loads(text)
    except ValueError:
        problems[path.name] = "is cut short or no JSON"
        return None


def _metrics(path: Path, problems: dict[str, str]) -> list[dict[str, Any]]:
    """Lines that are complete; a cut last line is what a killed run leaves."""
    lines, skipped = [], 0
    for text in _text(path, problems).splitlines():
        try:
            line = json.loads(text)
            known = {"step": line.pop("step") + 0, "kind": line.pop("kind")}
        except (ValueError, TypeError, KeyError, AttributeError):
            skipped += 1
        else:
            known["time"] = line.pop("time", None)
            lines.append(known | {"values": line})
    if skipped:
        problems[path.name] = f"{skipped} incomplete line(s) left out"
    return lines


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose lists and scores are what the report takes them for."""
    scores, gold = record.get("scores"), record.get("gold")
    choices = record.get("choices")
    return record | {
        "scores": (
            {str(k): v for k, v in scores.items() if is_number(v)}
            if isinstance(scores, dict)
            else {}
        ),
        "gold": [str(g) for g in (gold if isinstance(gold, list) else [gold])],
        "choices": [str(c) for c in choices] if isinstance(choices, list) else [],
    }


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as raw:
        reader = zstandard.ZstdDecompressor().stream_reader(raw)
        lines = io.TextIOWrapper(reader, encoding="utf-8", errors="replace")
        try:
            for text in lines:
                record = json.loads(text)
                if isinstance(record, dict):
                    yield _record(record)
        except (ValueError, zstandard.ZstdError):
            return
