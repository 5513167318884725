"""Prepares one task and split: SeqIO's examples at its cache point, into the store.

    job = make_job(task, "train", vocabulary, seed=0)
    info = prepare_task(job, task, "store", progress=print)
    TaskStore(Path("store") / job.path).read([0])

The directory's name holds a fingerprint of all that the examples depend on, so what is
there is never made again, and a change makes another directory. It is written elsewhere
and moved at the end: a killed run leaves nothing that looks whole. Equal inputs give
equal bytes, on any machine: no times and no paths are in it.
`task` is a `seqio.Task`; nothing here imports SeqIO or TensorFlow itself.
"""

import dataclasses
import functools
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.data.identity import digest, file_digest, function_identity
from flanjax.data.scratch import is_whole, publish, scratch_directory
from flanjax.data.store import STORE_VERSION, Example, TaskWriter
from flanjax.data.vocabulary import Vocabulary
from flanjax.errors import ConfigError, DataError, UserError

# Another pass is another seed; far apart, for SeqIO adds small numbers to it.
_PASS_SEED_STEP = 1_000_003
_SECONDS_BETWEEN_MESSAGES = 5.0
# Of `task_info`: what JSON cannot write, and what differs between machines.
_NOT_KEPT = ("fingerprint", "where", "template_file")
# Where following imports begins for `rendering_code`.
_RENDERS = ("tasks", "located", "natural_instructions")
_IMPORT = re.compile(r"^\s*from flanjax\.data\.(\w+) import", re.MULTILINE)


class ChangedError(DataError):
    """What a job was made for is no longer there; nothing that may be left out."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One directory of the store to make.

    Attributes:
      task: SeqIO task name.
      split: of the task.
      seed: of the first pass.
      passes: times each row is rendered.
      limit: examples at most, a seeded sample; None takes all.
      fingerprint: of everything the examples depend on.
    """

    task: str
    split: str
    seed: int
    passes: int
    limit: int | None
    fingerprint: str

    @property
    def path(self) -> str:
        """Directory inside the store."""
        return f"tasks/{self.task}/{self.split}-{self.fingerprint[:12]}"

    def __str__(self) -> str:
        return f"{self.task} {self.split}"


def make_job(
    task: Any,
    split: str,
    vocabulary: Vocabulary,
    info: dict,
    seed: int = 0,
    passes: int = 1,
    limit: int | None = None,
) -> Job:
    """Fingerprints a task's split; reads its source, but renders nothing.

    Args:
      task: a `seqio.Task`.
      split: of it.
      vocabulary: that the run uses.
      info: `flanjax.data.tasks.task_info`, or {} for a task from elsewhere.
      seed: of every random choice.
      passes: times each row is rendered.
      limit: examples at most.

    Raises:
      DataError: no such split, a source that cannot be read, a bad template.
      ConfigError: the task cannot be prepared for this vocabulary.
    """
    if split not in task.splits:
        raise DataError(
            f"there is no split '{split}', only {', '.join(task.splits)}",
            where=f"task {task.name}",
            fix="name one of these splits",
        )
    _check_task(task, vocabulary)
    content = info["fingerprint"](split) if info else _foreign_identity(task, split)
    settings = [STORE_VERSION, task.name, split, seed, passes, limit]
    fingerprint = digest(content, _code(), settings, _fingerprint(vocabulary))
    return Job(task.name, split, seed, passes, limit, fingerprint)


@functools.cache
def _fingerprint(vocabulary: Vocabulary) -> str:
    return vocabulary.fingerprint()  # Of megabytes, for thousands of task splits.


@functools.cache
def _code() -> str:
    return digest([file_digest(path) for path in rendering_code()])


@functools.cache
def rendering_code() -> tuple[Path, ...]:
    """Returns flanjax's files that decide what examples are: part of fingerprints."""
    found, queue = {Path(__file__)}, [*_RENDERS]
    while queue:
        path = Path(__file__).with_name(f"{queue.pop()}.py")
        if path not in found:
            found.add(path)
            queue += _IMPORT.findall(path.read_text(encoding="utf-8"))
    return tuple(sorted(found))


def prepare_task(
    job: Job,
    task: Any,
    vocabulary: Vocabulary,
    info: dict,
    store_dir: str | os.PathLike,
    progress: Callable[[str], None],
) -> dict:
    """Makes the job's directory unless it is there; returns its info.json.

    Args:
      job: from `make_job`.
      task: its `seqio.Task`.
      vocabulary: that the run uses.
      info: `flanjax.data.tasks.task_info`, or {}; kept in info.json.
      store_dir: the store.
      progress: told every few seconds how far it is.

    Raises:
      DataError: the pipeline failed, or gave no examples.
      ChangedError: its files are not those the job was made for.
    """
    final = Path(store_dir) / job.path
    if is_whole(final):
        return json.loads((final / "info.json").read_text())
    with scratch_directory(store_dir) as folder:
        writer = TaskWriter(folder)
        _write(writer, job, task, vocabulary, info, progress)
        now = make_job(
            task, job.split, vocabulary, info, job.seed, job.passes, job.limit
        )
        if now != job:
            raise ChangedError(
                "its source, a template or the code changed while it was prepared, or "
                "this machine has others than the one that began",
                where=f"task {job.task}, split {job.split}",
                fix="run `flanjax data prepare` again",
            )
        kept = {key: info[key] for key in info if key not in _NOT_KEPT}
        written = writer.finish({**kept, **dataclasses.asdict(job)})
        publish(folder, final)
    return written


def _write(
    writer: TaskWriter,
    job: Job,
    task: Any,
    vocabulary: Vocabulary,
    info: dict,
    progress: Callable[[str], None],
) -> None:
    told = time.monotonic()
    for number in range(job.passes):
        seed = job.seed + number * _PASS_SEED_STEP
        # Tasks of flanjax need no TensorFlow to give what SeqIO would cache.
        made = _plain_examples(task, job, vocabulary, seed) if info else None
        for example in made or _examples(task, job, seed):
            if job.limit is not None and len(writer) >= job.limit:
                return
            example.meta["pass"] = number
            writer.add(example)
            if time.monotonic() - told > _SECONDS_BETWEEN_MESSAGES:
                told = time.monotonic()
                progress(f"  {job.task} {job.split}: {len(writer):,} examples so far")
    if not len(writer):
        raise _empty(job, task, info)


def _empty(job: Job, task: Any, info: dict) -> DataError:
    """Returns the error for a task whose rows are there, but none became an example."""
    what, fix = "no example is left after preprocessing", "check the source's rows"
    if info.get("few_shot"):
        shortest = task.source.shortest_prompt(job.split)
        what = (
            f"no exemplar fits into its few-shot budget of "
            f"{info['few_shot']['max_tokens']:,} tokens; the shortest query with one "
            f"exemplar has {shortest:,}"
        )
        fix = "raise max_tokens of its FewShot, or leave the few-shot form out"
    return DataError(what, where=f"task {job.task}, split {job.split}", fix=fix)


def _examples(task: Any, job: Job, seed: int) -> Iterator[Example]:
    """Yields what SeqIO would cache, in the source's order unless it is a sample."""
    where = f"task {job.task}, split {job.split}"
    try:
        shuffle = job.limit is not None
        dataset = task.source.get_dataset(split=job.split, shuffle=shuffle, seed=seed)
        dataset = task.preprocess_precache(dataset, seed=seed)
        for features in dataset.as_numpy_iterator():
            yield Example(
                inputs=_tokens(features.pop("inputs", np.zeros(0, np.int32)), where),
                targets=_tokens(features.pop("targets"), where),
                meta={key: _plain(value) for key, value in features.items()},
            )
    except (UserError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        # TensorFlow wraps whatever a preprocessor raised in pages of graph trace.
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise DataError(
            f"preprocessing failed: {type(error).__name__}: {lines[0]}",
            where=where,
            fix="correct the task's preprocessors or its data",
        ) from error


def _plain_examples(
    task: Any, job: Job, vocabulary: Vocabulary, seed: int
) -> Iterator[Example]:
    """Yields the same for a task of flanjax, twenty times as fast."""
    chunks = task.source.plain_examples(job.split, job.limit is not None, seed)
    for chunk in chunks:
        inputs = vocabulary.encode_batch([e["inputs"] for e in chunk])
        targets = vocabulary.encode_batch([e["targets"] for e in chunk])
        for example, source, target in zip(chunk, inputs, targets, strict=True):
            meta = {key: _plain_text(value) for key, value in example.items()}
            for name in ("inputs", "targets"):
                meta[f"{name}_pretokenized"] = meta.pop(name)
            yield Example(np.array(source, np.int32), np.array(target, np.int32), meta)


def _plain_text(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)


def _tokens(value: np.ndarray, where: str) -> np.ndarray:
    tokens = np.asarray(value)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise DataError(
            f"a feature has {tokens.ndim} dimensions of {tokens.dtype}, not token ids",
            where=where,
            fix="tokenise it before seqio.CacheDatasetPlaceholder()",
        )
    return tokens.astype(np.int32)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _check_task(task: Any, vocabulary: Vocabulary) -> None:
    """The task must stop at a cache point, and tokenise as the run does."""
    if not task.supports_caching:
        raise ConfigError(
            "the task has no seqio.CacheDatasetPlaceholder()",
            where=f"task {task.name}",
            fix="put one behind seqio.preprocessors.tokenize",
        )
    probe = "Is 12.5 more than seven?\nOPTIONS: (A) yes"
    theirs = task.output_features["targets"].vocabulary
    ours = [vocabulary.eos_id, *vocabulary.encode(probe)]
    if [theirs.eos_id, *theirs.encode(probe)] != ours:
        raise ConfigError(
            f"the task's vocabulary is {theirs}, the run's is {vocabulary.spec}",
            where=f"task {task.name}",
            fix="set the run's vocabulary to the task's, or give the task's features "
            "flanjax.data.seqio_vocabulary.LazyVocabulary()",
        )


def _foreign_identity(task: Any, split: str) -> str:
    """Fingerprints a SeqIO task that flanjax did not make, as far as can be seen.

    Files by content, functions by their text; of a TFDS source name and version.
    """
    source = task.source
    names = ("_dataset_fn", "_reader_fn", "_read_file_fn")
    functions = [getattr(source, name, None) for name in names]
    before_cache = itertools.takewhile(
        lambda step: type(step).__name__ != "CacheDatasetPlaceholder",
        task.preprocessors,
    )
    steps = [*functions, *before_cache]
    return digest(
        type(source).__qualname__,
        [function_identity(step) for step in steps],
        str(getattr(source, "tfds_dataset", "")) and str(source),
        [
            file_digest(Path(shard))
            for shard in source.list_shards(split)
            if Path(shard).is_file()
        ],
        source.num_input_examples(split),
    )
