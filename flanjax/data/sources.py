r"""Where rows come from: JSONL, TSV, CSV and JSON files, zip members, NIv2, functions.

    JsonlSource({"train": "boolq.jsonl.gz"}, fields=lambda row: {
        "question": row["question"], "options": ["no", "yes"],
        "answer": "yes" if row["label"] else "no"})

A source gives rows, dicts of template fields, each with a stable string id under
`row_id`. `fields` maps an original row to template fields; None skips the row. Nothing
is read before `rows` or `fingerprint` is called.

Fields with a meaning of their own: `options` (list of strings, shown through
`{options_}`), `dialog` (list of turns, shown through `{dialog_}`), `references` (list
of strings, every accepted answer), `shot_group` (exemplars come from the same group
only) and `row_id`. Datasets found by name: `flanjax.data.located`.
"""

import gzip
import hashlib
import itertools
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from flanjax.data.identity import digest, file_digest, function_identity
from flanjax.data.readers import (
    Row,
    missing_file,
    open_file,
    read_jsonl,
    read_stream,
    read_tsv,
)
from flanjax.errors import ConfigError, DataError, nearest

Fields = Callable[[Row], Row | None]
Location = str | Path | Callable[[], Path]


class Source(Protocol):
    """Rows by split, with what is needed to know whether they have changed."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, known without reading anything."""
        ...

    def rows(self, split: str) -> Iterator[Row]:
        """Yields the rows of a split, always in the same order."""
        ...

    def fingerprint(self, split: str) -> str:
        """A digest that changes when the rows of the split can have changed."""
        ...

    def where(self, split: str) -> str:
        """The file or function, for messages."""
        ...


@dataclass(frozen=True, eq=False)
class JsonlSource:
    """One JSON object a line; `.gz` is unpacked.

    Args:
      files: split -> path (or a function that returns it).
      fields: original row -> template fields, or None to skip it.
      limit: keep this many rows of each split at most.
    """

    files: Mapping[str, Location]
    fields: Fields | None = None
    limit: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.files)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        path = _path(self.files, split)
        with open_file(path) as stream:
            yield from _select(read_jsonl(stream, str(path)), self, split)

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        content = file_digest(_path(self.files, split))
        return digest(content, function_identity(self.fields), self.limit)

    def where(self, split: str) -> str:
        """See `Source`."""
        return str(_path(self.files, split))


@dataclass(frozen=True, eq=False)
class TsvSource:
    r"""Tab-separated lines; `.gz` is unpacked; a literal `\n` becomes a newline.

    Args:
      files: split -> path (or a function that returns it).
      columns: their names; None takes them from the first line.
      fields: original row -> template fields, or None to skip it.
      limit: keep this many rows of each split at most.
    """

    files: Mapping[str, Location]
    columns: tuple[str, ...] | None = None
    fields: Fields | None = None
    limit: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.files)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        path = _path(self.files, split)
        with open_file(path) as stream:
            numbered = read_tsv(stream, str(path), self.columns)
            yield from _select(numbered, self, split)

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        content = file_digest(_path(self.files, split))
        identity = function_identity(self.fields)
        return digest(content, identity, self.limit, self.columns)

    def where(self, split: str) -> str:
        """See `Source`."""
        return str(_path(self.files, split))


@dataclass(frozen=True, eq=False)
class ZipSource:
    """Files inside a zip archive, such as a fetched wheel.

    Args:
      archive: returns the archive's path; called when rows are read, not before.
      members: split -> name inside the archive, or several names, read in turn; the
        ending (.jsonl, .tsv, .csv or .json, each also with .gz) says how to read it.
      fields: original row -> template fields, or None to skip it.
      columns: names of the columns of a .tsv or .csv without a header line.
      limit: keep this many rows of each split at most.
    """

    archive: Callable[[], Path]
    members: Mapping[str, str | tuple[str, ...]]
    fields: Fields | None = None
    columns: tuple[str, ...] | None = None
    limit: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.members)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        with self.open() as archive:
            parts = [
                _select(self._numbered(archive, name), self, split, name)
                for name in self._names(split)
            ]
            yield from itertools.islice(itertools.chain(*parts), self.limit)

    def fingerprint(self, split: str) -> str:
        """See `Source`; from the checksums the archive keeps of its members."""
        with self.open() as archive:
            infos = [self._info(archive, name) for name in self._names(split)]
        content = [(info.filename, info.file_size, info.CRC) for info in infos]
        identity = function_identity(self.fields)
        return digest(content, identity, self.limit, self.columns)

    def where(self, split: str) -> str:
        """See `Source`."""
        return f"{self.archive()}!{', '.join(self._names(split))}"

    def _names(self, split: str) -> tuple[str, ...]:
        names = known_split(self.members, split)
        return (names,) if isinstance(names, str) else tuple(names)

    def open(self) -> zipfile.ZipFile:
        """Opens the archive; DataError if it is missing or damaged."""
        path = self.archive()
        try:
            return zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise missing_file(path) from error
        except zipfile.BadZipFile as error:
            raise DataError(
                f"not a zip archive: {error}", where=str(path), fix="fetch it again"
            ) from error

    def _info(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        try:
            return archive.getinfo(name)
        except KeyError as error:
            hint = nearest(name, archive.namelist())
            raise DataError(
                f"the archive has no member '{name}'.{hint}",
                where=str(archive.filename),
                fix="correct `members` of the ZipSource",
            ) from error

    def _numbered(self, archive: zipfile.ZipFile, name: str):
        self._info(archive, name)
        where = f"{archive.filename}!{name}"
        with archive.open(name) as raw:
            stream = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
            yield from read_stream(cast(IO[bytes], stream), name, where, self.columns)


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """Rows made by a Python function.

    Args:
      function: split -> iterator of rows, the same ones at every call.
      splits: names of the splits.
      name: begins the ids of rows that bring none.
      version: change it when the rows change in a way the function's own text does
        not show.
    """

    function: Callable[[str], Iterator[Row]]
    splits: tuple[str, ...]
    name: str
    version: str = "1"

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        known_split(dict.fromkeys(self.splits, ""), split)
        for number, row in enumerate(self.function(split), start=1):
            yield {"row_id": f"{self.name}:{split}:{number}", **row}

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        return digest(function_identity(self.function), self.version, split)

    def where(self, split: str) -> str:
        """See `Source`."""
        return f"{self.name}, split {split}"


@dataclass(frozen=True, eq=False)
class PartitionedSource:
    """One split of another source, cut into several by a hash of each row's id.

    A row stays in its part when other rows are added or removed around it as far as
    the sizes allow; parts never share a row.

    Args:
      base: the source that holds the rows.
      split: its split to cut.
      parts: new split -> number of rows; one may be None and takes the rest.
      by: a field; rows equal in it (one passage with many questions) share a part.
    """

    base: Source
    split: str
    parts: Mapping[str, int | None]
    by: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.parts)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        known_split(self.parts, split)
        rows = list(self.base.rows(self.split))
        keys = [str(row[self.by] if self.by else row["row_id"]) for row in rows]
        wanted = self._assign(keys)[split]
        return (row for row, key in zip(rows, keys, strict=True) if key in wanted)

    def _assign(self, keys: Sequence[str]) -> dict[str, set[str]]:
        """Gives every distinct key to one part, in order of the keys' hashes."""
        counts: dict[str, int] = {}
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        queue = sorted(counts, key=lambda key: hashlib.sha256(key.encode()).digest())
        queue.reverse()
        parts: dict[str, set[str]] = {name: set() for name in self.parts}
        for name, size in self.parts.items():
            filled = 0
            while size is not None and filled < size and queue:
                filled += counts[queue[-1]]
                parts[name].add(queue.pop())
        rest = [name for name, size in self.parts.items() if size is None]
        if len(rest) > 1:
            raise ConfigError(
                f"only one part may take the rest, not {', '.join(rest)}",
                where=self.base.where(self.split),
                fix="give the other parts a number of rows",
            )
        if rest:
            parts[rest[0]].update(queue)
        return parts

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        base = self.base.fingerprint(self.split)
        return digest(base, split, list(self.parts.items()), self.by)

    def where(self, split: str) -> str:
        """See `Source`."""
        return self.base.where(self.split)


def known_split(splits: Mapping[str, Any], split: str) -> Any:
    """Returns what belongs to the split, or raises ConfigError naming the nearest."""
    if split not in splits:
        raise ConfigError(
            f"no split '{split}'; there are {', '.join(splits)}."
            f"{nearest(split, splits)}",
            fix="name one of these splits",
        )
    return splits[split]


def _path(files: Mapping[str, Location], split: str) -> Path:
    location = known_split(files, split)
    return Path(location if isinstance(location, str | Path) else location())


def _select(
    numbered: Iterator[tuple[int, Row]], source: Any, split: str, name: str = ""
) -> Iterator[Row]:
    """Applies a source's `fields` and `limit`; rows without an id get their line's."""
    where = source.where(split)
    name = Path(name or where).name
    identified = ((f"{name}:{number}", row) for number, row in numbered)
    return itertools.islice(select(identified, source.fields, where), source.limit)


def select(
    identified: Iterator[tuple[str, Row]], fields: Fields | None, where: str
) -> Iterator[Row]:
    """Applies `fields` to original rows, and gives their ids to rows that have none.

    Args:
      identified: (id, original row) pairs.
      fields: original row -> template fields, or None to skip it.
      where: for messages.

    Raises:
      DataError: `fields` cannot map a row.
    """
    for row_id, original in identified:
        try:
            row = original if fields is None else fields(original)
        except (
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            known = ", ".join(map(str, original))
            raise DataError(
                f"`fields` failed with {type(error).__name__}: {error}; the row has "
                f"the keys {known}",
                where=f"{row_id} of {where}",
                fix="correct the source's `fields`; return None to skip a row",
            ) from error
        if row is not None:
            yield {"row_id": row_id, **row}
