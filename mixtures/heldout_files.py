"""Held-out sets in the files they are published in, as rows, and what a task of one is.

    source = EvalFiles(
        {"test": Part(read_svamp, "SVAMP.json"), "exemplars": Part(own, EXEMPLARS)},
        origin="https://github.com/arkilpatel/SVAMP")
    next(source.rows("test"))["question"]

Files lie in the folder `eval` of `flanjax.data.located.data_root()` under their
published names, packed with gzip or not. These sets measure what a model learned from
others: several carry a canary, and none of their texts may enter a training mixture.
"""

import gzip
import itertools
import json
import re
import string
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.identity import digest, file_digest, function_identity
from flanjax.data.located import data_root
from flanjax.data.readers import Row, open_file
from flanjax.data.sources import Source, known_split
from flanjax.data.templates import TemplateFile, TemplateGroup
from flanjax.errors import DataError

# Worded for this package, in none of the sets; see the file's first lines.
EXEMPLARS = Path(__file__).parent / "tables" / "heldout_exemplars.toml"
_TEMPLATES = Path(__file__).parent / "templates"


class Part:
    """What makes a split: a reader and the files it gets.

    Args:
      read: opened paths -> rows.
      files: for each path, a name below the folder `eval`, several of which the first
        that is there counts, or a path of this package.
    """

    def __init__(
        self,
        read: Callable[..., Iterator[Row]],
        *files: str | Path | tuple[str, ...],
    ):
        self.read = read
        self.files = [f if isinstance(f, tuple) else (f,) for f in files]


@dataclass(frozen=True, eq=False)
class EvalFiles:
    """Rows of published files.

    Args:
      parts: split -> how to read it.
      origin: where the files are to be had, for the message that one is missing.
    """

    parts: Mapping[str, Part]
    origin: str

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.parts)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`.

        Raises:
          DataError: a file is missing, or not what the reader knows.
        """
        paths = self._paths(split)
        rows = self.parts[split].read(*paths)
        for number in itertools.count(1):
            try:
                row = next(rows, None)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise DataError(
                    f"not as published: {type(error).__name__}: {error}",
                    where=f"{' with '.join(map(str, paths))}, row {number}",
                    fix=f"copy the file again from {self.origin}",
                ) from error
            if row is None:
                return
            yield {"row_id": f"{paths[0].name}:{number}", **row}

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        identity = function_identity(self.parts[split].read)
        return digest(identity, [file_digest(path) for path in self._paths(split)])

    def where(self, split: str) -> str:
        """See `Source`."""
        return str(self._paths(split)[0])

    def _paths(self, split: str) -> list[Path]:
        return [self._find(names) for names in known_split(self.parts, split).files]

    def _find(self, names: Sequence[str | Path]) -> Path:
        paths = [data_root() / "eval" / name for name in names]
        for path in paths:
            for candidate in (path, path.with_name(f"{path.name}.gz")):
                if candidate.is_file():
                    return candidate
        raise DataError(
            "a file of a held-out set is missing",
            where=" or ".join(map(str, paths)),
            fix=f"copy it there, as it is or with .gz, from {self.origin}; the "
            "environment variable FLANJAX_DATA names the folder above `eval`",
        )


def read_text(path: Path) -> str:
    """Returns the text of a file, unpacked where it ends in .gz."""
    try:
        with open_file(path) as stream:
            return stream.read().decode("utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"not readable: {error}", where=str(path), fix="copy the file again"
        ) from error


def parse_exemplars(text: str, exemplar: re.Pattern[str]) -> tuple[str, list[Row]]:
    """Takes a published prompt apart: a heading, then exemplars that begin with "Q: ".

    Args:
      text: the prompt.
      exemplar: matches one exemplar; its named groups become the row.

    Raises:
      ValueError: a part of it is no exemplar.
    """
    heading, *blocks = re.split(r"\n\n(?=Q: )", text)
    rows = []
    for block in blocks:
        match = exemplar.fullmatch(block)
        if match is None:
            raise ValueError(f"no exemplar: {block[:60]!r}")
        rows.append(match.groupdict())
    return heading, rows


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file, unpacked where it ends in .gz."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"malformed JSON: {error.msg} at column {error.colno}",
            where=f"{path}:{error.lineno}",
            fix="copy the file again",
        ) from error


def read_exemplars(path: Path, *, group: str) -> Iterator[Row]:
    """Yields the exemplars of this package, with lettered options where they have some.

    Args:
      path: of the TOML file.
      group: its table.
    """
    for row in tomllib.loads(path.read_text(encoding="utf-8"))[group]:
        yield row | lettered(row["options"]) if "options" in row else row


def lettered(options: Sequence[str]) -> Row:
    """Returns the fields of a multiple-choice row.

    Returns:
      `lettered`, "(A) one (B) two", and `options`, ["(A)", "(B)"]: what may be
      answered.
    """
    letters = [f"({letter})" for letter in string.ascii_uppercase[: len(options)]]
    pairs = zip(letters, options, strict=True)
    return {"lettered": " ".join(map(" ".join, pairs)), "options": letters}


def whole_number(text: str) -> str:
    """Returns a published number as digits: "2,125" -> "2125", " 5 " -> "5".

    Raises:
      ValueError: it is not a whole number.
    """
    return str(int(text.replace(",", "")))


def templates(file: str, group: str) -> TemplateGroup:
    """Returns a group of `templates/heldout_<file>.toml`, read when first used."""
    return TemplateFile(_TEMPLATES / f"heldout_{file}.toml")[group]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One held-out task: its rows, its prompt, and how an answer to it is read.

    Attributes:
      base: name; the SeqIO task adds the prompt type.
      suite: what it is part of.
      in_suite: whether the suite's average counts it.
      evaluation: name of its eval, if another than `base`.
      source: rows.
      templates: one template for each prompt type.
      prompt_type: of the eval: fs_opt where the prompt shows options, else fs_noopt.
      zero_shot: whether there is an eval without exemplars too, in the suite
        `<suite>_zero_shot`.
      cot: whether exemplars reason.
      shots: number of exemplars.
      exemplars: split they come from, in its order.
      dataset: name of the data.
      category: kind of task.
      languages: ISO codes.
      licence: of the data.
      kind: family in tables.
      extractor: how an answer is read.
      scorers: what it is compared by.
      max_decode_tokens: of an answer.
      stop: where an answer ends.
      answer_field: the field that `references` and `options` are alternatives of.
    """

    base: str
    suite: str
    source: Source
    templates: TemplateGroup
    prompt_type: str
    shots: int
    exemplars: str
    dataset: str
    category: str
    licence: str
    kind: str
    extractor: str
    max_decode_tokens: int
    in_suite: bool = True
    evaluation: str = ""
    zero_shot: bool = False
    cot: bool = False
    languages: tuple[str, ...] = ("en",)
    scorers: tuple[str, ...] = ("exact_match", "exact_match_flexible")
    stop: tuple[str, ...] = ()
    answer_field: str = "answer"
