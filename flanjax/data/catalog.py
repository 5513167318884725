"""The catalogue: which collections there are, and how many tasks each is said to have.

    add_collection(Collection(
        "mine", paper=3, table=3, code=3, note="three by hand",
        listed=lambda: ("a", "b", "c"), bases=lambda: {"a": ("a_zs_opt",)},
        source_of=lambda task: instruction_task(task).source))
    count_collections()[0].registered     # 1

A collection is counted in several ways, which differ in the literature: what a paper
says, what a public table lists, what public code holds; beside them stand what is
listed and registered here, and of how much of it there is data on this machine.
Counting reads tables and looks for files; it opens none of the data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flanjax.data.sources import Source
from flanjax.errors import ConfigError, DataError


@dataclass(frozen=True)
class Collection:
    """A collection of tasks.

    Attributes:
      name: "niv2".
      paper: number of tasks that the paper says it has.
      table: rows of the public table of tasks, each use of a dataset (turned around,
        say) a row.
      code: tasks that the public code holds.
      note: where these numbers are from.
      listed: returns the bases of the tasks that tables here list.
      bases: returns base -> names of its SeqIO tasks, of what is registered.
      source_of: SeqIO task's name -> where its rows come from.
    """

    name: str
    paper: int
    table: int
    code: int
    note: str
    listed: Callable[[], Sequence[str]]
    bases: Callable[[], Mapping[str, Sequence[str]]]
    source_of: Callable[[str], Source]


@dataclass(frozen=True)
class CollectionCount:
    """A collection, counted.

    Attributes:
      name: of the collection.
      paper: see `Collection`.
      listed: tasks that tables here list.
      registered: those of them that are registered.
      present: those of them with training data on this machine.
      table: see `Collection`.
      code: see `Collection`.
      note: see `Collection`.
    """

    name: str
    paper: int
    listed: int
    registered: int
    present: int
    table: int
    code: int
    note: str


_COLLECTIONS: dict[str, Collection] = {}


def add_collection(collection: Collection) -> None:
    """Registers a collection; ConfigError if its name is taken."""
    if collection.name in _COLLECTIONS:
        raise ConfigError(
            f"a collection named '{collection.name}' exists already",
            fix="choose another name",
        )
    _COLLECTIONS[collection.name] = collection


def count_collections() -> list[CollectionCount]:
    """Counts every registered collection, in order of registration."""
    return [_count(collection) for collection in _COLLECTIONS.values()]


def _count(collection: Collection) -> CollectionCount:
    listed, bases = collection.listed(), collection.bases()
    registered = [base for base in listed if bases.get(base)]
    present = [b for b in registered if has_data(collection.source_of(bases[b][0]))]
    return CollectionCount(
        collection.name,
        collection.paper,
        len(listed),
        len(registered),
        len(present),
        collection.table,
        collection.code,
        collection.note,
    )


def has_data(source: Source, split: str = "train") -> bool:
    """Whether the data of a split seems to be on this machine; opens no file.

    Sources that know (`present(split)`) are asked, of others the place must exist.
    """
    try:
        present = getattr(source, "present", None)
        if present is not None:
            return present(split)
        # A file inside an archive is written archive!member.
        return Path(source.where(split).split("!")[0]).exists()
    except (ConfigError, DataError):
        return False
