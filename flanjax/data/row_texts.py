"""What the rows of a task say, for comparing them with other tasks' rows.

Before any template: two tasks that ask the same question in other words still have the
same rows. Texts that every row of a split has (a definition, a header) are its wording.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from flanjax.data.contamination import RowTexts
from flanjax.data.instruction import InstructionTask
from flanjax.data.rows import read_rows, template_fields
from flanjax.data.sources import Row
from flanjax.data.templates import DIALOG, parse

# Rows that a field must be the same in to count as wording.
_LOOKED_AT = 200


def row_texts(task: InstructionTask, split: str) -> Iterator[RowTexts]:
    """Yields what each row of a split says.

    Args:
      task: its templates tell which fields are inputs.
      split: of its source.

    Raises:
      DataError: the source cannot be read.
    """
    templates = task.templates()
    fields = template_fields(templates)
    shown = {name for t in templates for _, name in parse(t.inputs) if name}
    inputs = [f for f in fields if f in shown and f not in _answers(task)]
    rows = read_rows(task.source, split)
    wording = _same_everywhere(rows, fields)
    inputs = [name for name in inputs if name not in wording]
    others = [name for name in fields if name not in {*inputs, *wording}]
    for row in rows:
        asked = [_text(row.get(name)) for name in inputs]
        if DIALOG in shown:
            asked.append(_text(row.get("dialog")))
        options = [_text(option) for option in row.get("options") or ()]
        if not any(asked):
            asked, options = options, []
        told = [*options, *(_text(row.get(name)) for name in others)]
        yield RowTexts(str(row["row_id"]), tuple(asked), tuple(told))


def _answers(task: InstructionTask) -> set[str]:
    return {task.answer_field, *task.option_fields}


def _same_everywhere(rows: Sequence[Row], fields: Sequence[str]) -> set[str]:
    first = list(itertools.islice(rows, _LOOKED_AT))
    if len(first) < 3:
        return set()
    return {f for f in fields if len({_text(row.get(f)) for row in first}) == 1}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return (
        " ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
    )
