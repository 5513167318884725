"""Rows of a source as a table of texts, checked against what the templates need.

    table = load_table(source, "train", templates, "answer")
    table.values[0]        # the texts of row 0, in the order of table.fields

200,000 rows of 1 kB take about 0.6 GB, most of it the rows as the source gave them,
which stay for the other prompt types of the dataset.
"""

import collections
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from flanjax.data.options import MAX_OPTIONS
from flanjax.data.sources import Row, Source
from flanjax.data.templates import (
    DIALOG,
    FORMATTED,
    OPTIONS,
    Template,
    check_fields,
)
from flanjax.errors import DataError

Texts = tuple[str, ...]
MANY_OPTIONS = ("error", "bullets")

# Splits that are kept for the next prompt type hold no more rows than this in all.
_ROWS_KEPT = 300_000


@dataclass(frozen=True)
class RowTable:
    """Rows as texts; every list has one entry for each row.

    Attributes:
      fields: names of the texts in `values`.
      row_ids: stable ids.
      values: texts of the fields.
      options: shown through `{options_}`.
      dialogs: turns, shown through `{dialog_}`.
      references: every accepted answer.
      groups: exemplars come from the same group.
      keys: equal for rows that must not be each other's exemplar: the texts but for the
        answer.
    """

    fields: Texts
    row_ids: list[str]
    values: list[Texts]
    options: list[Texts]
    dialogs: list[Texts]
    references: list[Texts]
    groups: list[str]
    keys: list[Hashable]


def load_table(
    source: Source,
    split: str,
    templates: Sequence[Template],
    answer_field: str,
    many_options: str = "error",
    as_p3_was_read: bool = False,
) -> RowTable:
    """Reads a split and checks that it has what the templates need.

    Args:
      source: where the rows come from.
      split: of it.
      templates: those of one prompt type.
      answer_field: the field that options and references are alternatives of.
      many_options: "error" for rows with more than 26 options to show, or "bullets".
      as_p3_was_read: whether newlines are lost (the switch "t0_newlines").

    Raises:
      DataError: an unreadable row, or one without what a template uses; with the row's
        id (file and line) and the field.
    """
    rows = read_rows(source, split)
    where = source.where(split)
    if not rows:
        raise DataError(
            f"no rows in split '{split}'",
            where=where,
            fix="check the file, and whether `fields` skips every row",
        )
    check_fields(templates, rows[0], where)
    reader = _RowReader(templates, answer_field, many_options, where, as_p3_was_read)
    options = [reader.options(row) for row in rows]
    values = [reader.values(row) for row in rows]
    reader.check_answers(rows, values, options)
    dialogs = [reader.dialog(row) for row in rows]
    asked = [i for i, name in enumerate(reader.fields) if name != answer_field]
    if not asked and not any(dialogs):  # Nothing but answers: these tell rows apart.
        asked = list(range(len(reader.fields)))
    return RowTable(
        fields=reader.fields,
        row_ids=[str(row["row_id"]) for row in rows],
        values=values,
        options=options,
        dialogs=dialogs,
        references=[reader.texts(row, "references") for row in rows],
        groups=[str(row.get("shot_group", "")) for row in rows],
        keys=[
            (*(texts[i] for i in asked), *turns)
            for texts, turns in zip(values, dialogs, strict=True)
        ],
    )


def template_fields(templates: Sequence[Template]) -> Texts:
    """Returns the fields that any of the templates uses, sorted, but formatted ones."""
    return tuple(sorted({name for t in templates for name in t.fields} - {*FORMATTED}))


_kept: collections.OrderedDict[tuple, list[Row]] = collections.OrderedDict()


def read_rows(source: Source, split: str) -> list[Row]:
    """Returns the rows of a split, which are kept for a while.

    The forms of a dataset follow one another and read the same rows.
    """
    key = (source, split, source.fingerprint(split))
    if key not in _kept:
        _kept[key] = list(source.rows(split))
    _kept.move_to_end(key)
    while len(_kept) > 1 and sum(map(len, _kept.values())) > _ROWS_KEPT:
        _kept.popitem(last=False)
    while len(_kept) > 4:
        _kept.popitem(last=False)
    return _kept[key]


class _RowReader:
    """Takes texts out of rows, with errors that name the row and the field."""

    def __init__(
        self,
        templates: Sequence[Template],
        answer_field: str,
        many_options: str,
        where: str,
        as_p3_was_read: bool,
    ):
        self.fields = template_fields(templates)
        used = {name for template in templates for name in template.fields}
        self._shows_options, self._shows_dialog = OPTIONS in used, DIALOG in used
        self._answer = answer_field
        self._answers_with_option = any(
            t.shows_options and t.targets_name(answer_field) for t in templates
        )
        self._bullets = many_options == "bullets"
        self._where, self._as_p3 = where, as_p3_was_read
        # Rows share few lists of options: one tuple of each is enough.
        self._same: dict[Texts, Texts] = {}

    def values(self, row: Row) -> Texts:
        texts = [self._text(row, name) for name in self.fields]
        if self._as_p3:
            answers = [name == self._answer for name in self.fields]
            texts = [_p3(t, a) for t, a in zip(texts, answers, strict=True)]
        return tuple(texts)

    def check_answers(
        self, rows: Sequence[Row], values: Sequence[Texts], options: Sequence[Texts]
    ) -> None:
        """Raises DataError for an answer that is not among the options shown with it.

        The public code writes such examples. They are nearly always a slip of a
        `fields` function ("Yes" for an answer, "yes" among the options).
        """
        if not self._answers_with_option:
            return
        column = self.fields.index(self._answer)
        for row, texts, shown in zip(rows, values, options, strict=True):
            answer = texts[column]
            if answer not in shown and answer.strip() not in map(str.strip, shown):
                listed = ", ".join(repr(option) for option in shown[:5])
                raise self._error(
                    row,
                    f"the answer {answer!r} in its field '{self._answer}', which is "
                    f"none of its options ({listed})",
                    "spell both alike in the source's `fields`, or return None to "
                    "skip the row",
                )

    def options(self, row: Row) -> Texts:
        options = self.texts(row, "options")
        if self._shows_options and not options:
            raise self._error(
                row,
                "0 options, but its templates show them",
                'set row["options"] in the source\'s `fields`, or skip the row',
            )
        too_many = len(options) > MAX_OPTIONS and not self._bullets
        if self._shows_options and too_many:
            raise self._error(
                row,
                f"{len(options)} options; names of options end at {MAX_OPTIONS}",
                'register the task with many_options="bullets", give the row fewer '
                "options in the source's `fields`, or skip it",
            )
        return options

    def dialog(self, row: Row) -> Texts:
        turns = self.texts(row, "dialog") if self._shows_dialog else ()
        if self._shows_dialog and not turns:
            raise self._error(
                row,
                "no turns in its field 'dialog'",
                'set row["dialog"] in the source\'s `fields`, or skip the row',
            )
        return turns

    def texts(self, row: Row, name: str) -> Texts:
        """Returns a list of texts that a row may have."""
        value = row.get(name)
        if value is None or value == []:
            return ()
        if not isinstance(value, list | tuple):
            raise self._error(
                row,
                f"a {type(value).__name__} in its field '{name}', not a list",
                "make it a list of texts in the source's `fields`",
            )
        texts = tuple(_clean(str(text)) for text in value)
        if self._as_p3 and name != "dialog":
            texts = tuple(_p3(text, True) for text in texts)
        return self._same.setdefault(texts, texts) if name == "options" else texts

    def _text(self, row: Row, name: str) -> str:
        value: Any = row.get(name)
        if isinstance(value, str):
            return _clean(value)
        if value is None or isinstance(value, list | tuple | dict):
            what = "no" if value is None else f"a {type(value).__name__} for the"
            raise self._error(
                row,
                f"{what} field '{name}'",
                "give it a text in the source's `fields`, or return None to skip it",
            )
        return str(value)

    def _error(self, row: Row, what: str, fix: str) -> DataError:
        row_id = row["row_id"]
        return DataError(
            f"row {row_id} has {what}", where=f"{row_id} of {self._where}", fix=fix
        )


def _clean(text: str) -> str:
    r"""Turns what no encoding can write, a "\ud83d" cut off in JSON, into "?"."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _p3(text: str, is_answer: bool) -> str:
    return re.sub(r"\n", "" if is_answer else " ", text)
