"""Prepares a mixture once: what `flanjax data prepare` runs, and nothing else does.

    path = prepare(PrepareConfig("quick", ("mixtures.starter",), "bytes", "store"))
    ResolvedMixture.load(path).members[0].share

Each member task (and validation split, and evaluation) becomes a directory of the
store; what is there already is kept. At the end the resolved mixture is written, a
small JSON with members, shares and the hashes of the files that define them: all that
training and evaluation read. This module imports TensorFlow, and takes that long.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import seqio
import tensorflow as tf

from flanjax.data.mixing import Node, TaskShare, read_tree, resolve_shares
from flanjax.data.prepare_task import RENDERING_CODE, Job, make_job, prepare_task
from flanjax.data.seqio_vocabulary import set_default_vocabulary
from flanjax.data.store import (
    STORE_VERSION,
    EvalEntry,
    Member,
    PrepareConfig,
    ResolvedMixture,
    file_hash,
    resolved_path,
)
from flanjax.data.tasks import import_mixtures, task_info, task_names
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError, DataError, nearest
from flanjax.eval.suites import EvalSpec, resolve_evals, to_json

# Evaluation and validation examples do not follow the run's seed: scores of runs with
# different seeds are then on the same prompts.
_EVAL_SEED = 0
_TRAINING, _VALIDATION = "training", "validation"
_SECONDS_BETWEEN_MESSAGES = 5.0
_Problem = tuple[str, str | None, str | None]


def prepare(config: PrepareConfig, progress: Callable[[str], None] = print) -> Path:
    """Prepares everything a run needs; quick when nothing has changed.

    Args:
      config: what, and where to.
      progress: told every few seconds how far it is.

    Returns:
      Path of the resolved mixture.

    Raises:
      ConfigError: unknown mixture, task, evaluation, module or vocabulary.
      DataError: sources that cannot load (all of them, in one list), a rate that is
        not positive.
    """
    vocabulary = load_vocabulary(config.vocabulary)
    _load(config.mixture_modules, config.vocabulary)
    root = read_tree(config.mixture, seqio.TaskRegistry, seqio.MixtureRegistry)
    specs = resolve_evals(config.evals)
    for spec in specs:
        _known(spec.task, seqio.TaskRegistry.names(), "task", f"eval '{spec.name}'")
    jobs, problems = _jobs(config, root, specs)
    made = _run(list(dict.fromkeys(jobs.values())), config, problems, progress)
    _stop_or_leave_out(problems, config.allow_missing, progress)
    jobs = {key: job for key, job in jobs.items() if job in made}
    names = [task.name for task in root.tasks()]
    examples = {
        name: made[jobs[_TRAINING, name]]["num_examples"]
        for name in names
        if (_TRAINING, name) in jobs
    }
    shares = resolve_shares(root, examples)
    validation = [s for s in shares if (_VALIDATION, s.name) in jobs]
    resolved = ResolvedMixture(
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
        files=_files(config, made),
    )
    path = resolved_path(config)
    resolved.save(path)
    return path


def _load(modules: Sequence[str], vocabulary: str) -> None:
    """Registers tasks and chooses their vocabulary, in this process."""
    tf.config.set_visible_devices([], "GPU")
    import_mixtures(modules)
    set_default_vocabulary(vocabulary)


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


def _jobs(
    config: PrepareConfig, root: Node, specs: Sequence[EvalSpec]
) -> tuple[dict[tuple[Any, str], Job], dict[str, _Problem]]:
    """Returns the directories needed, and the tasks whose source cannot be read."""
    vocabulary = load_vocabulary(config.vocabulary)
    jobs, problems = {}, {}
    for use, name, split, settings in _wanted(config, root, specs):
        task = seqio.TaskRegistry.get(name)
        try:
            jobs[use, name] = make_job(task, split, vocabulary, _info(name), **settings)
        except DataError as error:
            problems[f"{name} {split}"] = (error.what, error.where, error.fix)
    return jobs, problems


def _run(
    jobs: Sequence[Job],
    config: PrepareConfig,
    problems: dict[str, _Problem],
    progress: Callable[[str], None],
) -> dict[Job, dict]:
    """Makes the directories that are missing; failed ones go to `problems`."""
    made, told = {}, 0.0
    for number, (job, result) in enumerate(_results(jobs, config, progress), start=1):
        if isinstance(result, dict):
            made[job] = result
            what = f"{result['num_examples']:,} examples"
        else:
            problems[f"{job.task} {job.split}"] = result
            what = "FAILED"
        if time.monotonic() - told > 1 or number == len(jobs):
            told = time.monotonic()
            progress(f"{number} of {len(jobs)}: {job.task} {job.split}, {what}")
    return made


def _results(
    jobs: Sequence[Job], config: PrepareConfig, progress: Callable[[str], None]
) -> Iterator[tuple[Job, dict | _Problem]]:
    """Yields each job with its info or its problem, here or in worker processes."""
    missing = [j for j in jobs if not _is_made(config.store_dir, j)]
    if config.num_workers <= 1 or len(missing) <= 1:
        for job in jobs:
            yield job, _do(job, config.store_dir, progress)
        return
    for job in jobs:
        if job not in missing:
            yield job, _do(job, config.store_dir, progress)
    context = multiprocessing.get_context("spawn")
    workers = min(config.num_workers, len(missing))
    with futures.ProcessPoolExecutor(
        workers, context, _load, (config.mixture_modules, config.vocabulary)
    ) as pool:
        progress(f"starting {workers} processes")
        running = {pool.submit(_do, job, config.store_dir): job for job in missing}
        waiting = set(running)
        while waiting:
            done, waiting = futures.wait(
                waiting, _SECONDS_BETWEEN_MESSAGES, futures.FIRST_COMPLETED
            )
            if not done:
                progress(f"  {len(waiting)} task splits to go")
            for future in done:
                yield running[future], _result_of(future)


def _is_made(store_dir: str, job: Job) -> bool:
    return (Path(store_dir) / job.path / "info.json").exists()


def _result_of(future: futures.Future) -> dict | _Problem:
    try:
        return future.result()
    except futures.process.BrokenProcessPool:
        return "a worker process died", None, "use fewer processes (num_workers)"


def _do(
    job: Job, store_dir: str, progress: Callable[[str], None] = lambda text: None
) -> dict | _Problem:
    """Makes one directory; errors come back as values, to be listed together."""
    task = seqio.TaskRegistry.get(job.task)
    try:
        return prepare_task(job, task, _info(job.task), store_dir, progress)
    except DataError as error:
        return error.what, error.where, error.fix


def _stop_or_leave_out(
    problems: dict[str, _Problem],
    allow_missing: bool,
    progress: Callable[[str], None],
) -> None:
    """Raises one error for all problems, or says what is left out."""
    if not problems:
        return
    same: dict[_Problem, list[str]] = {}
    for name, problem in problems.items():
        same.setdefault(problem, []).append(name)
    listed = [
        f"{', '.join(names)}: {what}" + (f" ({where})" if where else "")
        for (what, where, _), names in same.items()
    ]
    if allow_missing:
        for line in listed:
            progress(f"left out: {line}")
        return
    _, where, fix = next(iter(same))
    raise DataError(
        f"{len(problems)} task split(s) cannot be prepared:\n  " + "\n  ".join(listed),
        where=where if len(same) == 1 else None,
        fix=f"{fix or 'repair them'}; or leave them out with --allow_missing",
    )


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


def _files(config: PrepareConfig, jobs: Iterable[Job]) -> dict[str, str]:
    """Hashes of the files whose change makes the prepared mixture stale."""
    packages = {name.split(".")[0] for name in config.mixture_modules} - {"flanjax"}
    files = {
        getattr(module, "__file__", None)
        for name, module in list(sys.modules.items())
        if name in config.mixture_modules or name.split(".")[0] in packages
    }
    for job in jobs:
        info = _info(job.task)
        if info:
            # A file inside an archive is written archive!member.
            source = info["where"](job.split).split("!")[0]
            files |= {info["template_file"], source}
    paths = {Path(file).resolve() for file in files if file}
    found = sorted(path for path in {*paths, *RENDERING_CODE} if path.is_file())
    return {str(path): file_hash(path) for path in found}
