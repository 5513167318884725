r"""Program synthesis: writing and repairing programs, and both turned around.

    dmcc_python_zs_opt               problem -> Python program
    dr_repair_line_numbers_zs_opt    program with numbered lines, errors -> program
    dr_repair_no_errors_inverted_... repaired program -> broken program

FLAN's data for these is not public. Rows of your own lie in
`<data root>/program_synthesis/<folder>/train.jsonl` (or another format that
`flanjax.data.located` reads):

  dmcc_python  description: the problem; solutions: texts, or as in CodeContests a dict
               of the lists `language` and `solution`, of which those in Python 3 count.
               https://github.com/google-deepmind/code_contests
  dr_repair    code: a program that does not compile; errors: dicts with line (from 1)
               and message; fixed: the program, repaired. All four tasks read it; they
               differ in how they show program and errors.
               DrRepair: https://arxiv.org/abs/2005.10636
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.fewshot import FewShot
from flanjax.data.located import DatasetSource
from flanjax.data.readers import Row
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile

_TEMPLATES = Path(__file__).parent / "templates"
_PARTS = {"train": "train[:-200]", "validation": "train[-200:]"}
_ROWS = 200_000
# CodeContests numbers languages; 3 is PYTHON3 of its contest_problem.proto.
_PYTHON3 = (3, "3", "PYTHON3")


def _dmcc_python(row: Row) -> Row | None:
    """One of a problem's solutions, by a hash of the problem."""
    solutions = row["solutions"]
    if isinstance(solutions, Mapping):
        pairs = zip(solutions["language"], solutions["solution"], strict=True)
        solutions = [text for language, text in pairs if language in _PYTHON3]
    question = row["description"].strip()
    if not solutions or not question:
        return None
    number = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8])
    answer = solutions[number % len(solutions)].strip("\n")
    return {"question": question, "answer": answer} if answer.strip() else None


def _error_comments(row: Row) -> Row | None:
    """Every message is a comment at the end of its line."""
    lines = row["code"].strip("\n").split("\n")
    for error in row["errors"]:
        lines[_index(error, lines)] += f"  // error: {error['message'].strip()}"
    return _repair(row, "\n".join(lines))


def _line_numbers(row: Row) -> Row | None:
    """Lines with their numbers; the messages, which name them, stand below."""
    lines = row["code"].strip("\n").split("\n")
    numbered = [f"{number} {line}" for number, line in enumerate(lines, start=1)]
    messages = [
        f"line {_index(error, lines) + 1}: {error['message'].strip()}"
        for error in row["errors"]
    ]
    return _repair(row, "\n".join([*numbered, "", *messages]))


def _no_errors(row: Row) -> Row | None:
    """The program alone, without any message."""
    return _repair(row, row["code"].strip("\n"))


def _plain_code(row: Row) -> Row | None:
    """The program as it is; the messages stand below and name no line."""
    messages = [error["message"].strip() for error in row["errors"]]
    return _repair(row, "\n".join([row["code"].strip("\n"), "", *messages]))


def _index(error: Mapping[str, Any], lines: list[str]) -> int:
    """Index of an error's line; compilers may name the line after the last."""
    number = int(error["line"])
    if not 1 <= number <= len(lines) + 1:
        raise ValueError(f"an error in line {number} of {len(lines)} lines")
    return min(number, len(lines)) - 1


def _repair(row: Row, question: str) -> Row | None:
    fixed = row["fixed"].strip("\n")
    if not row["errors"] or not row["code"].strip() or not fixed.strip():
        return None
    return {"question": question, "answer": fixed}


@dataclass(frozen=True)
class _Programs:
    """One task: its rows and templates."""

    folder: str
    category: str
    fields: Callable[[Row], Row | None]
    licence: str


_SETS = {
    "dmcc_python": _Programs(
        "dmcc_python", "Code Generation", _dmcc_python, "CC BY 4.0"
    ),
    "dr_repair_error_comments": _Programs(
        "dr_repair", "Code Repair", _error_comments, "unknown"
    ),
    "dr_repair_line_numbers": _Programs(
        "dr_repair", "Code Repair", _line_numbers, "unknown"
    ),
    "dr_repair_no_errors": _Programs("dr_repair", "Code Repair", _no_errors, "unknown"),
    "dr_repair_plain_code": _Programs(
        "dr_repair", "Code Repair", _plain_code, "unknown"
    ),
}


def _register(name: str, inverted: bool) -> tuple[str, ...]:
    programs, ending = _SETS[name], "_inverted" if inverted else ""
    base = f"{name}{ending}"
    file = _TEMPLATES / f"program_{programs.folder}{ending}.toml"
    category = f"{programs.category}, Inverted" if inverted else programs.category
    return add_instruction_task(
        base,
        DatasetSource(
            f"program_synthesis/{programs.folder}", _PARTS, programs.fields, limit=_ROWS
        ),
        TemplateFile(file)[base],
        TaskInfo("program_synthesis", name, category, licence=programs.licence),
        prompt_types=("zs_opt", "fs_opt"),
        mix_shots=FewShot(shots=5),
        answer_field="question" if inverted else "answer",
    )


FORWARD = {name: _register(name, inverted=False) for name in _SETS}
INVERTED = {f"{name}_inverted": _register(name, inverted=True) for name in _SETS}
BASES: dict[str, tuple[str, ...]] = FORWARD | INVERTED
