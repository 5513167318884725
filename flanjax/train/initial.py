"""What a run starts from: parameters, the optimiser's state and its step count.

    params = initial_params(config, model, abstract.params)
    opt_state, line = initial_optimizer(config, optimizer.init(params))

Frozen parameters are in no checkpoint of the run, so a resumed run and an export make
them again: they depend on the configuration alone.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flanjax.config import RunConfig
from flanjax.convert.names import unstacked
from flanjax.convert.place import place_params
from flanjax.convert.restore import RestoreConfig, RestorePlan, plan_restore
from flanjax.convert.t5x import T5XSource
from flanjax.convert.t5x_layout import SLOTS
from flanjax.convert.t5x_optimizer import adafactor_reader
from flanjax.convert.weights import WeightSource, open_weights
from flanjax.errors import CheckpointError, ConfigError
from flanjax.train.optim import AdafactorState, OptimizerConfig
from flanjax.train.state import draw_params
from flanjax.train.trees import Tree, flatten, unflatten

REPORT = "restore_report.txt"


def initial_params(config: RunConfig, model: Any, wanted: Mapping[str, Any]) -> Tree:
    """Makes parameters as they were before the first step, the same at every call.

    Args:
      config: the run's configuration.
      model: as `build_model` makes it.
      wanted: which ones: nested ShapeDtypeStructs with shardings.

    Returns:
      The same tree with arrays: those that the weights hold are read, each process its
      own part, the others are drawn from the seed.

    Raises:
      CheckpointError: the weights cannot be read, or do not fit and
        `config.restore` does not say what to do about it.
      ConfigError: `config.restore` asks for what these weights do not have.
    """
    leaves, given = flatten(wanted), {}
    if not leaves:
        return {}
    if config.initial_checkpoint:
        shardings = {path: leaf.sharding for path, leaf in leaves.items()}
        with planned(config) as (_, plan):
            given = flatten(place_params(plan.view, unflatten(shardings)))
    missing = {path: leaf for path, leaf in leaves.items() if path not in given}
    drawn = draw_params(model, jax.random.PRNGKey(config.seed), missing)
    return unflatten(given | drawn)


def initial_optimizer(config: RunConfig, opt_state: Any) -> tuple[Any, str]:
    """Brings in what `config.restore` takes from the optimiser of the weights.

    Writes REPORT into the run directory: every parameter, and where it comes from.

    Args:
      config: the run's configuration; its run directory exists.
      opt_state: a fresh one; its arrays may be used up.

    Returns:
      The state, and one line that says where weights and state come from.

    Raises:
      CheckpointError: there is no such state, or it does not fit the run's optimiser.
      ConfigError: as `initial_params`.
    """
    restore = config.restore
    if not config.initial_checkpoint:
        if restore.partial or restore.optimizer_state or restore.step != "fresh":
            raise ConfigError(
                "RestoreConfig says what to take from weights, and there are none",
                where="RunConfig.restore",
                fix="set INITIAL_CHECKPOINT_PATH, or leave RestoreConfig alone",
            )
        return opt_state, "weights drawn from the seed; optimizer fresh"
    with planned(config) as (weights, plan):
        if isinstance(weights, T5XSource):
            if restore.optimizer_state:
                opt_state = _restored_moments(weights, plan, opt_state)
            if restore.step == "checkpoint":
                opt_state = _counted(opt_state, weights)
        plan = plan.with_note(_note(config.optimizer, restore, weights))
    if jax.process_index() == 0:
        Path(config.model_dir, REPORT).write_text(plan.text(), encoding="utf-8")
    return opt_state, f"{config.initial_checkpoint}: {plan.line()}"


def check_report(config: RunConfig) -> None:
    """Refuses to take frozen parameters from elsewhere than the run began with.

    Raises:
      CheckpointError: the run directory's report names other weights or other
        parameters than would be taken now, such as from a newer checkpoint_N.
    """
    report = Path(config.model_dir, REPORT)
    if not config.initial_checkpoint or not report.is_file():
        return
    with planned(config) as (_, plan):
        now, then = plan.text().splitlines(), report.read_text(encoding="utf-8")
        changed = [line for line in now if line not in then.splitlines()]
        if changed:
            raise CheckpointError(
                "this run's frozen parameters came from elsewhere: what it would take "
                f"now differs from its report in '{changed[0]}'",
                where=str(report),
                fix="set INITIAL_CHECKPOINT_PATH to the checkpoint that the report "
                "names, and RestoreConfig as it was",
            )


@contextlib.contextmanager
def planned(config: RunConfig) -> Iterator[tuple[WeightSource, RestorePlan]]:
    """Opens the initial weights and decides what comes from them; reads no tensor.

    Raises:
      CheckpointError, ConfigError: as `initial_params`.
    """
    source, restore = config.initial_checkpoint, config.restore
    assert source
    with open_weights(source, config.model, whole=not restore.partial) as weights:
        _check_moments(config.optimizer, restore, weights, source)
        yield weights, plan_restore(weights, config.model, restore)


def _check_moments(
    optimizer: OptimizerConfig, restore: RestoreConfig, weights: WeightSource, name: str
) -> None:
    """Refuses what the weights do not have, and counts that make no sense."""
    asked = restore.optimizer_state or restore.step == "checkpoint"
    if not asked:
        return
    if not isinstance(weights, T5XSource):
        raise ConfigError(
            f"'{name}' holds no optimiser state or step; T5X checkpoints do",
            where="RestoreConfig.optimizer_state or RestoreConfig.step",
            fix="leave both at their defaults: the optimiser starts fresh",
        )
    if optimizer.name != "adafactor":
        raise ConfigError(
            f"T5X checkpoints hold Adafactor's state; this run has {optimizer.name}",
            where="RestoreConfig.optimizer_state or RestoreConfig.step",
            fix='set OptimizerConfig.name = "adafactor", or start the optimiser fresh',
        )
    count = weights.index.step if restore.step == "checkpoint" else 0
    t = count - optimizer.step_offset
    if t < 0:
        raise ConfigError(
            f"Adafactor's t would start at {count} - {optimizer.step_offset} = {t}, "
            "where its decay is not defined",
            where="OptimizerConfig.step_offset",
            fix=f"give {count} or less",
        )
    if t > 0 and not restore.optimizer_state:
        raise ConfigError(
            f"Adafactor's t would start at {t:,} with moments of zero, which would "
            f"take about {(t + 1) ** optimizer.decay_rate:,.0f} steps to fill",
            where="RestoreConfig.step",
            fix="set RestoreConfig.optimizer_state = True, or "
            f"OptimizerConfig.step_offset = {count} to start t at 0",
        )


def _restored_moments(
    source: T5XSource, plan: RestorePlan, fresh: AdafactorState
) -> AdafactorState:
    """The slots of the parameters that were restored; the others stay fresh."""
    read = adafactor_reader(source)
    slots = {slot: flatten(getattr(fresh, slot)) for slot in SLOTS}
    entries = plan.view.entries()
    if not any("/layers/" in path for path in slots["v"]):
        entries = unstacked(entries)
    for entry in entries:
        path = "/".join(entry.path)
        for slot in SLOTS:
            if path in slots[slot]:  # Frozen parameters have no state.
                leaf = slots[slot][path]
                array = read(entry, slot, tuple(leaf.shape))
                slots[slot][path] = _placed(array, leaf.sharding)
    return fresh.replace(**{slot: unflatten(leaves) for slot, leaves in slots.items()})


def _counted(state: AdafactorState, source: T5XSource) -> AdafactorState:
    count = np.asarray(source.index.step, np.int32)
    return state.replace(count=_placed(count, state.count.sharding))


def _placed(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    # Copies: steps donate the array, and the reader may still hold the buffer.
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: np.array(array[index])
    )


def _note(
    optimizer: OptimizerConfig, restore: RestoreConfig, weights: WeightSource
) -> str:
    """What the optimiser starts with, in words."""
    if not isinstance(weights, T5XSource):
        return "optimizer fresh"
    step = weights.index.step
    moments = "restored" if restore.optimizer_state else "fresh"
    if restore.step == "checkpoint":
        t = step - optimizer.step_offset
        memory = (t + 1) ** optimizer.decay_rate
        return (
            f"optimizer {moments}, its count goes on at {step:,} (t = {t:,}: second "
            f"moments remember about {memory:,.0f} steps)"
        )
    if restore.optimizer_state:
        return (
            f"optimizer {moments} from step {step:,}, its count from 0 (the first "
            "update replaces the second moments)"
        )
    return "optimizer fresh"
