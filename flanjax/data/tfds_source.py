"""Datasets that TensorFlow Datasets has prepared on this machine, as rows.

    prepared = find_prepared("super_glue/rte:1.0.2")
    for row_id, row in read_prepared(prepared, "train", None, -200): ...

A name is `dataset`, `dataset/config` or `huggingface:dataset/config`, with or without
`:version`. Nothing is ever downloaded, and the code that built a dataset is not
needed: TFDS keeps with the data what reading it takes.

Preparing is TFDS's own command, on any machine with a network:

    pip install tensorflow-datasets mlcroissant importlib_resources
    tfds build super_glue/rte:1.0.2 --data_dir=...

The last two packages are imported by the command of TFDS 4.9.10, which does not ask for
them. Names that begin with "huggingface:" take the package `datasets` too.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flanjax.data.identity import digest, file_digest
from flanjax.data.readers import Row
from flanjax.errors import DataError, nearest

_INFO = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SCHEME = "huggingface:"


def tfds_roots(data_root: Path) -> list[Path]:
    """Returns the folders searched: `tfds` below the data root, then TFDS's own."""
    own = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return [data_root / "tfds", Path(own)]


def prepared_places(name: str, roots: list[Path]) -> list[Path]:
    """Returns the folders where a prepared dataset may lie, version included."""
    dataset, version = _parts(name)
    return [root / dataset / (version or "<version>") for root in roots]


def find_prepared(name: str, roots: list[Path]) -> Path | None:
    """Returns the folder of a prepared dataset, or None if there is none.

    Without a version the highest one is taken; without a config the only one that is
    prepared.
    """
    dataset, version = _parts(name)
    for root in roots:
        found = _versions(root / dataset)
        if not found and "/" not in dataset and (root / dataset).is_dir():
            configs = filter(None, map(_versions, sorted((root / dataset).iterdir())))
            first, *others = [*configs, []]
            found = [] if any(others) else first
        found = [each for each in found if version in ("", each.name)]
        if found:
            return found[-1]
    return None


def _parts(name: str) -> tuple[str, str]:
    """Splits a name into its path below a root and its version."""
    hosted = name.startswith(_SCHEME)
    dataset, _, version = name.removeprefix(_SCHEME).partition(":")
    if hosted:  # TFDS names what it takes from there so: conversion_utils.to_tfds_name.
        dataset = re.sub(r"[^\w/]", "_", dataset.lower())
    return dataset, version


def _versions(folder: Path) -> list[Path]:
    """Returns the version folders that hold a finished dataset, lowest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _VERSION.fullmatch(p.name)]
    found = [path for path in found if (path / _INFO).is_file()]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))


def prepared_fingerprint(folder: Path, split: str) -> str:
    """Returns a digest of what TFDS notes about a dataset; reads no example.

    Raises:
      DataError: there is no such split.
    """
    _split_info(folder, split)
    notes = [file_digest(folder / name) for name in (_INFO, "features.json")]
    return digest(folder.parts[-3:], split, notes)


def _split_info(folder: Path, split: str) -> dict[str, Any]:
    content = json.loads((folder / _INFO).read_text(encoding="utf-8"))
    splits = {each["name"]: each for each in content.get("splits", [])}
    if split not in splits:
        raise DataError(
            f"no split '{split}'; there are {', '.join(splits) or 'none'}."
            f"{nearest(split, splits)}",
            where=str(folder),
            fix="name one of these in the source's `parts`",
        )
    return splits[split]


def read_prepared(
    folder: Path, split: str, start: int | None, stop: int | None
) -> Iterator[tuple[str, Row]]:
    """Yields (id, row) in the order of the files.

    Args:
      folder: as `find_prepared` returns it.
      split: name of a stored split.
      start: first row, as in a Python slice.
      stop: row after the last, as in a Python slice.

    Yields:
      TFDS's id of the example ("super_glue-train.tfrecord-00000-of-00001__17") and its
      features: texts as str, labels as int, sequences as lists, nested as stored.

    Raises:
      DataError: there is no such split, or its files cannot be read.
    """
    info = _split_info(folder, split)
    size = sum(int(length) for length in info.get("shardLengths", []))
    first, last, _ = slice(start, stop).indices(size)
    if first >= last:
        return
    import tensorflow as tf  # Seconds; whoever only asks what is there does without.
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        dataset = builder.as_dataset(
            split=tfds.core.ReadInstruction(split, from_=first, to=last, unit="abs"),
            shuffle_files=False,
            # One file after the other: the order of rows must not vary.
            read_config=tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1),
        )
        for example in tfds.as_numpy(dataset):
            row = _plain(example, str(folder))
            yield row.pop("tfds_id"), row
    except (tf.errors.OpError, ValueError, OSError, NotImplementedError) as error:
        raise DataError(
            f"TFDS cannot read split '{split}': {error}",
            where=str(folder),
            fix="prepare the dataset again (`tfds build`)",
        ) from error


def _plain(value: Any, where: str) -> Any:
    """Returns what TFDS gives as Python values."""
    if isinstance(value, dict):
        return {key: _plain(each, where) for key, each in value.items()}
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 text: {value[:40]!r}",
                where=where,
                fix="leave the dataset out, or prepare it with its text decoded",
            ) from error
    if hasattr(value, "to_list"):  # A ragged array.
        return _plain(value.to_list(), where)
    if hasattr(value, "tolist"):  # An array or a NumPy scalar.
        return _plain(value.tolist(), where)
    if isinstance(value, list):
        return [_plain(each, where) for each in value]
    return value
