r"""Templates: instruction texts with `{fields}`, kept in TOML and checked when read.

    [boolq]                              # of all templates of the group, if given:
    example_separator = "\n\n"           # between exemplars; default "\n\n\n"
    x_y_delimiter = "\n"                 # between input and target; default "\n\n"

    [[boolq.templates]]                  # id "boolq/0"
    inputs = "{passage}\n\nIs it true that {question}?\n\n{options_}"
    targets = "{answer}"
    inputs_prefix = "Q: "                # few-shot only, before each input
    targets_prefix = "A: "               # few-shot only, before each target
    header = "On {topic}.\n\n"           # few-shot only, once, before all exemplars
    in_template_mix = false              # not where each exemplar has its own template
    prompt_types = ["zs_opt", "fs_opt"]  # only in these forms; default: in all

`{options_}` is the formatted list of options, `{dialog_}` the formatted turns of the
field `dialog`. A header may hold fields of the query's row. The no-option forms are the
same templates with `{options_}` and the newlines before it deleted. A literal brace is
written twice. `TemplateFile(path)["boolq"]` reads nothing until it is used.
"""

import dataclasses
import functools
import hashlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.toml_lines import TomlLines
from flanjax.errors import DataError, nearest

OPTIONS, DIALOG = "options_", "dialog_"
FORMATTED = {OPTIONS: "options", DIALOG: "dialog"}  # Made of which field.
PROMPT_TYPES = ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt")

_PART = re.compile(
    r"(?P<text>(?:[^{}]|\{\{|\}\})+)|\{(?P<field>[A-Za-z_]\w*)\}|(?P<bad>[{}])"
)
_SHOT_PARTS = {
    "inputs_prefix": "",
    "targets_prefix": "",
    "x_y_delimiter": "\n\n",
    "example_separator": "\n\n\n",
}
_SHOT_SETTINGS = ("header", "in_template_mix")


@dataclass(frozen=True)
class Template:
    """One way to say a task.

    Args:
      id: group and number, "boolq/3".
      inputs: the text before the answer, with `{fields}`.
      targets: the text the model should write, with `{fields}`.
      where: file:line, for messages.
      inputs_prefix: few-shot text before each input.
      targets_prefix: few-shot text before each target.
      x_y_delimiter: few-shot text between input and target.
      example_separator: few-shot text after each exemplar.
      header: few-shot text before the first exemplar, with `{fields}` of the query.
      in_template_mix: whether it is used where each exemplar has its own template.
      prompt_types: the forms it is used in.
    """

    id: str
    inputs: str
    targets: str
    where: str = ""
    inputs_prefix: str = ""
    targets_prefix: str = ""
    x_y_delimiter: str = "\n\n"
    example_separator: str = "\n\n\n"
    header: str = ""
    in_template_mix: bool = True
    prompt_types: tuple[str, ...] = PROMPT_TYPES

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields of all texts, each once, in order."""
        parts = [*parse(self.inputs), *parse(self.targets), *parse(self.header)]
        return tuple(dict.fromkeys(name for _, name in parts if name is not None))

    @property
    def hash(self) -> str:
        """Digest (12 characters) of all texts; the id and place do not count."""
        names = ("inputs", "targets", *_SHOT_PARTS, "header")
        texts = [getattr(self, name) for name in names]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]

    @property
    def shows_options(self) -> bool:
        """Whether the options stand in the inputs."""
        return OPTIONS in (name for _, name in parse(self.inputs))

    def targets_name(self, field: str) -> bool:
        """Whether a field stands in the targets."""
        return field in (name for _, name in parse(self.targets))

    def without_options(self) -> "Template":
        """Returns the template with `{options_}` and newlines before it deleted.

        Raises:
          DataError: the targets hold `{options_}`, so that the form would show them, or
            the inputs hold nothing else.
        """
        inputs = re.sub(r"\n*\{options_\}", "", self.inputs)
        bare = dataclasses.replace(self, inputs=inputs)
        check_no_options(bare, (OPTIONS, "options"))
        if not inputs.strip():
            raise DataError(
                f"template {self.id} is empty without its options",
                where=self.where,
                fix='give it prompt_types = ["zs_opt", "fs_opt"]',
            )
        return bare


def parse(text: str) -> list[tuple[str, str | None]]:
    """Splits a text at its fields.

    Returns:
      (literal, field after it) pairs; the last field is None.

    Raises:
      ValueError: an unmatched brace; the message says where in the text.
    """
    pairs: list[tuple[str, str | None]] = []
    literal = ""
    for match in _PART.finditer(text):
        if match["bad"]:
            near = text[max(0, match.start() - 12) : match.end() + 12]
            raise ValueError(f"unmatched '{match['bad']}' near {near!r}")
        if match["field"]:
            pairs.append((literal, match["field"]))
            literal = ""
        else:
            literal += match["text"].replace("{{", "{").replace("}}", "}")
    return [*pairs, (literal, None)]


def check_no_options(template: Template, option_fields: Iterable[str]) -> None:
    """Raises DataError if a no-option template would show options all the same."""
    leaked = [name for name in template.fields if name in set(option_fields)]
    if leaked:
        raise DataError(
            f"template {template.id} shows options in its no-option form: field "
            f"'{leaked[0]}'",
            where=template.where,
            fix='give it prompt_types = ["zs_opt", "fs_opt"], or drop the field',
        )


def check_fields(
    templates: Sequence[Template], available: Iterable[str], where: str
) -> None:
    """Raises DataError if a template uses a field that the rows do not have.

    Args:
      templates: what to check.
      available: names of the rows' fields.
      where: the source of the rows, for the message.
    """
    known = [*available, *FORMATTED]
    for template in templates:
        for name in template.fields:
            if name not in known:
                listed = ", ".join(sorted(set(known) - {"row_id", *FORMATTED}))
                raise DataError(
                    f"template {template.id} uses the unknown field '{name}'."
                    f"{nearest(name, known)}",
                    where=template.where,
                    fix=f"use one of: {listed} (fields of {where})",
                )


class TemplateFile:
    """A TOML file of templates, read when a group of it is first used.

    Args:
      path: the file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __getitem__(self, group: str) -> "TemplateGroup":
        """Returns a reference to a group; nothing is read."""
        return TemplateGroup(self.path, group)


@dataclass(frozen=True)
class TemplateGroup:
    """A named group of a template file."""

    path: Path
    group: str

    def load(self) -> tuple[Template, ...]:
        """Reads and checks the file, once as long as it does not change.

        Raises:
          DataError: the file or one of its templates is bad, or has no such group.
        """
        groups = load_templates(self.path)
        if self.group not in groups:
            raise DataError(
                f"no templates '{self.group}'.{nearest(self.group, groups)}",
                where=str(self.path),
                fix=f"add [[{self.group}.templates]] there, or name another group",
            )
        return groups[self.group]


def load_templates(path: str | Path) -> dict[str, tuple[Template, ...]]:
    """Reads a TOML file of templates and checks all of them.

    Returns:
      group -> its templates, in order.

    Raises:
      DataError: naming file and line.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(
            "no such template file", where=str(path), fix="correct the path"
        ) from error
    return _load(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _load(path: Path, size: int, modified: int) -> dict[str, tuple[Template, ...]]:
    text = path.read_text(encoding="utf-8")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise DataError(
            f"not valid TOML: {error}",
            where=f"{path}:{line[1] if line else text.count(chr(10)) + 1}",
            fix="correct that line",
        ) from error
    reader = _Reader(path, TomlLines(text))
    return {name: reader.group(name, table) for name, table in content.items()}


class _Reader:
    """Makes templates of parsed TOML, with errors that name the line."""

    def __init__(self, path: Path, lines: TomlLines):
        self.path, self.lines = path, lines

    def group(self, name: str, table: Any) -> tuple[Template, ...]:
        line = self.lines.of(name)
        if not isinstance(table, dict) or not isinstance(table.get("templates"), list):
            self._fail(line, f"'{name}' has no templates", f"add [[{name}.templates]]")
        defaults = {key: value for key, value in table.items() if key != "templates"}
        for key, value in defaults.items():
            self._check(name, None, key, value, [*_SHOT_PARTS, *_SHOT_SETTINGS])
        entries = enumerate(table["templates"])
        return tuple(self._template(name, i, {**defaults, **e}, e) for i, e in entries)

    def _template(
        self, group: str, index: int, merged: dict[str, Any], own: dict[str, Any]
    ) -> Template:
        known = ["inputs", "targets", "prompt_types", *_SHOT_PARTS, *_SHOT_SETTINGS]
        for key, value in own.items():
            self._check(group, index, key, value, known)
        line = self.lines.of(group, index)
        for key in ("inputs", "targets"):
            if not own.get(key):
                self._fail(
                    line,
                    f"template {group}/{index} has no {key}",
                    f'add {key} = "..."',
                )
            self._parsed(group, index, key, own[key])
        if "prompt_types" in merged:
            merged["prompt_types"] = tuple(merged["prompt_types"])
        return Template(id=f"{group}/{index}", where=f"{self.path}:{line}", **merged)

    def _check(
        self, group: str, index: int | None, key: str, value: Any, known: Iterable[str]
    ) -> None:
        line = self.lines.of(group, index, key)
        known = list(known)
        if key not in known:
            self._fail(
                line,
                f"unknown key '{key}' in '{group}'.{nearest(key, known)}",
                f"use one of: {', '.join(known)}",
            )
        if key == "prompt_types":
            if not isinstance(value, list) or not set(value) <= set(PROMPT_TYPES):
                listed = ", ".join(PROMPT_TYPES)
                self._fail(
                    line, f"bad prompt_types {value!r}", f"list some of: {listed}"
                )
        elif key == "in_template_mix":
            if not isinstance(value, bool):
                self._fail(line, f"bad {key} {value!r}", "write true or false")
        elif not isinstance(value, str):
            self._fail(line, f"'{key}' is not a text", 'write it in quotes, "..."')
        elif key in _SHOT_PARTS and re.search(r"\{[A-Za-z_]\w*\}", value):
            self._fail(
                line,
                f"'{key}' is literal text and cannot hold a field",
                "put the field into inputs or targets",
            )
        elif key == "header":
            formatted = [n for _, n in self._parsed(group, index, key, value)]
            if set(formatted) & set(FORMATTED):
                self._fail(
                    line,
                    "a header cannot hold {options_} or {dialog_}",
                    "put them into inputs",
                )

    def _parsed(
        self, group: str, index: int | None, key: str, text: str
    ) -> list[tuple[str, str | None]]:
        try:
            return parse(text)
        except ValueError as error:
            place = group if index is None else f"template {group}/{index}"
            raise DataError(
                f"{place}, {key}: {error}",
                where=f"{self.path}:{self.lines.of(group, index, key)}",
                fix="write {field} for a field and {{ or }} for a literal brace",
            ) from error

    def _fail(self, line: int, what: str, fix: str) -> None:
        raise DataError(what, where=f"{self.path}:{line}", fix=fix)
