r"""JSONL, TSV, CSV, JSON and Parquet files as numbered rows; errors say where.

    for number, row in read_file(Path("boolq.jsonl.gz")): ...

Every reader yields (line number, dict) and raises DataError naming file and line. All
but JSON lists are read as a stream: memory does not grow with the file.
"""

import csv
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from flanjax.errors import ConfigError, DataError

# Longer cells than any article; the csv module stops at 128 kB by default.
_LONGEST_CELL = 2**31 - 1

# Endings that `read_file` knows.
ENDINGS = tuple(
    f".{kind}{packed}"
    for kind in ("jsonl", "json", "tsv", "csv")
    for packed in ("", ".gz")
) + (".parquet",)

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


def read_json_list(stream: IO[bytes], where: str) -> Iterator[tuple[int, Row]]:
    """Yields the members of a JSON list, numbered from 1; holds the whole list."""
    text = "\n".join(line for _, line in _lines(stream, where))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"malformed JSON: {error.msg} at column {error.colno}",
            where=f"{where}:{error.lineno}",
            fix="correct the file; a .json file is one list, a .jsonl file has one "
            "object a line",
        ) from error
    if not isinstance(rows, list):
        raise DataError(
            f"the file holds a JSON {type(rows).__name__}, not a list of objects",
            where=where,
            fix="name a member that is a list, or use JSONL",
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"member {number} of the list is a JSON {type(row).__name__}, not an "
                "object",
                where=f"{where}:{number}",
                fix='write each member as {"field": value, ...}',
            )
        yield number, row


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
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(f"{line}\n" for _, line in _lines(stream, where))
    try:
        for cells in reader:
            place = f"{where}:{reader.line_num}"
            if columns is None:
                columns = tuple(cells)
            elif cells:
                yield reader.line_num, _record(columns, cells, place)
    except csv.Error as error:
        raise DataError(
            f"malformed CSV: {error}",
            where=f"{where}:{reader.line_num}",
            fix="correct that line; cells with commas or newlines stand in quotes",
        ) from error


def read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a Parquet file, batch after batch, numbered from 1."""
    # Heavy, and needed for nothing else; TensorFlow Datasets depends on it.
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the Parquet file: {error}",
            where=f"{path}:{number + 1}",
            fix="fetch or copy the file again",
        ) from error


def read_stream(
    stream: IO[bytes], name: str, where: str, columns: tuple[str, ...] | None = None
) -> Iterator[tuple[int, Row]]:
    """Yields the rows of an unpacked stream in the format that a name's ending says.

    Args:
      stream: the bytes, unpacked.
      name: file name; `.gz` at its end is passed over.
      where: for messages.
      columns: names of the columns of a .tsv or .csv without a header line.

    Raises:
      ConfigError: an ending that is not read.
      DataError: a bad row.
    """
    match Path(name.removesuffix(".gz")).suffix:
        case ".jsonl":
            return read_jsonl(stream, where)
        case ".tsv":
            return read_tsv(stream, where, columns)
        case ".csv":
            return read_csv(stream, where, columns)
        case ".json":
            return read_json_list(stream, where)
        case suffix:
            raise ConfigError(
                f"cannot read files that end in '{suffix}'",
                where=where,
                fix="name a .jsonl, .tsv, .csv or .json file",
            )


def read_file(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file with one of `ENDINGS`; see `read_stream`."""
    if path.suffix == ".parquet":
        yield from read_parquet(path)
        return
    with open_file(path) as stream:
        yield from read_stream(stream, path.name, str(path))


def _record(columns: tuple[str, ...], cells: list[str], where: str) -> Row:
    if len(cells) != len(columns):
        raise DataError(
            f"{len(cells)} columns, expected {len(columns)} ({', '.join(columns)})",
            where=where,
            fix="correct that line, or the source's `columns`",
        )
    return dict(zip(columns, cells, strict=True))
