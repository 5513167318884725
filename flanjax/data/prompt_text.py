"""Templates filled with a row: the prompt, the target, and what else would be right.

    renderer = Renderer(templates, table.fields, "answer")
    renderer.query(table, row=0, template=3, option_style=(2, 30, 1), dialog_style=...)

The same functions render queries and exemplars; `flanjax.data.shot_text` puts the
latter before the former.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flanjax.data.dialog_formats import (
    FIXED_DIALOG,
    FUSED_STARTS,
    STARTS,
    format_dialog,
)
from flanjax.data.options import (
    FIXED_STYLE,
    ITEM_NAMES,
    REPEATED_ITEM_NAMES,
    format_options,
    option_labels,
)
from flanjax.data.rows import RowTable
from flanjax.data.templates import DIALOG, OPTIONS, Template, parse


@dataclass(frozen=True)
class Rendered:
    """A row in a template.

    Attributes:
      inputs: the prompt.
      targets: what should follow it.
      header: stands once before exemplars and prompt.
      choices: the target for each option; none if the target does not name it.
      references: the target for each accepted answer.
    """

    inputs: str
    targets: str
    header: str = ""
    choices: Sequence[str] = ()
    references: Sequence[str] = ()


class _Text:
    """A text with `{fields}`, cut into pieces so that filling it is one join."""

    def __init__(self, text: str, columns: Sequence[str]):
        self._pieces: list[str] = []
        self._slots: list[tuple[int, int]] = []
        for literal, field in parse(text):
            self._pieces += [literal, ""]
            if field is not None:
                slot = len(self._pieces) - 1
                self._slots.append((slot, columns.index(field)))
        self.columns = {column for _, column in self._slots}

    def fill(self, values: Sequence[str]) -> str:
        pieces = self._pieces.copy()
        for slot, column in self._slots:
            pieces[slot] = values[column]
        return "".join(pieces)


class Renderer:
    """Fills the templates of one prompt type.

    Args:
      templates: what to fill.
      fields: names of the texts of a row, as in its `RowTable`.
      answer_field: the field that options and references are alternatives of.
      choices: whether to say what the target would be for each option.
      switches: of `flanjax.data.faithful`.
    """

    def __init__(
        self,
        templates: Sequence[Template],
        fields: Sequence[str],
        answer_field: str,
        choices: bool = True,
        switches: Collection[str] = (),
    ):
        columns = [*fields, OPTIONS, DIALOG]
        self._inputs = [_Text(t.inputs, columns) for t in templates]
        self._targets = [_Text(t.targets, columns) for t in templates]
        self._headers = [_Text(t.header, columns) for t in templates]
        used = [
            inputs.columns | targets.columns
            for inputs, targets in zip(self._inputs, self._targets, strict=True)
        ]
        self._with_options = [columns.index(OPTIONS) in u for u in used]
        self._with_dialog = [columns.index(DIALOG) in u for u in used]
        self._shows_options = [t.shows_options for t in templates]
        self._answer = columns.index(answer_field) if answer_field in fields else -1
        self._names_answer = [self._answer in t.columns for t in self._targets]
        self._choices = choices
        repeated, fused = "option_formats" in switches, "dialog_starts" in switches
        self._item_names = REPEATED_ITEM_NAMES if repeated else ITEM_NAMES
        self._starts = FUSED_STARTS if fused else STARTS

    def exemplar(self, table: RowTable, row: int, template: int) -> Rendered:
        """Returns inputs and targets of a row, in the fixed formats."""
        values = self._values(table, row, template, FIXED_STYLE, FIXED_DIALOG)
        inputs = self._inputs[template].fill(values)
        return Rendered(inputs, self._targets[template].fill(values))

    def query(
        self,
        table: RowTable,
        row: int,
        template: int,
        option_style: Sequence[int] = FIXED_STYLE,
        dialog_style: Sequence[int] = FIXED_DIALOG,
    ) -> Rendered:
        """Returns all there is to say about a row in a template.

        Args:
          table: the rows.
          row: of the table.
          template: its number.
          option_style: how options are written, see `flanjax.data.options`.
          dialog_style: how dialogs are, see `flanjax.data.dialog_formats`.
        """
        values = self._values(table, row, template, option_style, dialog_style)
        inputs = self._inputs[template].fill(values)
        header = self._headers[template].fill(values)
        if not self._names_answer[template]:
            return Rendered(inputs, self._targets[template].fill(values), header)
        options = table.options[row]
        labels = options
        if self._shows_options[template]:
            # Numbered options are answered by their number, bullets by their text.
            labels = option_labels(options, option_style, self._item_names)
        label_of: dict[str, str] = {}
        for option, label in zip(options, labels, strict=True):
            label_of.setdefault(option.strip(), label)
        answers = [values[self._answer], *table.references[row]]
        answers = [label_of.get(answer.strip(), answer) for answer in answers]
        choices = labels if self._choices else ()
        targets = self._for_answers(template, values, [*answers, *choices])
        return Rendered(
            inputs,
            targets[0],
            header,
            choices=targets[len(answers) :],
            references=targets[1 : len(answers)],
        )

    def _for_answers(
        self, template: int, values: list[str], answers: Sequence[str]
    ) -> list[str]:
        """Returns the target for each of several answers."""
        text, filled = self._targets[template], []
        for answer in answers:
            values[self._answer] = answer
            filled.append(text.fill(values))
        return filled

    def _values(
        self,
        table: RowTable,
        row: int,
        template: int,
        option_style: Sequence[int],
        dialog_style: Sequence[int],
    ) -> list[str]:
        options = dialog = ""
        if self._with_options[template]:
            names = self._item_names
            options = format_options(table.options[row], option_style, names)
        if self._with_dialog[template]:
            dialog = format_dialog(table.dialogs[row], dialog_style, self._starts)
        return [*table.values[row], options, dialog]
