"""Super-NaturalInstructions task files, new and legacy schema, as a row source.

    source = NaturalInstructionsSource("tasks/task001_quoref_question_generation.json")
    next(source.rows("train"))["definition"]

A file holds the definition of one task, positive examples and instances. The legacy
schema of the collection's first months differs: `Definition` may be one string,
instances may have no `id`, and an `output` may be one string.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.identity import digest, file_digest
from flanjax.data.sources import Row, known_split
from flanjax.errors import DataError

EXAMPLES = "examples"


@dataclass(frozen=True, eq=False)
class NaturalInstructionsSource:
    """Rows of one task file, or of all task files of a folder.

    Fields: `definition`, `input`, `output` (the first reference), `references` (all),
    `task`, `examples` (the positive examples, as dicts) and, of the first of them,
    `example_input`, `example_output`, `example_explanation`. The second split,
    "examples", holds the positive examples as rows: `exemplar_split="examples"` makes
    few-shot prompts as the official evaluation does. Exemplars never come from another
    task of the folder.

    Args:
      path: a .json file, or a folder of them.
      split: name of the split that holds the instances.
      limit: keep this many instances of each task at most.
    """

    path: str | Path
    split: str = "train"
    limit: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return (self.split, EXAMPLES)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        known_split(dict.fromkeys(self.splits), split)
        for path in self._paths():
            task = _Task(path)
            rows = task.examples() if split == EXAMPLES else task.instances()
            for number, row in enumerate(rows):
                if number == self.limit and split != EXAMPLES:
                    break
                yield row

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        return digest([file_digest(path) for path in self._paths()], split, self.limit)

    def where(self, split: str) -> str:
        """See `Source`."""
        return str(self.path)

    def _paths(self) -> list[Path]:
        path = Path(self.path)
        paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not paths or not paths[0].exists():
            raise DataError(
                "no Super-NaturalInstructions task here",
                where=str(path),
                fix="name a task's .json file or a folder of them",
            )
        return paths


class _Task:
    """One task file, read and checked."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            line = getattr(error, "lineno", 1)
            raise DataError(
                f"malformed task file: {error}",
                where=f"{path}:{line}",
                fix="fetch or copy the file again",
            ) from error
        self.definition = "\n".join(_strings(self._get("Definition")))
        positive = self._get("Positive Examples")
        self.positive = [
            {
                "input": example["input"],
                "output": _strings(example["output"])[0],
                "explanation": example.get("explanation", ""),
            }
            for example in positive
        ]

    def _get(self, key: str) -> Any:
        if not isinstance(self.content, dict) or key not in self.content:
            raise DataError(
                f"the task file has no '{key}'",
                where=str(self.path),
                fix="use a file of the Super-NaturalInstructions collection",
            )
        return self.content[key]

    def instances(self) -> Iterator[Row]:
        for number, instance in enumerate(self._get("Instances")):
            references = _strings(instance.get("output", []))
            if not references or "input" not in instance:
                raise DataError(
                    f"instance {number} has no input or no output",
                    where=str(self.path),
                    fix="correct or delete that instance",
                )
            row_id = instance.get("id") or f"{self.path.stem}:{number}"
            yield self._row(str(row_id), instance["input"], references)

    def examples(self) -> Iterator[Row]:
        for number, example in enumerate(self.positive):
            row_id = f"{self.path.stem}:example{number}"
            yield self._row(row_id, example["input"], [example["output"]])

    def _row(self, row_id: str, text: str, references: list[str]) -> Row:
        first = self.positive[0] if self.positive else dict.fromkeys(_PARTS, "")
        return {
            "row_id": row_id,
            "task": self.path.stem,
            "shot_group": self.path.stem,
            "definition": self.definition,
            "input": text,
            "output": references[0],
            "references": references,
            "examples": self.positive,
            **{f"example_{part}": first[part] for part in _PARTS},
        }


_PARTS = ("input", "output", "explanation")


def _strings(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
