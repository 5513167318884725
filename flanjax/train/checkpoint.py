"""Checkpoints: Orbax for the arrays, a manifest against damage, and what to keep.

    checkpointer = Checkpointer(run_dir / "checkpoints", CheckpointConfig(keep_last=2))
    checkpointer.save(300, state, extra={"position": [0, 7]}, metrics={"loss": 1.2})
    state, extra, message = checkpointer.restore(abstract_state)

`<directory>/<step>/` holds `arrays/` (Orbax), `extra.json` and `manifest.json` (size
and CRC-32 of every other file). It appears under its name by one rename, when all of
it is written: a killed save leaves only a `.saving-*` folder, which the next one
removes. A checkpoint that no longer fits its manifest is set aside and the one before
it is used.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from flanjax.errors import CheckpointError, ConfigError
from flanjax.train.manifest import check_fits, describe, write_json, write_manifest
from flanjax.train.manifest import damage as damage_of
from flanjax.train.trees import flatten

_EXTRA = "extra.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep."""

    save_every_steps: int = 1000
    """Steps between saves."""
    keep_last: int = 2
    """How many of the newest checkpoints stay."""
    keep_best: str | None = None
    """Name of the metric whose best checkpoint stays; None keeps no best."""
    keep_best_mode: str = "max"
    """'max' or 'min': which values of `keep_best` are better."""
    keep_every_steps: int | None = None
    """Checkpoints at multiples of this stay for ever."""

    def __post_init__(self):
        if self.keep_best_mode not in ("max", "min"):
            raise ConfigError(
                f"keep_best_mode is '{self.keep_best_mode}'",
                where="CheckpointConfig.keep_best_mode",
                fix="use 'max' or 'min'",
            )
        if min(self.keep_last, self.save_every_steps, self.keep_every_steps or 1) < 1:
            raise ConfigError(
                "keep_last, save_every_steps and keep_every_steps must be at least 1",
                where="CheckpointConfig",
            )


class Checkpointer:
    """Saves and restores one run's states; call it on every process alike.

    Args:
      directory: where the checkpoints of the run lie; made by the first save.
      config: when to save and what to keep.
    """

    def __init__(self, directory: str | Path, config: CheckpointConfig | None = None):
        self.directory = Path(directory).absolute()
        self.config = config or CheckpointConfig()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future] | None = None

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdigit())

    def latest_step(self) -> int | None:
        """Step of the newest committed checkpoint, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Step of the best checkpoint by `config.keep_best`, or None."""
        sign = 1.0 if self.config.keep_best_mode == "max" else -1.0
        best = None
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError):
                extra = json.loads(self._path(step, _EXTRA).read_text())
                value = extra["metrics"].get(self.config.keep_best)
                # Of equals the newest: it had more training for the same score.
                if value is not None and (best is None or sign * value >= best[0]):
                    best = (sign * value, step)
        return best[1] if best else None

    def has(self, step: int) -> bool:
        """Whether a checkpoint of this step is committed."""
        return self._path(step).is_dir()

    def due(self, step: int, total: int) -> bool:
        """Whether a run of `total` steps should save its state after `step` steps."""
        return step > 0 and (step % self.config.save_every_steps == 0 or step == total)

    def save(
        self,
        step: int,
        state: Any,
        extra: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Saves in the background; the state may be donated as soon as this returns.

        Args:
          step: name of the checkpoint; one of the same step is replaced.
          state: pytree of arrays.
          extra: JSON values returned by `restore` (data position, fingerprints).
          metrics: values that `keep_best` may choose by; non-finite ones are dropped.
          wait: return only when the checkpoint is committed.

        Raises:
          CheckpointError: this save or the one before it failed; older checkpoints
            are unharmed.
        """
        self.wait()
        temporary = self.directory / f".saving-{step}"
        tree = serialization.to_state_dict(state)
        finite = {k: float(v) for k, v in (metrics or {}).items() if math.isfinite(v)}
        record = {"step": step, "extra": extra, "metrics": finite}
        record["arrays"] = describe(tree)
        try:
            if jax.process_index() == 0:
                self._clean()
                temporary.mkdir(parents=True)
                write_json(temporary / _EXTRA, record)
            _barrier("checkpoint folder made")
            response = ocp.save_async(str(temporary / "arrays"), tree)
        except Exception as error:
            raise self._failed(step, error) from error
        job = self._pool.submit(self._commit, step, temporary, response)
        self._pending = (step, job)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when no save is under way; raises CheckpointError if it failed."""
        if self._pending is None:
            return
        (step, job), self._pending = self._pending, None
        try:
            job.result()
        except Exception as error:
            raise self._failed(step, error) from error
        _barrier("checkpoint committed")

    def close(self) -> None:
        """Waits for the last save and ends the background thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def restore(
        self, abstract_state: Any, step: int | None = None
    ) -> tuple[Any, dict[str, Any], str]:
        """Reads a checkpoint into the given structure, dtypes and shardings.

        Args:
          abstract_state: the state with ShapeDtypeStruct leaves that carry shardings.
          step: which checkpoint; None takes the newest that is undamaged, and moves
            damaged newer ones to `<step>.damaged`.

        Returns:
          (state, the `extra` it was saved with, one line on what was restored).

        Raises:
          CheckpointError: none is there, none is undamaged, or its arrays do not fit.
        """
        self.wait()
        candidates = self.steps()[::-1] if step is None else [step]
        damage: list[str] = []
        # One process reads the files for checking; the others follow its choice.
        chosen = -1
        if jax.process_index() == 0:
            chosen = self._choose(candidates, damage)
        chosen = int(_from_first(chosen))
        if chosen < 0:
            raise CheckpointError(
                "; ".join(damage) or "there is no checkpoint",
                where=str(self.directory),
                fix="restore the folder from a backup, or start a new run directory",
            )
        if step is None and jax.process_index() == 0:
            for newer in (s for s in candidates if s > chosen):
                # Set aside, or it would count as the newest and its step be taken.
                aside = self.directory / f"{newer}.damaged"
                _replace(aside, self._path(newer))
        record = json.loads(self._path(chosen, _EXTRA).read_text())
        tree = serialization.to_state_dict(abstract_state)
        check_fits(tree, record["arrays"], self._path(chosen))
        try:
            arrays = ocp.load(str(self._path(chosen, "arrays")), tree)
        except Exception as error:
            raise CheckpointError(
                f"cannot read the checkpoint: {error}", where=str(self._path(chosen))
            ) from error
        message = f"restored step {chosen} from {self._path(chosen)}"
        if damage:
            message = f"{'; '.join(damage)}: {message} instead"
        state = serialization.from_state_dict(abstract_state, arrays)
        return state, record["extra"], message

    def _path(self, step: int, *names: str) -> Path:
        return self.directory.joinpath(str(step), *names)

    def _choose(self, candidates: list[int], damage: list[str]) -> int:
        """First undamaged step, or -1; says in `damage` what is wrong with others."""
        for step in candidates:
            problem = damage_of(self._path(step))
            if problem is None:
                return step
            damage.append(f"checkpoint {step} is damaged ({problem})")
        return -1

    def _commit(self, step: int, temporary: Path, response: Any) -> None:
        """Background: when Orbax is done, writes the manifest, renames and prunes."""
        response.result()
        if jax.process_index() != 0:
            return
        write_manifest(temporary)
        _replace(self._path(step), temporary)
        self._prune()

    def _prune(self) -> None:
        steps, config = self.steps(), self.config
        keep: set[int | None] = set(steps[-config.keep_last :])
        if config.keep_every_steps:
            keep |= {step for step in steps if step % config.keep_every_steps == 0}
        if config.keep_best:
            keep.add(self.best_step())
        for step in set(steps) - keep:
            _replace(self._path(step), None)

    def _clean(self) -> None:
        """Removes what a killed process left; nothing of this one is under way."""
        for pattern in (".saving-*", ".removed-*"):
            for path in self.directory.glob(pattern):
                shutil.rmtree(path)

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        with contextlib.suppress(OSError):
            self._clean()
        kept = ", ".join(map(str, self.steps())) or "none"
        cause = str(error).strip().splitlines() or [type(error).__name__]
        return CheckpointError(
            f"could not save the checkpoint of step {step}: {cause[0][:300]}",
            where=str(self.directory),
            fix="free disk space (or mend the disk) and run the same command again; "
            f"unharmed checkpoints: {kept}",
        )


def _replace(target: Path, source: Path | None) -> None:
    """Puts `source` (None: nothing) in place of the folder `target`.

    Renames first and removes after, so that a kill leaves no half checkpoint.
    """
    aside = target.with_name(f".removed-{target.name}")
    if target.exists():
        target.rename(aside)
    if source:
        source.rename(target)
    if aside.exists():
        shutil.rmtree(aside)


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _from_first(value: int) -> int:
    """The first process's value, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(value))


def read_arrays(directory: str | Path, step: int) -> dict[str, np.ndarray]:
    """Returns a checkpoint's arrays by path, whole and on the host."""
    path = str(Path(directory).absolute() / str(step) / "arrays")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        ocp.metadata(path).metadata,
    )
    return {k: np.asarray(x) for k, x in flatten(ocp.load(path, wanted)).items()}
