"""Everything a training run needs before its first step, built from its configuration.

Order: data (prepared if need be), plan and guards, mesh and model, state from a
checkpoint of the run or from initial weights, compiled functions, evaluator. Whatever
can be refused is refused here, before anything is compiled.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from flanjax.config import RunConfig
from flanjax.data.ensure import ensure_prepared
from flanjax.data.guards import check_lengths
from flanjax.data.layout import Layout, make_layout
from flanjax.data.ledger import ledger
from flanjax.data.loader import make_plan
from flanjax.data.plan import Plan, Position
from flanjax.data.store import ResolvedMixture
from flanjax.data.verdict import refuse_failed
from flanjax.data.vocabulary import Vocabulary, load_vocabulary
from flanjax.errors import CheckpointError, ConfigError
from flanjax.eval.evaluator import Evaluator
from flanjax.models.attention_choice import attention_lines, platform
from flanjax.models.build import abstract_params, build_model
from flanjax.progress import Progress
from flanjax.train.checkpoint import Checkpointer
from flanjax.train.feeding import host_share, place
from flanjax.train.flops import step_flops
from flanjax.train.goodput import Goodput
from flanjax.train.initial import check_report, initial_optimizer, initial_params
from flanjax.train.interrupt import InterruptGuard
from flanjax.train.mesh import (
    check_batch_size,
    check_heads,
    make_mesh,
)
from flanjax.train.mesh import check_lengths as check_mesh_lengths
from flanjax.train.monitor import MonitorConfig
from flanjax.train.optim import Optimizer, make_optimizer
from flanjax.train.peak import peak_flops
from flanjax.train.profile import Profiler
from flanjax.train.rundir import RunDir, read_json
from flanjax.train.state import (
    Trainable,
    TrainState,
    abstract_state,
    init_state,
    merge_params,
    state_shardings,
)
from flanjax.train.step import make_train_step
from flanjax.train.trainable import trainable

_LISTED_TASKS = 10


@dataclasses.dataclass
class Training:
    """A run that is ready to step.

    Attributes:
      model, vocabulary, layout, resolved, plan: what is trained on what.
      ledger: rows of the mixture for the whole run.
      state, position: where the run stands.
      start_step: steps done so far.
      counts: examples drawn so far per task.
      evaluated: steps whose scores are already in results.json.
      train_step: compiled on its first call; counts how often it was (`compiles`).
      evaluate: (state, step) -> {eval: {metric: score}}.
      hosts: part, of how many, of each batch's rows that this process reads.
      place: host batch -> device batch.
      flops: (tokens of a step, by stack and scored) -> operations.
      peak: operations per second the devices could do.
      facts: for environment.json.
    """

    model: Any
    vocabulary: Vocabulary
    layout: Layout
    resolved: ResolvedMixture
    plan: Plan
    ledger: list[dict[str, Any]]
    state: TrainState
    position: Position
    start_step: int
    counts: np.ndarray
    evaluated: set[int]
    checkpointer: Checkpointer
    train_step: Any
    evaluate: Callable[[TrainState, int], dict[str, Any]]
    hosts: tuple[int, int]
    place: Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]
    flops: Callable[..., float]
    peak: float
    facts: dict[str, Any]
    compiled: bool = False

    @contextmanager
    def first_step(self, progress: Progress, goodput: Goodput) -> Iterator[None]:
        """Says that the first step compiles, which can take minutes."""
        if self.compiled:
            yield
            return
        with progress.task("compiling the train step"), goodput.span("compile"):
            yield
        self.compiled = True

    def profiler(
        self, config: MonitorConfig, run_dir: Path, say: Callable[[str], None]
    ) -> Profiler:
        """Returns what traces the steps that the configuration asks for."""
        first = self.start_step + config.profile_after
        lower = self.train_step.lower
        return Profiler(run_dir / "profile", first, config.profile_steps, lower, say)

    @functools.cached_property
    def plan_facts(self) -> dict[str, Any]:
        """What a checkpoint remembers of the order of the data."""
        return {
            "fingerprint": self.plan.fingerprint,
            "order": self.plan.order_hash(),
            "tasks": {m.name: m.fingerprint for m in self.resolved.members},
        }


def set_up(
    config: RunConfig, run_dir: RunDir, progress: Progress, interrupt: InterruptGuard
) -> Training:
    """Builds the run.

    Args:
      config: the run's configuration.
      run_dir: looked into for a checkpoint to go on from.
      progress: told what takes time.
      interrupt: checked between evaluation batches.

    Raises:
      UserError: whatever is wrong with configuration, data or checkpoint.
    """
    with progress.task("reading the data's index"):
        vocabulary = load_vocabulary(config.prepare.vocabulary)
        resolved = ensure_prepared(config.prepare, progress.line)
        _heed_check(config, resolved, progress)
        model = build_model(config.model)
        layout, plan, lengths = _data(config, model, vocabulary, resolved)
        interrupt.check()
    with progress.task("starting the devices"):
        mesh = make_mesh(config.mesh)
        hosts = host_share(mesh)
        peak = peak_flops(list(mesh.devices.flat), config.monitor.peak_tflops)
    check_batch_size(config.data.batch_size, config.microbatches, mesh)
    check_heads(config.model.num_heads, mesh)
    check_mesh_lengths(layout.features, mesh)
    rows = _row_lengths(layout)
    for line in attention_lines(config.model, platform(mesh), **rows):
        progress.line(line)
    trained = trainable(config)
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    checkpointer = Checkpointer(run_dir.path / "checkpoints", config.checkpoint)
    state, extra, message = _state(
        config, model, optimizer, mesh, trained, checkpointer, progress
    )
    progress.line(message)
    if extra:
        _check_order(extra, plan, resolved, str(checkpointer.directory))
    return Training(
        model=model,
        vocabulary=vocabulary,
        layout=layout,
        resolved=resolved,
        plan=plan,
        ledger=_ledger(config, resolved, plan, lengths),
        state=state,
        position=Position(*extra.get("position", (0, 0))),
        start_step=int(state.step),
        counts=np.array(extra.get("counts", [0] * len(resolved.members)), np.int64),
        evaluated=_evaluated(run_dir, int(state.step)),
        checkpointer=checkpointer,
        train_step=make_train_step(
            model,
            optimizer,
            config.loss,
            mesh,
            state_shardings(state),
            microbatches=config.microbatches,
            norms=config.monitor.group_norms,
        ),
        evaluate=_evaluate(
            config, model, vocabulary, layout, resolved, mesh, progress, interrupt
        ),
        hosts=hosts,
        place=functools.partial(place, mesh, hosts),
        flops=functools.partial(step_flops, model, trainable=trained, **rows),
        peak=peak,
        facts=_facts(config, model, mesh, peak, message),
    )


def _heed_check(
    config: RunConfig, resolved: ResolvedMixture, progress: Progress
) -> None:
    """Stops when `flanjax data check` found something in this mixture."""
    allow = config.data.allow_failed_check
    line = refuse_failed(config.prepare.store_dir, resolved, allow)
    if line:
        progress.line(line)


def _evaluate(
    config, model, vocabulary, layout, resolved, mesh, progress, interrupt
) -> Callable[[TrainState, int], dict[str, Any]]:
    """One evaluator for the whole run, so that it compiles once."""

    def report(text: str) -> None:
        interrupt.check()
        progress.line(text)

    evaluator = Evaluator(
        model,
        vocabulary,
        layout,
        resolved,
        config.prepare.store_dir,
        mesh=mesh,
        batch_size=config.eval.batch_size,
        max_examples=config.eval.max_examples,
        progress=report,
    )
    records = Path(config.model_dir) / "records"

    def evaluate(state: TrainState, step: int) -> dict[str, Any]:
        params = merge_params(state.params, state.frozen)
        return evaluator.run(params, step, records)

    return evaluate


def _data(
    config: RunConfig, model: Any, vocabulary: Vocabulary, resolved: ResolvedMixture
) -> tuple[Layout, Plan, list[dict[str, Any]]]:
    """How examples become rows, their order, and what does not fit."""
    if vocabulary.size > config.model.vocab_size:
        raise ConfigError(
            f"the vocabulary has {vocabulary.size} ids and the model "
            f"{config.model.vocab_size}",
            where=f"vocabulary {vocabulary.spec}",
            fix=f"set the model's vocab_size to {vocabulary.size} or more",
        )
    data, store_dir = config.data, config.prepare.store_dir
    layout = make_layout(
        model.kind, data.feature_lengths, vocabulary, data.wrapping, data.system_prompt
    )
    lengths = check_lengths(resolved, store_dir, layout, data.max_truncated)
    plan = make_plan(
        resolved, store_dir, layout, config.seed, data.block_examples, data.packing
    )
    return layout, plan, lengths


def _ledger(
    config: RunConfig,
    resolved: ResolvedMixture,
    plan: Plan,
    lengths: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Expected shares and epochs, and what the length limits cut off."""
    rows = ledger(resolved, config.train_steps, config.data.batch_size, plan)
    return [row | extra for row, extra in zip(rows, lengths, strict=True)]


def _row_lengths(layout: Layout) -> dict[str, int]:
    """Positions of a row, by the stack that reads them, for counting operations."""
    if layout.kind == "encoder_decoder":
        lengths = layout.inputs_length, layout.targets_length
        return dict(zip(("encoder_length", "decoder_length"), lengths, strict=True))
    return {"decoder_length": layout.inputs_length + layout.targets_length}


def _state(
    config: RunConfig,
    model: Any,
    optimizer: Optimizer,
    mesh: Any,
    trained: Trainable | None,
    checkpointer: Checkpointer,
    progress: Progress,
) -> tuple[TrainState, dict[str, Any], str]:
    """The newest checkpoint's state, or one from initial weights.

    Frozen parameters are not in checkpoints: they come from the initial weights again.
    """
    abstract = abstract_state(model, optimizer, mesh, trained)
    restored, extra, message = None, {}, ""
    if checkpointer.latest_step() is not None:
        with progress.task("restoring"):
            restored, extra, message = checkpointer.restore(abstract.replace(frozen={}))
    if restored is not None and not abstract.frozen:
        return restored, extra, message
    source = config.initial_checkpoint
    if extra and extra["initial_checkpoint"] != source:
        raise CheckpointError(
            f"this run began from {extra['initial_checkpoint']}, not from {source}",
            where=str(checkpointer.directory),
            fix="set INITIAL_CHECKPOINT_PATH back, or use another MODEL_DIR",
        )
    with progress.task(f"loading weights from {source or 'the seed'}"):
        if restored is not None:
            check_report(config)
            frozen = initial_params(config, model, abstract.frozen)
            return restored.replace(frozen=frozen), extra, message
        wanted = merge_params(abstract.params, abstract.frozen)
        params = initial_params(config, model, wanted)
        state = init_state(
            model,
            optimizer,
            jax.random.PRNGKey(config.seed),
            mesh,
            params=params,
            take_params=True,
            trainable=trained,
        )
        opt_state, line = initial_optimizer(config, state.opt_state)
    state = state.replace(opt_state=opt_state)
    return state, {}, f"{line}; data from the beginning"


def _check_order(
    extra: dict[str, Any], plan: Plan, resolved: ResolvedMixture, where: str
) -> None:
    """Refuses to go on when the order of the data is no longer the checkpoint's."""
    saved = extra["plan"]
    if saved["fingerprint"] == plan.fingerprint:
        return
    what = _difference(
        saved["tasks"], {m.name: m.fingerprint for m in resolved.members}
    )
    raise CheckpointError(
        f"the data order differs from the checkpoint's ({what})",
        where=where,
        fix="restore the tasks and settings of the run, or use another MODEL_DIR",
    )


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Names the tasks that changed, came or went since the checkpoint."""
    kinds = {
        "changed": [t for t in before if t in now and before[t] != now[t]],
        "added": [t for t in now if t not in before],
        "removed": [t for t in before if t not in now],
    }
    parts = [
        f"{kind}: {', '.join(sorted(tasks)[:_LISTED_TASKS])}"
        + (f" and {len(tasks) - _LISTED_TASKS} more" * (len(tasks) > _LISTED_TASKS))
        for kind, tasks in kinds.items()
        if tasks
    ]
    return "; ".join(parts) or "no task changed: rates, lengths, seed or block size"


def _evaluated(run_dir: RunDir, start_step: int) -> set[int]:
    """Steps with scores; those after the checkpoint's are evaluated again."""
    steps = {int(step) for step in read_json(run_dir.path / "results.json", {})}
    return {step for step in steps if step <= start_step}


def _facts(
    config: RunConfig, model: Any, mesh: Any, peak: float, message: str
) -> dict[str, Any]:
    shapes: dict[tuple[str, ...], Any] = flatten_dict(abstract_params(model)[0])
    counts = {path: int(np.prod(x.shape, dtype=np.int64)) for path, x in shapes.items()}
    trained = trainable(config) or (lambda path: True)
    devices = list(mesh.devices.flat)
    return {
        "model": json.loads(json.dumps(dataclasses.asdict(config.model), default=str)),
        "parameters": sum(counts.values()),
        "trainable_parameters": sum(n for path, n in counts.items() if trained(path)),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "mesh": dict(mesh.shape),
        "peak_flops": peak,
        "restored": message,
        "config_fingerprint": config.fingerprint(),
    }
