"""Super-NaturalInstructions (NIv2): every task file its own tasks.

    niv2_task001_quoref_question_generation_zs_opt            definition, input
    niv2_task001_quoref_question_generation_fs_opt_explained  and one explained example
    niv2_task001_quoref_question_generation_fs_opt            and two examples

`tables/niv2.tsv` has the 1,597 names of FLAN 2022's public code: the collection's 1,654
less the 57 made of MMLU. 41 of them, those with a hyphen, are second spellings of
another name, with the same definition and number of examples, so that there are 1,556
tasks, as many as the public table of tasks lists; a SeqIO name has no hyphen anyway.
Names of files are cut at the first dot there (task1530_scitail1.1_... -> scitail1).
A file is found by either spelling, cut or not.

The paper counts 1,554 tasks and does not say which two of the listed it left out. Here
they are the two with the fewest examples (26 and 29; column `paper`), which alter the
mixture least: https://arxiv.org/abs/2210.11416

Files lie below `<data root>/niv2/tasks`; https://github.com/allenai/natural-instructions
has them. The 5,000 instances that a task may have are drawn evenly over its file, by a
seed: files may be sorted. Tasks of a file that is not in the table:
`register_directory(path)`.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from flanjax.data.fewshot import FewShot
from flanjax.data.located import data_root
from flanjax.data.natural_instructions import (
    EXAMPLES,
    NaturalInstructionsSource,
    is_mmlu,
)
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile
from flanjax.errors import DataError

HERE = Path(__file__).parent
MOST_INSTANCES = 5_000
LICENCE = "Apache-2.0"

# Names, examples, instances within the cap of 5,000: of the collection's metadata, with
# and without MMLU, as https://github.com/google-research/FLAN/tree/main/flan/v2 has it.
PUBLIC_NAMES, MMLU_NAMES = 1_597, 57

_TEMPLATES = TemplateFile(HERE / "templates" / "niv2.toml")


@dataclass(frozen=True)
class Niv2Task:
    """A line of the table.

    Attributes:
      name: of the task's file, cut at the first dot.
      examples: number of instances in the public data.
      category: of the public table, "Question Answering".
      dataset: that it was made from.
      languages: ISO 639 codes of inputs and outputs.
      split: of the official evaluation: "train", "test" (held out by it, though not by
        FLAN) or "neither".
      listed: whether the public table of tasks has this spelling.
      paper: whether it is one of the paper's 1,554.
    """

    name: str
    examples: int
    category: str
    dataset: str
    languages: tuple[str, ...]
    split: str
    listed: bool
    paper: bool

    @property
    def base(self) -> str:
        """Base of the names of its SeqIO tasks."""
        return base_of(self.name)


def base_of(name: str) -> str:
    """Base of the SeqIO tasks of a task file: no hyphens, nothing after a dot."""
    return f"niv2_{_spelling(name)}"


@functools.cache
def table() -> tuple[Niv2Task, ...]:
    """Reads `tables/niv2.tsv`."""
    with (HERE / "tables" / "niv2.tsv").open(encoding="utf-8", newline="") as stream:
        next(stream)  # Where the facts are from.
        return tuple(
            Niv2Task(
                row["name"],
                int(row["examples"]),
                row["category"],
                row["dataset"],
                tuple(row["languages"].split(",")),
                row["split"],
                row["listed"] == "yes",
                row["paper"] == "yes",
            )
            for row in csv.DictReader(stream, delimiter="\t")
        )


def _spelling(name: str) -> str:
    return name.split(".")[0].replace("-", "_")


def _folder() -> Path:
    return data_root() / "niv2" / "tasks"


def _file(name: str) -> Path:
    """Path of a task's file, whichever spelling it has; one without file if none."""
    folder = _folder()
    plain = folder / f"{name}.json"
    if plain.exists() or not folder.is_dir():
        return plain
    return _spellings(folder, folder.stat().st_mtime_ns).get(name, plain)


@functools.lru_cache(maxsize=4)
def _spellings(folder: Path, modified: int) -> dict[str, Path]:
    del modified  # Makes the listing anew when a file has come or gone.
    return {_spelling(path.stem): path for path in sorted(folder.glob("*.json"))}


def _register(base: str, source: NaturalInstructionsSource, info: TaskInfo):
    """Registers the three forms of a task, or of all in one pool."""

    def add(prompt_type: str, group: str, **more) -> tuple[str, ...]:
        return add_instruction_task(
            base,
            source,
            _TEMPLATES[group],
            info,
            prompt_types=(prompt_type,),
            answer_field="output",
            **more,
        )

    shots = {"few_shot": FewShot(shots=2), "exemplar_split": EXAMPLES}
    return (
        *add("zs_opt", "niv2"),
        *add("fs_opt", "niv2_explained", form="explained", inline_shots=True),
        *add("fs_opt", "niv2_shots", **shots),
    )


def _register_table() -> dict[str, tuple[str, ...]]:
    bases = {}
    for task in table():
        if task.listed:
            source = NaturalInstructionsSource(
                functools.partial(_file, task.name), limit=MOST_INSTANCES, sampled=True
            )
            info = TaskInfo(
                "niv2", task.dataset, task.category, task.languages, LICENCE
            )
            bases[task.base] = _register(task.base, source, info)
    return bases


@dataclass(frozen=True)
class Registered:
    """What `register_directory` did.

    Attributes:
      bases: base -> names of its tasks, the table's and new ones.
      refused: file stem -> why it is not to be trained on.
    """

    bases: dict[str, tuple[str, ...]]
    refused: dict[str, str]


def register_directory(path: str | Path) -> Registered:
    """Makes tasks of a directory of original files, each file its own.

    Files of tasks in the table bring nothing new and are counted only: those tasks read
    `<data root>/niv2/tasks`. Names alone are looked at; nothing is read.

    Args:
      path: the directory.

    Returns:
      The tasks, and the files refused because they are made of MMLU: a directory of
      the whole collection has 57 of them. New tasks are in no mixture of FLAN's.

    Raises:
      DataError: there is no task file, or MMLU files only.
    """
    bases, refused = {}, {}
    for file in sorted(Path(path).glob("*.json")):
        if is_mmlu(file.stem):
            refused[file.stem] = "made of MMLU, which is held out for evaluation"
            continue
        base = base_of(file.stem)
        if base not in BASES and base not in _MORE:
            source = NaturalInstructionsSource(file, limit=MOST_INSTANCES, sampled=True)
            info = TaskInfo("niv2", _dataset(file.stem), "unknown", ("en",), LICENCE)
            _MORE[base] = _register(base, source, info)
        bases[base] = BASES.get(base) or _MORE[base]
    if not bases:
        what = "only tasks made of MMLU" if refused else "no task files"
        raise DataError(
            f"{what} here",
            where=str(path),
            fix="name a directory of Super-NaturalInstructions .json files",
        )
    return Registered(bases, refused)


def _dataset(stem: str) -> str:
    """The dataset as far as the name tells: task1687_sentiment140_... -> it."""
    return _spelling(stem).split("_", 1)[-1].split("_")[0]


BASES: dict[str, tuple[str, ...]] = _register_table()
_MORE: dict[str, tuple[str, ...]] = {}  # From directories.

# FLAN's public release reads all of NIv2 as one task, in which the cap does nothing.
# The same here, for comparison: it holds every instance in memory.
SINGLE: tuple[str, ...] = _register(
    "niv2_single_task",
    NaturalInstructionsSource(_folder, leave_out=is_mmlu),
    TaskInfo("niv2", "natural_instructions", "all", ("en",), LICENCE),
)
