"""The prepared store: tokenised examples, their lengths, and the resolved mixture.

    resolved = ResolvedMixture.load(path)
    store = TaskStore(Path(store_dir) / resolved.members[0].path)
    store.lengths[:2]          # [[57, 3], [120, 4]]: tokens of inputs and targets
    store.read([0, 1])         # the two examples, with their provenance

On disk, written by `flanjax.data.prepare` and read without TensorFlow:

    tasks/<task>/<split>-<fp>/info.json            counts, fingerprint, provenance
                              lengths.npy          int32 [n, 2], without EOS
                              tokens.bin           token ids, see flanjax.data.tokens
                              meta.array_record    one msgpack map per example
    mixtures/<mixture>-<fp>.json                   ResolvedMixture
    index/<key>.npy                                lengths of all its members, a cache
    plans/<fingerprint>.rows                       rows of the blocks of a plan, a cache
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgpack
import numpy as np
from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue] (in C++)
)

from flanjax.data.identity import Stamp, change_of
from flanjax.data.index import mixture_lengths
from flanjax.data.plan import PlanMember
from flanjax.data.tokens import (
    TOKENS_FILE,
    TokenFiles,
    damaged,
    record,
    record_words,
)
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import DataError, UserError

STORE_VERSION = 3
# Random access: no read-ahead. Otherwise every lookup would read megabytes.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_WRITER_OPTIONS = "group_size:1"
_META_FILE = "meta.array_record"
_PREPARE_AGAIN = "run `flanjax data prepare` again"


@dataclasses.dataclass(frozen=True)
class Example:
    """A tokenised example before trimming and EOS, with where it came from.

    Attributes:
      inputs: int32 [n] token ids.
      targets: int32 [m] token ids.
      meta: row_id, template_id, prompt_type, shot_ids, choices, task_name,
        inputs_pretokenized, targets_pretokenized, as far as the task gives them.
    """

    inputs: np.ndarray
    targets: np.ndarray
    meta: dict


class TaskStore:
    """The examples of one prepared task and split.

    Args:
      directory: `tasks/<task>/<split>-<fp>` of a store.

    Raises:
      DataError: something of it is missing or damaged.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        try:
            self.info = json.loads((self.directory / "info.json").read_text())
            self.lengths = np.load(self.directory / "lengths.npy")
        except (OSError, ValueError) as error:
            raise DataError(
                f"prepared task is missing or damaged: {error}",
                where=str(self.directory),
                fix=_PREPARE_AGAIN,
            ) from error
        self._words = record_words(self.lengths)
        self._starts = np.cumsum(self._words) - self._words
        self._files = TokenFiles([str(self.directory / TOKENS_FILE)])
        self._reader = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Example]:
        """Reads examples by index, in the order asked for, from any thread."""
        wanted = [int(index) for index in indices]
        if not wanted:
            return []
        starts, words = self._starts[wanted].tolist(), self._words[wanted].tolist()
        tokens = [
            np.frombuffer(data, "<i4")
            for data in self._files.read([0] * len(wanted), starts, words)
        ]
        inputs = self.lengths[wanted, 0].tolist()
        return [
            Example(ids[:count], ids[count:-1], meta)
            for ids, count, meta in zip(tokens, inputs, self._meta(wanted), strict=True)
        ]

    def _meta(self, indices: list[int]) -> list[dict]:
        path = self.directory / _META_FILE
        try:
            with self._lock:
                if self._reader is None:
                    self._reader = array_record_module.ArrayRecordReader(
                        str(path),
                        options=_READER_OPTIONS,
                        file_reader_buffer_size=32768,
                    )
            return [msgpack.unpackb(data) for data in self._reader.read(indices)]
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise damaged(path, str(error)) from error


class TaskWriter:
    """Writes the files of one prepared task into a directory that exists."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._lengths: list[tuple[int, int]] = []
        self._tokens = open(directory / TOKENS_FILE, "wb")
        path = directory / _META_FILE
        self._meta = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)

    def __del__(self):
        # A task that fails halfway never comes to `finish`.
        with contextlib.suppress(OSError):
            self._tokens.close()

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, example: Example) -> None:
        """Appends an example."""
        self._tokens.write(record(example.inputs, example.targets))
        self._meta.write(cast(bytes, msgpack.packb(example.meta)))
        self._lengths.append((len(example.inputs), len(example.targets)))

    def finish(self, info: dict) -> dict:
        """Closes the files and writes `info` with the counts; returns what it wrote."""
        self._tokens.close()
        self._meta.close()
        lengths = np.array(self._lengths, np.int32).reshape(-1, 2)
        np.save(self._directory / "lengths.npy", lengths)
        info = {
            **info,
            "version": STORE_VERSION,
            "num_examples": len(lengths),
            "inputs_tokens": int(lengths[:, 0].sum()),
            "targets_tokens": int(lengths[:, 1].sum()),
        }
        (self._directory / "info.json").write_text(json.dumps(info, indent=1))
        return info


class OpenStores:
    """Task stores of one store directory, the recently used ones kept open.

    A mixture may have thousands of tasks; each open one holds a file.
    """

    def __init__(self, store_dir: str | os.PathLike, limit: int = 256):
        self._store_dir, self._limit = Path(store_dir), limit
        self._open: OrderedDict[str, TaskStore] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> TaskStore:
        """Returns the store of a member or eval entry by its `path`."""
        with self._lock:
            if path not in self._open:
                self._open[path] = TaskStore(self._store_dir / path)
            self._open.move_to_end(path)
            while len(self._open) > self._limit:
                self._open.popitem(last=False)
            return self._open[path]


@dataclasses.dataclass(frozen=True)
class Member:
    """One task of a resolved mixture.

    Attributes:
      name: SeqIO task name.
      rate: relative weight as the mixture gives it, inside its own parent.
      share: fraction of all examples; the shares of a mixture sum to 1.
      cap: the most examples that count for the rate, or None.
      num_examples: examples in the store.
      path: directory in the store, relative to it.
      fingerprint: hash of everything the examples depend on.
      info: what info.json says (collection, dataset, category, templates, tokens...).
    """

    name: str
    rate: float
    share: float
    cap: int | None
    num_examples: int
    path: str
    fingerprint: str
    info: dict


@dataclasses.dataclass(frozen=True)
class EvalEntry:
    """An evaluation's prepared examples; `spec` is EvalSpec as JSON."""

    spec: dict
    path: str
    fingerprint: str
    num_examples: int


@dataclasses.dataclass(frozen=True)
class ResolvedMixture:
    """All that training and evaluation need to know of a mixture.

    Attributes:
      version: of this format.
      name: mixture or task name.
      vocabulary: {"spec", "fingerprint", "size"}.
      seed: seed of preparation.
      passes: how often each row was rendered.
      members: the training tasks.
      validation: the validation splits of those that have one.
      evals: prepared evaluations.
      files: path -> stamp of the files that define it (`flanjax.data.identity`); a
        change makes it stale.
      missing: what was left out: {"task", "split", "what"}.
    """

    version: int
    name: str
    vocabulary: dict
    seed: int
    passes: int
    members: tuple[Member, ...]
    validation: tuple[Member, ...]
    evals: tuple[EvalEntry, ...]
    files: dict[str, Stamp]
    missing: tuple[dict, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of the training data: members, shares and vocabulary."""
        parts = [
            self.version,
            self.vocabulary["fingerprint"],
            [(m.name, m.fingerprint, float(m.share).hex()) for m in self.members],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def save(self, path: str | os.PathLike) -> None:
        """Writes JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        data = {**dataclasses.asdict(self), "fingerprint": self.fingerprint}
        temporary.write_text(json.dumps(data, indent=1))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ResolvedMixture":
        """Reads JSON.

        Raises:
          DataError: missing, damaged, or written by another version.
        """
        try:
            data = json.loads(Path(path).read_text())
            if data["version"] != STORE_VERSION:
                raise ValueError(f"format version {data['version']}")
            data.pop("fingerprint")
            data["members"] = tuple(Member(**m) for m in data["members"])
            data["validation"] = tuple(Member(**m) for m in data["validation"])
            data["evals"] = tuple(EvalEntry(**e) for e in data["evals"])
            data["missing"] = tuple(data["missing"])
            return cls(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"cannot read resolved mixture: {error}",
                where=str(path),
                fix=_PREPARE_AGAIN,
            ) from error


def plan_members(
    members: Sequence[Member], store_dir: str | os.PathLike
) -> list[PlanMember]:
    """Returns what a `Plan` needs of stored members: names, lengths, shares."""
    lengths = mixture_lengths(members, store_dir)
    return [
        PlanMember(member.name, each, member.share, member.fingerprint)
        for member, each in zip(members, lengths, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and where.

    Attributes:
      mixture: name of a SeqIO mixture or task.
      mixture_modules: Python modules that register it, e.g. ("mixtures.starter",).
      vocabulary: as `flanjax.data.vocabulary.load_vocabulary` takes it.
      store_dir: directory of the store; made if missing.
      evals: names of evaluations or suites to prepare with it.
      split: training split.
      validation_split: taken from the members that have it.
      seed: of every random choice of the rendering.
      passes: how often each row is rendered, with other templates and shots.
      num_workers: processes; each imports TensorFlow.
      max_validation_examples: of each member at most.
      allow_missing: leave out tasks whose source cannot load, instead of stopping.
      faithful: defects of FLAN's public code to reproduce
        (`flanjax.data.faithful.SWITCHES`).
    """

    mixture: str
    mixture_modules: tuple[str, ...]
    vocabulary: str
    store_dir: str
    evals: tuple[str, ...] = ()
    split: str = "train"
    validation_split: str = "validation"
    seed: int = 0
    passes: int = 1
    num_workers: int = 1
    max_validation_examples: int = 64
    allow_missing: bool = False
    faithful: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("mixture_modules", "evals", "faithful"):
            value = getattr(self, name)
            names = (value,) if isinstance(value, str) else tuple(value)
            object.__setattr__(self, name, names)


def resolved_path(config: PrepareConfig) -> Path:
    """Returns where `prepare(config)` puts the resolved mixture."""
    parts = dataclasses.asdict(config)
    for name in ("store_dir", "num_workers"):
        del parts[name]
    text = json.dumps(parts, sort_keys=True)
    name = f"{config.mixture}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    return Path(config.store_dir) / "mixtures" / name


def is_fresh(path: str | os.PathLike) -> tuple[bool, str]:
    """Says whether a resolved mixture can be used as it is, and if not, why.

    Looks at the files that define it (mixture modules, templates, flanjax's own
    rendering code), the vocabulary, and the prepared directories; no TensorFlow. Data
    that were missing and left out, and are there now, only preparing again notices.

    Args:
      path: what `resolved_path` returned.

    Returns:
      (True, "nothing has changed") or (False, the reason).
    """
    path = Path(path)
    if not path.exists():
        return False, "it was not prepared yet"
    try:
        resolved = ResolvedMixture.load(path)
        vocabulary = load_vocabulary(resolved.vocabulary["spec"])
    except UserError as error:
        return False, error.what
    if vocabulary.fingerprint() != resolved.vocabulary["fingerprint"]:
        return False, f"vocabulary {vocabulary.spec} has changed"
    for name, stamp in resolved.files.items():
        if change := change_of(name, stamp):
            return False, f"{name} {change}"
    for entry in (*resolved.members, *resolved.validation, *resolved.evals):
        if not (path.parent.parent / entry.path / "info.json").exists():
            return False, f"{entry.path} is missing from the store"
    return True, "nothing has changed"
