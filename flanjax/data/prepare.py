"""Prepares a mixture once: what `flanjax data prepare` runs, and nothing else does.

    path = prepare(PrepareConfig("quick", ("mixtures.starter",), "bytes", "store"))
    ResolvedMixture.load(path).members[0].share

Each member task (and validation split, and evaluation) becomes a directory of the
store; what is there already is kept. At the end the resolved mixture is written, a
small JSON with members, shares and the hashes of the files that define them: all that
training and evaluation read. This module imports TensorFlow, and takes that long.
"""

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import seqio
import tensorflow as tf

from flanjax.data.faithful import active, set_faithful
from flanjax.data.identity import Stamp, file_digest, recorded_files
from flanjax.data.mixing import Node, TaskShare, read_tree, resolve_shares
from flanjax.data.prepare_task import (
    ChangedError,
    Job,
    make_job,
    prepare_task,
    rendering_code,
)
from flanjax.data.problems import Problem, listed, refusal
from flanjax.data.scratch import is_whole, remove_leftovers, scratch_directory
from flanjax.data.seqio_vocabulary import set_default_vocabulary
from flanjax.data.store import (
    STORE_VERSION,
    EvalEntry,
    Member,
    PrepareConfig,
    ResolvedMixture,
    resolved_path,
)
from flanjax.data.tasks import import_mixtures, task_info, task_names
from flanjax.data.vocabulary import Vocabulary, load_vocabulary
from flanjax.data.watch import Watch
from flanjax.data.workers import Died, run_in_processes
from flanjax.errors import ConfigError, DataError, nearest
from flanjax.eval.suites import EvalSpec, resolve_evals, to_json

# Evaluation and validation examples do not follow the run's seed: scores of runs with
# different seeds are then on the same prompts.
_EVAL_SEED = 0
_TRAINING, _VALIDATION = "training", "validation"
_SECONDS_BETWEEN_MESSAGES = 5.0
_DIED = "use fewer processes (num_workers), or give them more memory, and run it again"
_vocabulary = functools.lru_cache(maxsize=1)(load_vocabulary)


def prepare(
    config: PrepareConfig,
    progress: Callable[[str], None] = print,
    runner: str | None = None,
    runner_options: str = "",
) -> Path:
    """Prepares everything a run needs; quick when nothing has changed.

    Args:
      config: what, and where to.
      progress: told every few seconds how far it is.
      runner: name of a Beam runner that does the work instead of this machine's
        processes; see `flanjax.data.beam`.
      runner_options: for it, "--project=p --region=r".

    Returns:
      Path of the resolved mixture.

    Raises:
      ConfigError: unknown mixture, task, evaluation, module, vocabulary or runner.
      DataError: sources that cannot load (all of them, in one list), a rate that is
        not positive.
    """
    vocabulary, switches = _vocabulary(config.vocabulary), active()
    try:
        _load(config)
        root = read_tree(config.mixture, seqio.TaskRegistry, seqio.MixtureRegistry)
        specs = resolve_evals(config.evals)
        known = seqio.TaskRegistry.names()
        for spec in specs:
            _known(spec.task, known, "task", f"eval '{spec.name}'")
        remove_leftovers(config.store_dir)
        needed = _needed(config, root, specs, progress)
        made = _run(needed, config, progress, runner, runner_options)
    finally:
        remove_leftovers(config.store_dir)
        set_faithful(switches)
    _stop_or_leave_out(needed.problems, config.allow_missing, progress)
    resolved = _resolve(config, root, specs, needed, made, vocabulary)
    path = resolved_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_directory(config.store_dir) as folder:
        resolved.save(folder / path.name)
        os.replace(folder / path.name, path)
    return path


def _resolve(
    config: PrepareConfig,
    root: Node,
    specs: Sequence[EvalSpec],
    needed: "_Needed",
    made: dict[Job, dict],
    vocabulary: Vocabulary,
) -> ResolvedMixture:
    """Puts shares and directories together."""
    jobs = {key: job for key, job in needed.jobs.items() if job in made}
    names = [task.name for task in root.tasks()]
    examples = {
        name: made[jobs[_TRAINING, name]]["num_examples"]
        for name in names
        if (_TRAINING, name) in jobs
    }
    shares = resolve_shares(root, examples)
    validation = [s for s in shares if (_VALIDATION, s.name) in jobs]
    return ResolvedMixture(
        version=STORE_VERSION,
        name=config.mixture,
        vocabulary={
            "spec": config.vocabulary,
            "fingerprint": vocabulary.fingerprint(),
            "size": vocabulary.size,
        },
        seed=config.seed,
        passes=config.passes,
        members=tuple(_member(s, jobs[_TRAINING, s.name], made) for s in shares),
        validation=tuple(
            _member(s, jobs[_VALIDATION, s.name], made) for s in validation
        ),
        evals=tuple(
            _entry(spec, jobs[spec, spec.task], made)
            for spec in specs
            if (spec, spec.task) in jobs
        ),
        files=dict(sorted((_module_files(config) | needed.files).items())),
        missing=tuple(
            {"task": p.task, "split": p.split, "what": p.what} for p in needed.problems
        ),
    )


def _load(config: PrepareConfig) -> None:
    """Registers tasks and makes the run's choices known, in this process."""
    tf.config.set_visible_devices([], "GPU")
    import_mixtures(config.mixture_modules)
    set_default_vocabulary(config.vocabulary)
    set_faithful(config.faithful)


def _known(name: str, known: Collection[str], what: str, where: str | None) -> None:
    if name not in known:
        raise ConfigError(
            f"unknown {what} '{name}'.{nearest(name, known)}",
            where=where,
            fix="name one that a module of `mixture_modules` registers",
        )


def _info(task: str) -> dict:
    """What flanjax knows about a task; {} for a SeqIO task from elsewhere."""
    return task_info(task) if task in task_names() else {}


def _wanted(
    config: PrepareConfig, root: Node, specs: Sequence[EvalSpec]
) -> Iterator[tuple[Any, str, str, dict]]:
    """Yields (use, task, split, settings); use: _TRAINING, _VALIDATION or a spec."""
    names = [task.name for task in root.tasks()]
    training = {"seed": config.seed, "passes": config.passes}
    for name in names:
        yield _TRAINING, name, config.split, training
    held_out = {"seed": _EVAL_SEED, "limit": config.max_validation_examples}
    for name in names:
        if config.validation_split in seqio.TaskRegistry.get(name).splits:
            yield _VALIDATION, name, config.validation_split, held_out
    for spec in specs:
        settings = {"seed": _EVAL_SEED, "limit": spec.max_examples}
        yield spec, spec.task, spec.split, settings


@dataclasses.dataclass
class _Needed:
    """What a mixture needs, found out before anything is rendered.

    Attributes:
      jobs: (use, task) -> directory to make.
      sizes: bytes of the files that each reads.
      files: path -> stamp of every file that the examples depend on.
      problems: task splits that cannot be prepared.
    """

    jobs: dict[tuple[Any, str], Job] = dataclasses.field(default_factory=dict)
    sizes: dict[Job, int] = dataclasses.field(default_factory=dict)
    files: dict[str, Stamp] = dataclasses.field(default_factory=dict)
    problems: list[Problem] = dataclasses.field(default_factory=list)


def _needed(
    config: PrepareConfig,
    root: Node,
    specs: Sequence[EvalSpec],
    progress: Callable[[str], None],
) -> _Needed:
    """Fingerprints every task split; a file is read once, however many forms it has."""
    needed, told = _Needed(), time.monotonic()
    for use, name, split, settings in _wanted(config, root, specs):
        task, vocabulary = seqio.TaskRegistry.get(name), _vocabulary(config.vocabulary)
        with recorded_files() as files:
            try:
                info = _info(name)
                job = make_job(task, split, vocabulary, info, **settings)
                _record_source(info, split, files)
            except DataError as error:
                needed.problems.append(_problem(name, split, error))
                continue
        needed.jobs[use, name] = job
        needed.sizes[job] = sum(size for size, _, _ in files.values())
        needed.files |= files
        if time.monotonic() - told > _SECONDS_BETWEEN_MESSAGES:
            told = time.monotonic()
            progress(f"  looked at the sources of {len(needed.jobs):,} task splits")
    return needed


def _record_source(info: dict, split: str, files: dict[str, Stamp]) -> None:
    """Takes note of the files that a fingerprint can do without reading."""
    names = [info["template_file"], info["where"](split).split("!")[0]] if info else []
    for name in names:  # A file inside an archive is written archive!member.
        if name and os.path.abspath(name) not in files and Path(name).is_file():
            file_digest(Path(name))


def _problem(task: str, split: str, error: DataError) -> Problem:
    try:
        collection = _info(task).get("collection", "")
    except DataError:  # Its templates are what is wrong.
        collection = ""
    missing = not isinstance(error, ChangedError)
    return Problem(task, split, error.what, error.where, error.fix, collection, missing)


def _run(
    needed: _Needed,
    config: PrepareConfig,
    progress: Callable[[str], None],
    runner: str | None,
    runner_options: str,
) -> dict[Job, dict]:
    """Makes the directories that are missing; what fails goes to the problems."""
    jobs = sorted(needed.sizes, key=needed.sizes.__getitem__, reverse=True)
    there = [job for job in jobs if is_whole(Path(config.store_dir) / job.path)]
    made = {job: info for job in there if isinstance(info := _do(config, job), dict)}
    to_do = [job for job in jobs if job not in made]
    watch = Watch({job: needed.sizes[job] for job in to_do}, len(there), progress)
    for event in _events(to_do, config, progress, runner, runner_options):
        if event is None:
            watch.wait()
            continue
        job, result = event
        if isinstance(result, Died):
            result = Problem(job.task, job.split, str(result), fix=_DIED, missing=False)
        if isinstance(result, Problem):
            needed.problems.append(result)
            watch.ended(job, "FAILED")
        else:
            made[job] = result
            watch.ended(job, f"{result['num_examples']:,} examples")
    return made


def _events(
    jobs: Sequence[Job],
    config: PrepareConfig,
    progress: Callable[[str], None],
    runner: str | None,
    runner_options: str,
) -> Iterable[tuple[Job, dict | Problem | Died] | None]:
    """Does the jobs on Beam, in processes or here; yields them as they end."""
    work, setup = functools.partial(_do, config), functools.partial(_load, config)
    if not jobs:
        return ()
    if runner is not None:
        from flanjax.data.beam import run_on_beam

        progress(f"{len(jobs):,} task splits go to {runner}")
        folder = config.store_dir
        return run_on_beam(jobs, work, setup, folder, runner, runner_options)
    workers = min(config.num_workers, len(jobs))
    if workers > 1:
        progress(f"starting {workers} processes")
        return run_in_processes(jobs, work, setup, workers)
    return ((job, _do(config, job, progress)) for job in jobs)


def _do(
    config: PrepareConfig, job: Job, progress: Callable[[str], None] = lambda text: None
) -> dict | Problem:
    """Makes one directory, in any process; problems come back as values."""
    task, vocabulary = seqio.TaskRegistry.get(job.task), _vocabulary(config.vocabulary)
    try:
        info = _info(job.task)
        return prepare_task(job, task, vocabulary, info, config.store_dir, progress)
    except DataError as error:
        return _problem(job.task, job.split, error)


def _stop_or_leave_out(
    problems: Sequence[Problem],
    allow_missing: bool,
    progress: Callable[[str], None],
) -> None:
    """Raises one error for all problems, or says what is left out."""
    if problems and not (allow_missing and all(p.missing for p in problems)):
        raise refusal(problems)
    for line in listed(problems):
        progress(f"left out: {line}")


def _member(share: TaskShare, job: Job, made: dict[Job, dict]) -> Member:
    info = made[job]
    return Member(
        name=share.name,
        rate=share.rate,
        share=share.share,
        cap=share.cap,
        num_examples=info["num_examples"],
        path=job.path,
        fingerprint=job.fingerprint,
        info=info,
    )


def _entry(spec: EvalSpec, job: Job, made: dict[Job, dict]) -> EvalEntry:
    return EvalEntry(
        to_json(spec), job.path, job.fingerprint, made[job]["num_examples"]
    )


def _module_files(config: PrepareConfig) -> dict[str, Stamp]:
    """Stamps of the modules that say what the mixture and its examples are."""
    packages = {name.split(".")[0] for name in config.mixture_modules} - {"flanjax"}
    paths = {
        getattr(module, "__file__", None)
        for name, module in list(sys.modules.items())
        if name in config.mixture_modules or name.split(".")[0] in packages
    }
    with recorded_files() as files:
        for path in (*rendering_code(), *(Path(path) for path in paths if path)):
            file_digest(path)
    return files
