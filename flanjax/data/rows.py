"""Rows of a source as arrays, and the choices made for each: template, style, shots.

Everything random about a task's examples is drawn here with NumPy, keyed by (seed,
task, split). What follows, the rendering in TensorFlow, is a pure function of it, so
that two builds with one seed are equal.
"""

import functools
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flanjax.data.options import MAX_OPTIONS
from flanjax.data.sources import Row, Source
from flanjax.data.templates import OPTIONS, Template, check_fields
from flanjax.errors import DataError


@dataclass(frozen=True)
class RowTable:
    """Rows as arrays of strings.

    Attributes:
      row_ids: [rows].
      values: object [rows, fields], texts of the fields in the order of `fields`.
      options: object [rows, most options], filled with "".
      num_options: int32 [rows].
      references: object [all references], row after row.
      reference_ends: int32 [rows + 1], where each row's references begin and end.
      groups: [rows], exemplars come from the same group.
      keys: [rows], equal for rows that must not be each other's exemplar.
    """

    fields: tuple[str, ...]
    row_ids: list[str]
    values: np.ndarray
    options: np.ndarray
    num_options: np.ndarray
    references: np.ndarray
    reference_ends: np.ndarray
    groups: list[str]
    keys: list[Hashable]


def load_table(
    source: Source, split: str, templates: Sequence[Template], answer_field: str
) -> RowTable:
    """Reads a split and checks that it has what the templates need.

    Raises:
      DataError: an unreadable row, or one without a field that a template uses.
    """
    rows = _read(source, split, source.fingerprint(split))
    where = source.where(split)
    if not rows:
        raise DataError(
            f"no rows in split '{split}'",
            where=where,
            fix="check the file, and whether `fields` skips every row",
        )
    check_fields(templates, rows[0], where)
    fields = template_fields(templates)
    values = np.array([_texts(row, fields, where) for row in rows], object)
    needs_options = any(OPTIONS in template.fields for template in templates)
    options = [_options(row, needs_options, where) for row in rows]
    width = max(1, *(len(row) for row in options)) if options else 1
    padded = np.full((len(rows), width), "", object)
    for index, texts in enumerate(options):
        padded[index, : len(texts)] = texts
    references = [list(map(str, row.get("references", ()))) for row in rows]
    open_fields = [i for i, name in enumerate(fields) if name != answer_field]
    return RowTable(
        fields=fields,
        row_ids=[str(row["row_id"]) for row in rows],
        values=values,
        options=padded,
        num_options=np.array([len(row) for row in options], np.int32),
        references=np.array([r for each in references for r in each], object),
        reference_ends=np.cumsum([0, *map(len, references)]).astype(np.int32),
        groups=[str(row.get("shot_group", "")) for row in rows],
        keys=[tuple(row[open_fields]) for row in values],
    )


def template_fields(templates: Sequence[Template]) -> tuple[str, ...]:
    """Returns the fields that any of the templates uses, sorted, without options."""
    return tuple(sorted({name for t in templates for name in t.fields} - {OPTIONS}))


def count_rows(source: Source, split: str) -> int:
    """Returns the number of rows of a split."""
    return len(_read(source, split, source.fingerprint(split)))


@functools.lru_cache(maxsize=4)
def _read(source: Source, split: str, fingerprint: str) -> list[Row]:
    # The four forms of a dataset follow one another and read the same rows.
    return list(source.rows(split))


def _texts(row: Row, fields: Sequence[str], where: str) -> list[str]:
    return [_text(row, name, where) for name in fields]


def _text(row: Row, name: str, where: str) -> str:
    value: Any = row.get(name)
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, list | tuple | dict):
        what = "no" if value is None else f"a {type(value).__name__} for the"
        raise DataError(
            f"row {row['row_id']} has {what} field '{name}'",
            where=f"{row['row_id']} of {where}",
            fix="give it a text in the source's `fields`, or return None to skip it",
        )
    return str(value)


def _options(row: Row, needed: bool, where: str) -> list[str]:
    options = row.get("options") or []
    if needed and not options or len(options) > MAX_OPTIONS:
        raise DataError(
            f"row {row['row_id']} has {len(options)} options, not 1 to {MAX_OPTIONS}",
            where=f"{row['row_id']} of {where}",
            fix='set row["options"] in the source\'s `fields`, or skip the row',
        )
    return [str(option) for option in options]


def task_rng(seed: int | None, task: str, split: str) -> np.random.Generator:
    """Returns the generator of a task's choices; no seed counts as seed 0."""
    keys = [seed or 0, zlib.crc32(task.encode()), zlib.crc32(split.encode())]
    return np.random.default_rng(keys)


def assign_templates(
    num_rows: int, num_templates: int, assignment: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives templates to rows.

    Args:
      num_rows: how many rows there are.
      num_templates: how many templates there are.
      assignment: "round_robin" (position in a shuffled order, modulo the number of
        templates), "random", or "all" (each row once with every template).
      rng: where the shuffle comes from.

    Returns:
      int32 (rows, templates, order): example i is row rows[i] with templates[i];
      `order` lists the examples in shuffled order.
    """
    copies = num_templates if assignment == "all" else 1
    rows = np.repeat(np.arange(num_rows, dtype=np.int32), copies)
    order = rng.permutation(len(rows)).astype(np.int32)
    if assignment == "all":
        templates = np.tile(np.arange(num_templates, dtype=np.int32), num_rows)
    elif assignment == "random":
        templates = rng.integers(num_templates, size=num_rows).astype(np.int32)
    else:
        templates = np.empty(num_rows, np.int32)
        templates[order] = np.arange(num_rows, dtype=np.int32) % num_templates
    return rows, templates, order
