"""One record per evaluated prompt, from which every score can be computed again.

    write_records("records/500/boolq_held.jsonl.zst", records)
    rescore(read_records("records/500/boolq_held.jsonl.zst"))["exact_match"].value

A record is a JSON object: where the prompt came from, the prompt, the output, the gold
answers, the options with their log-probabilities, and how to read and score them. The
evaluator's own scores are made by `score_record` and `rescore`, so live and offline
scores are equal bit for bit.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from flanjax.errors import DataError
from flanjax.eval import extract, scorers
from flanjax.eval.stats import Score, score

Record = dict[str, Any]


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes records as JSON lines under zstd; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(zstandard.ZstdCompressor(level=9).compress(lines.encode()))
    os.replace(partial, path)


def read_records(path: str | Path) -> Iterator[Record]:
    """Yields the records of a file.

    Raises:
      DataError: the file is missing, cut or not JSON lines; names file and line.
    """
    done = 0
    try:
        # In one piece: a stream that is cut at the end of a line looks whole.
        text = zstandard.ZstdDecompressor().decompress(Path(path).read_bytes())
        for line in text.decode().split("\n")[:-1]:
            yield json.loads(line)
            done += 1
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise DataError(
            f"cannot read record {done + 1}: {error}",
            where=f"{path}:{done + 1}",
            fix="evaluate again to write the records anew",
        ) from error


def score_record(record: Mapping[str, Any]) -> Record:
    """The record with its answers read (strict, flexible) and its scores.

    Args:
      record: needs output, gold (a list: any may match), extractor, style, scorers,
        and choices with choice_logprobs where options were scored.
    """
    style, extractor = record["style"], record["extractor"]

    def read(text: str) -> str | None:
        choices = record["choices"]
        return extract.flexible(text, extractor, style=style, choices=choices)

    flexible_golds = [found for gold in record["gold"] if (found := read(gold))]
    if not flexible_golds:  # Golds of another kind than the eval says: compare texts.
        extractor = "text"
        flexible_golds = [read(gold) or gold for gold in record["gold"]]
    strict, flexible = extract.strict(record["output"], style), read(record["output"])
    strict_golds = [extract.strict(gold, style) or gold for gold in record["gold"]]
    scores = {
        name: (
            scorers.SCORERS[name](strict, strict_golds)
            if name == "exact_match"
            else scorers.SCORERS[name](flexible, flexible_golds)
        )
        for name in record["scorers"]
    }
    scores["parse_failures"] = float(flexible is None)
    scored = {**record, "strict": strict, "flexible": flexible}
    if record.get("choice_logprobs"):
        scored |= _score_choices(record, strict_golds[0], scores)
    return {**scored, "scores": scores}


def rescore(records: Iterable[Mapping[str, Any]]) -> dict[str, Score]:
    """Scores of one eval, from its records alone.

    A metric counts over the records that have it: option likelihood, for instance,
    only where the gold answer is among the options.
    """
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in score_record(record)["scores"].items():
            values.setdefault(name, []).append(value)
    return {name: score(column) for name, column in values.items()}


def _score_choices(
    record: Mapping[str, Any], gold: str, scores: dict[str, float]
) -> Record:
    """Adds choice accuracies to `scores`; returns the index of the likeliest option."""
    raw: Sequence[float] = record["choice_logprobs"]
    per_token = [
        total / max(length, 1)
        for total, length in zip(raw, record["choice_lengths"], strict=True)
    ]
    choices = [choice.strip() for choice in record["choices"]]
    if gold in choices:
        index = choices.index(gold)
        scores["choice_accuracy"] = scorers.choice_accuracy(per_token, index)
        scores["choice_accuracy_raw"] = scorers.choice_accuracy(raw, index)
    return {"choice_prediction": max(range(len(raw)), key=per_token.__getitem__)}
