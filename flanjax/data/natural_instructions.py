"""Super-NaturalInstructions task files, new and legacy schema, as a row source.

    source = NaturalInstructionsSource("tasks/task001_quoref_question_generation.json")
    next(source.rows("train"))["definition"]

A file holds the definition of one task, positive examples and instances. The legacy
schema of the collection's first months differs: `Definition` may be one string,
instances may have no `id`, and an `output` may be one string.

57 tasks of the collection are MMLU, which is held out: `is_mmlu(name)` knows them.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.identity import digest, file_digest
from flanjax.data.located import sample
from flanjax.data.sources import Row, known_split
from flanjax.errors import DataError

EXAMPLES = "examples"

# Ids of the tasks made of MMLU. All of them also have "mmmlu" in their names.
# https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs.py
_MMLU_IDS = frozenset([*range(664, 668), *range(685, 738)])
_ID = re.compile(r"task0*(\d+)(?!\d)")


def is_mmlu(name: str) -> bool:
    """Whether a task of the collection is made of MMLU, by its name.

    "task664_mmmlu_answer_generation_abstract_algebra" is, and so is any other name with
    "mmmlu" in it; so are the ids 664-667 and 685-737 whatever follows them.
    """
    found = _ID.match(name)
    by_id = found is not None and int(found[1]) in _MMLU_IDS
    return by_id or "mmmlu" in name.lower()


@dataclass(frozen=True, eq=False)
class NaturalInstructionsSource:
    """Rows of one task file, or of all task files of a folder.

    Fields: `definition`, `input`, `output` (the first reference), `references` (all),
    `task`, `examples` (the positive examples, as dicts) and, of the first of them that
    is not the row itself, `example_input`, `example_output`, `example_explanation`.
    The second split, "examples", holds the positive examples as rows:
    `exemplar_split="examples"` makes few-shot prompts as the official evaluation does.
    Exemplars never come from another task of the folder.

    Args:
      path: a .json file, or a folder of them, or a function that returns either; it is
        called when rows are read, not before.
      split: name of the split that holds the instances.
      limit: keep this many instances of each task at most: the first, as the official
        evaluation does, or, when `sampled`, some drawn evenly over the file (the same
        each time, in the file's order), since many files are sorted.
      sampled: see limit.
      leave_out: file stems for which it is true are passed over, for a folder that
        holds tasks not to be trained on (`is_mmlu`).
    """

    path: str | Path | Callable[[], Path]
    split: str = "train"
    limit: int | None = None
    sampled: bool = False
    leave_out: Callable[[str], bool] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return (self.split, EXAMPLES)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        known_split(dict.fromkeys(self.splits), split)
        for path in self._paths():
            task = _Task(path)
            if split == EXAMPLES:
                yield from task.examples()
            elif self.sampled and self.limit is not None:
                yield from sample(task.instances(), self.limit, path.stem)
            else:
                yield from itertools.islice(task.instances(), self.limit)

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        files = [file_digest(path) for path in self._paths()]
        return digest(files, split, self.limit, self.sampled)

    def where(self, split: str) -> str:
        """See `Source`."""
        return str(self._path())

    def present(self, split: str) -> bool:
        """Whether there is a file, or a folder of them; opens none."""
        path = self._path()
        return any(path.glob("*.json")) if path.is_dir() else path.exists()

    def _path(self) -> Path:
        return Path(self.path() if callable(self.path) else self.path)

    def _paths(self) -> list[Path]:
        path = self._path()
        paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if path.is_dir() and self.leave_out:
            paths = [each for each in paths if not self.leave_out(each.stem)]
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
        others = (each for each in self.positive if each["input"] != text)
        first = next(others, dict.fromkeys(_PARTS, ""))
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
