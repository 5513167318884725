r"""Datasets by name: local files below one folder, or what TFDS has prepared.

    DatasetSource(
        "muffin/rte",
        {"train": "train[:-200]", "validation": "train[-200:]", "test": "validation"},
        fields=lambda row: {...},
        tfds="super_glue/rte:1.0.2")

Files lie below `data_root()`: environment variable FLANJAX_DATA, else
~/.cache/flanjax/data. The split "train" of folder "muffin/rte" is the first of

    muffin/rte/train.<ending>
    muffin/rte/train-00000-of-00004.<ending>, and its other shards
    muffin/rte/train/*.<ending>
    muffin/rte.<ending>                        the split "train" only

with the endings of `flanjax.data.readers.ENDINGS`: jsonl, json (one list), tsv, csv
(both with a header line), each also with .gz, and parquet. Where there is no file, a
dataset that TFDS has prepared is read, from `tfds` below the data root, TFDS_DATA_DIR
or ~/tensorflow_datasets. Nothing is downloaded.
"""

import itertools
import os
import random
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.identity import (
    digest,
    file_digest,
    file_times,
    function_identity,
)
from flanjax.data.readers import ENDINGS, Row, read_file
from flanjax.data.sources import Fields, known_split, select
from flanjax.data.tfds_source import (
    find_prepared,
    prepared_fingerprint,
    prepared_places,
    read_prepared,
    tfds_roots,
)
from flanjax.errors import ConfigError, DataError

# Files above this size count as changed when name, size or time of change differ:
# hashing gigabytes at every look would take minutes.
HASHED_BYTES = 64 * 2**20

_PART = re.compile(r"(?P<split>[\w.-]+)(?:\[(?P<start>-?\d+)?:(?P<stop>-?\d+)?\])?")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?:-\w+)?")


def data_root() -> Path:
    """Returns the folder of the user's data: FLANJAX_DATA, or one in ~/.cache."""
    named = os.environ.get("FLANJAX_DATA")
    return Path(named) if named else Path.home() / ".cache" / "flanjax" / "data"


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A dataset's rows from local files or, where there are none, from TFDS.

    Args:
      folder: below `data_root()`, "muffin/rte".
      parts: split -> stored split, whole or sliced as in TFDS with row numbers:
        "train[:-200]", "train[200:400]", "validation".
      fields: original row -> template fields, or None to skip it. JSON and Parquet
        values come as they are, cells of tables as texts, TFDS features as Python
        values (labels are numbers).
      tfds: name in TFDS, "super_glue/rte:1.0.2" or "huggingface:xsum".
      limit: keep this many rows of each split at most: a sample drawn evenly over the
        whole split, the same each time, in the order of the file.

    Raises:
      ConfigError: a part that cannot be read.
    """

    folder: str
    parts: Mapping[str, str]
    fields: Fields | None = None
    tfds: str | None = None
    limit: int | None = None

    def __post_init__(self):
        for part in self.parts.values():
            _parse(part, self.folder)

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self.parts)

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`.

        Raises:
          DataError: no data (it lists where it looked), or a bad row.
        """
        stored, start, stop = self._part(split)
        found = self._find(split)
        if isinstance(found, Path):
            identified = read_prepared(found, stored, start, stop)
            where = str(found)
        else:
            identified = cut(_identified(found), start, stop)
            where = str(found[0].parent)
        rows = select(identified, self.fields, where)
        if self.limit is None:
            return rows
        return sample(rows, self.limit, f"{self.folder}:{split}")

    def fingerprint(self, split: str) -> str:
        """See `Source`.

        Files above `HASHED_BYTES` count by name, size and time of change, and what TFDS
        has prepared by its notes (sizes of files, features).
        """
        stored, _, _ = self._part(split)
        found = self._find(split)
        if isinstance(found, Path):
            content: Any = prepared_fingerprint(found, stored)
        else:
            content = [(path.name, _file_identity(path)) for path in found]
        part = [self.folder, split, self.parts[split], self.limit]
        return digest(content, function_identity(self.fields), part)

    def present(self, split: str) -> bool:
        """Whether there are files or prepared data for a split; opens none."""
        stored, _, _ = self._part(split)
        files = local_files(self.folder, stored)
        return bool(files) or self._prepared() is not None

    def where(self, split: str) -> str:
        """See `Source`; the place for a file if there is no data yet."""
        stored, _, _ = self._part(split)
        files = local_files(self.folder, stored)
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            return f"{files[0]}{more}"
        return str(self._prepared() or data_root() / self.folder / f"{stored}.*")

    def _part(self, split: str) -> tuple[str, int | None, int | None]:
        return _parse(known_split(self.parts, split), self.folder)

    def _prepared(self) -> Path | None:
        return find_prepared(self.tfds, tfds_roots(data_root())) if self.tfds else None

    def places(self, split: str) -> list[str]:
        """Returns where data of a split would be looked for, in order."""
        stored, _, _ = self._part(split)
        base = data_root() / self.folder
        texts = "{jsonl,json,tsv,csv}[.gz]"
        places = [
            f"{base / stored}[-00000-of-00001].{texts} or .parquet",
            f"{base / stored}/*.{texts} or .parquet",
        ]
        if stored == "train":
            places.append(f"{base}.{texts} or .parquet")
        if self.tfds:
            roots = tfds_roots(data_root())
            places += map(str, prepared_places(self.tfds, roots))
        return places

    def advice(self, split: str) -> str:
        """Returns what to do where there is no data for a split."""
        stored, _, _ = self._part(split)
        advice = (
            f"put a file {data_root() / self.folder / stored}.jsonl there, or set "
            "FLANJAX_DATA"
        )
        if self.tfds:
            root = data_root() / "tfds"
            advice += (
                f"; or prepare it: tfds build {self.tfds} --data_dir={root} (what this "
                "needs: see flanjax.data.tfds_source)"
            )
        return advice

    def _find(self, split: str) -> list[Path] | Path:
        """Returns a split's files, or the folder of a prepared dataset."""
        stored, _, _ = self._part(split)
        found = local_files(self.folder, stored) or self._prepared()
        if not found:
            listed = "\n    ".join(self.places(split))
            raise DataError(
                f"no data for split '{stored}'; looked for\n    {listed}",
                where=self.folder,
                fix=self.advice(split),
            )
        return found


def local_files(folder: str, stored: str) -> list[Path]:
    """Returns the files of a stored split below the data root, in order; [] if none.

    Raises:
      DataError: files in several formats, or a shard is missing.
    """
    base = data_root() / folder
    groups: dict[str, list[Path]] = {}
    if base.is_dir():
        for path in sorted(base.iterdir()):
            ending = _ending(path.name)
            rest = path.name.removesuffix(ending).removeprefix(stored)
            if ending and path.name.startswith(stored):
                if not rest or _SHARD.fullmatch(rest):
                    groups.setdefault(f"{bool(rest)}{ending}", []).append(path)
        inner = base / stored
        if not groups and inner.is_dir():
            for path in sorted(inner.iterdir()):
                if ending := _ending(path.name):
                    groups.setdefault(ending, []).append(path)
    if not groups and stored == "train":
        beside = [base.with_name(base.name + ending) for ending in ENDINGS]
        groups = {str(path): [path] for path in beside if path.is_file()}
    if len(groups) > 1:
        names = ", ".join(str(paths[0]) for paths in groups.values())
        raise DataError(
            f"split '{stored}' of {folder} lies there more than once: {names}",
            where=str(base),
            fix="keep one of them",
        )
    files = next(iter(groups.values()), [])
    _check_shards(files)
    return files


def _ending(name: str) -> str:
    """Returns the longest known ending of a file name, or ""."""
    return max((e for e in ENDINGS if name.endswith(e)), key=len, default="")


def _check_shards(files: list[Path]) -> None:
    """Raises DataError if shards are missing or two sets of them are mixed."""
    found = [match for path in files if (match := _SHARD.search(path.name))]
    if not found:
        return
    numbers = [int(match[1]) for match in found]
    total = int(found[0][2])
    if numbers != list(range(total)) or {int(match[2]) for match in found} != {total}:
        raise DataError(
            f"{len(files)} shards lie there, not one each of {total}",
            where=str(files[0].parent),
            fix="copy the missing shards, or remove those of another set",
        )


def _identified(files: Iterable[Path]) -> Iterator[tuple[str, Row]]:
    for path in files:
        for number, row in read_file(path):
            yield f"{path.name}:{number}", row


def _file_identity(path: Path) -> Any:
    large = path.stat().st_size > HASHED_BYTES
    return file_times(path) if large else file_digest(path)


def _parse(part: str, folder: str) -> tuple[str, int | None, int | None]:
    """Splits "train[:-200]" into ("train", None, -200)."""
    match = _PART.fullmatch(part)
    if not match:
        raise ConfigError(
            f"cannot read the part '{part}'",
            where=f"source {folder}",
            fix='write "train", "train[:-200]" or "train[200:400]"',
        )
    start, stop = (int(n) if n else None for n in (match["start"], match["stop"]))
    return match["split"], start, stop


def cut(rows: Iterator[Any], start: int | None, stop: int | None) -> Iterator[Any]:
    """Yields what `list(rows)[start:stop]` holds, keeping no more than is counted back.

    Args:
      rows: any number of them.
      start: first row; negative counts from the end.
      stop: row after the last; negative counts from the end.
    """
    if start is not None and start < 0:
        tail = deque(enumerate(rows), maxlen=-start)
        total = tail[-1][0] + 1 if tail else 0
        last = slice(stop).indices(total)[1]
        yield from (row for number, row in tail if number < last)
    elif stop is None or stop >= 0:
        yield from itertools.islice(rows, start, stop)
    else:
        waiting: deque[Any] = deque()
        for row in itertools.islice(rows, start, None):
            waiting.append(row)
            if len(waiting) > -stop:
                yield waiting.popleft()


def sample(rows: Iterator[Row], size: int, seed: str) -> Iterator[Row]:
    """Yields `size` rows drawn evenly, in their order; holds no more than those.

    Algorithm R (Vitter 1985, "Random sampling with a reservoir").
    """
    rng = random.Random(seed)
    kept: list[tuple[int, Row]] = []
    for number, row in enumerate(rows):
        if number < size:
            kept.append((number, row))
        elif (place := rng.randrange(number + 1)) < size:
            kept[place] = (number, row)
    kept.sort(key=lambda pair: pair[0])
    yield from (row for _, row in kept)
