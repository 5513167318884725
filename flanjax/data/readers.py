r"""JSONL, TSV, CSV and JSON files as numbered rows, with errors that say where.

    with open_file(Path("boolq.jsonl.gz")) as stream:
        for number, row in read_jsonl(stream, "boolq.jsonl.gz"): ...

Every reader yields (line number, dict) and raises DataError naming file and line.
"""

import csv
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from flanjax.errors import DataError

Row = dict[str, Any]


def missing_file(path: Path) -> DataError:
    """Returns the error for a path where nothing lies."""
    fix = "check the path, or fetch the data first (`flanjax data fetch`)"
    return DataError("no such file", where=str(path), fix=fix)


def open_file(path: Path) -> IO[bytes]:
    """Opens a file to read bytes, unpacking `.gz`."""
    try:
        opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError as error:
        raise missing_file(path) from error
    return cast(IO[bytes], opened)


def _lines(stream: Iterable[bytes], where: str) -> Iterator[tuple[int, str]]:
    lines = enumerate(stream, start=1)
    number = 0
    while True:
        try:
            number, raw = next(lines)
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 text: {error.reason}",
                where=f"{where}:{number}",
                fix="convert the file to UTF-8",
            ) from error
        except (gzip.BadGzipFile, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"damaged archive: {error}",
                where=f"{where}, after line {number}",
                fix="fetch or copy the file again",
            ) from error
        yield number, text.rstrip("\r\n")


def read_jsonl(stream: Iterable[bytes], where: str) -> Iterator[tuple[int, Row]]:
    """Yields the objects of a JSONL stream; blank lines are passed over."""
    for number, line in _lines(stream, where):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"malformed JSON: {error.msg} at column {error.colno}",
                where=f"{where}:{number}",
                fix="correct or delete that line; each line is one JSON object",
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"the line holds a JSON {type(row).__name__}, not an object",
                where=f"{where}:{number}",
                fix='write each line as {"field": value, ...}',
            )
        yield number, row


def read_json_list(content: bytes, where: str) -> list[Row]:
    """Yields the members of a JSON list, numbered from 1."""
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"malformed JSON: {error.msg} at column {error.colno}",
            where=f"{where}:{error.lineno}",
            fix="correct the file",
        ) from error
    if not isinstance(rows, list):
        raise DataError(
            f"the file holds a JSON {type(rows).__name__}, not a list of objects",
            where=where,
            fix="name a member that is a list, or use JSONL",
        )
    return rows


def read_tsv(
    stream: Iterable[bytes], where: str, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, Row]]:
    r"""Yields tab-separated lines; a literal `\n` in a cell becomes a newline."""
    for number, line in _lines(stream, where):
        cells = [cell.replace("\\n", "\n") for cell in line.split("\t")]
        if columns is None:
            columns = tuple(cells)
        elif line:
            yield number, _record(columns, cells, f"{where}:{number}")


def read_csv(
    stream: Iterable[bytes], where: str, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, Row]]:
    """Yields the records of a CSV stream, quoted newlines included."""
    reader = csv.reader(f"{line}\n" for _, line in _lines(stream, where))
    for cells in reader:
        if columns is None:
            columns = tuple(cells)
        elif cells:
            yield (
                reader.line_num,
                _record(columns, cells, f"{where}:{reader.line_num}"),
            )


def _record(columns: tuple[str, ...], cells: list[str], where: str) -> Row:
    if len(cells) != len(columns):
        raise DataError(
            f"{len(cells)} columns, expected {len(columns)} ({', '.join(columns)})",
            where=where,
            fix="correct that line, or the source's `columns`",
        )
    return dict(zip(columns, cells, strict=True))
