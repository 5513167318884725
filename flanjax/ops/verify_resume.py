"""Proves that a run killed at any moment and started again is the same run.

Two runs of one configuration, each in processes of its own: one undisturbed, one
killed (SIGKILL) at several steps and at least once while a checkpoint is being
written, then started again by the same command. Equal batch hashes at every step and
bit-equal final parameters and optimiser state mean that nothing was lost, repeated or
recomputed differently.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flanjax.errors import ConfigError
from flanjax.progress import Progress
from flanjax.train.checkpoint import read_arrays

SAVING = -1  # A kill point: while a checkpoint is being written.


def verify_resume(
    flags: Sequence[str],
    directory: Path,
    steps: int,
    kills: int,
    seed: int,
    progress: Progress,
) -> list[tuple[str, str, str, bool]]:
    """Runs both and compares.

    Args:
      flags: gin flags of the configuration; model directory and steps are added.
      directory: scratch folder for the run directories.
      steps: training steps of each run.
      kills: how many times the second run is killed, the last time during a save.
      seed: chooses the steps.
      progress: told which run is under way.

    Returns:
      Rows (check, found, expected, ok).

    Raises:
      ConfigError: the command itself fails when left alone.
    """
    straight, killed = directory / "straight", directory / "killed"
    with progress.task("undisturbed run"):
        _finish(flags, straight, steps)
    rng = random.Random(seed)
    points = sorted(rng.sample(range(1, steps - 1), min(kills - 1, steps - 2)))
    done = []
    for point in [*points, SAVING]:
        with progress.task(f"run killed {_name(point)}"):
            done.append((point, _kill(flags, killed, steps, point)))
    with progress.task("the killed run goes on to its end"):
        _finish(flags, killed, steps)
    rows = [
        (f"killed {_name(point)}", f"at step {step}", "killed", step is not None)
        for point, step in done
    ]
    return rows + _compare(straight, killed, steps)


def _name(point: int) -> str:
    return "during a save" if point == SAVING else f"after step {point}"


def _command(flags: Sequence[str], model_dir: Path, steps: int) -> list[str]:
    return [
        *(sys.executable, "-m", "flanjax", "train", *flags),
        f"--gin.MODEL_DIR={model_dir}",
        f"--gin.TRAIN_STEPS={steps}",
    ]


def _start(flags: Sequence[str], model_dir: Path, steps: int) -> subprocess.Popen[str]:
    # One compilation serves every start; it does not change what is computed.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(model_dir.parent / "xla_cache")}
    model_dir.mkdir(parents=True, exist_ok=True)
    with open(model_dir / "output.txt", "a") as output:
        return subprocess.Popen(
            _command(flags, model_dir, steps),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | cache,
        )


def _finish(flags: Sequence[str], model_dir: Path, steps: int) -> None:
    status = _start(flags, model_dir, steps).wait()
    if status:
        tail = (model_dir / "output.txt").read_text()[-2000:]
        raise ConfigError(
            f"the training command ended with status {status}:\n{tail}",
            where=str(model_dir),
        )


def _kill(flags: Sequence[str], model_dir: Path, steps: int, point: int) -> int | None:
    """Starts the run and kills it at the point; returns the last step logged."""
    process = _start(flags, model_dir, steps)
    reached: Callable[[], bool]
    if point == SAVING:
        reached = lambda: _is_saving(model_dir)  # noqa: E731
    else:
        reached = lambda: max(_steps(model_dir), default=0) >= point  # noqa: E731
    while process.poll() is None:
        if reached():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return max(_steps(model_dir), default=0)
        time.sleep(0.001)
    return None  # It ended before it could be killed.


def _is_saving(model_dir: Path) -> bool:
    """A half-written checkpoint: the folder of a save that is not committed."""
    folder = model_dir / "checkpoints"
    return folder.is_dir() and any(folder.glob(".saving-*"))


def _steps(model_dir: Path) -> dict[int, str]:
    """Batch hash of every logged training step; the last line of a step counts."""
    path = model_dir / "metrics.jsonl"
    hashes = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # The line being written when the process was killed.
        if row["kind"] == "train":
            hashes[row["step"]] = row["batch_hash"]
    return hashes


def _compare(
    straight: Path, killed: Path, steps: int
) -> list[tuple[str, str, str, bool]]:
    expected, found = _steps(straight), _steps(killed)
    same = sum(expected.get(s) == found.get(s) is not None for s in range(1, steps + 1))
    rows = [("batch hashes equal", f"{same} steps", f"{steps} steps", same == steps)]
    before, after = (
        read_arrays(path / "checkpoints", steps) for path in (straight, killed)
    )
    equal = [
        name
        for name in before
        if name in after
        and before[name].dtype == after[name].dtype
        and before[name].tobytes() == after[name].tobytes()
    ]
    ok = len(equal) == len(before) == len(after) > 0
    rows.append(
        ("final arrays bit-equal", f"{len(equal)}", f"{len(before)} arrays", ok)
    )
    return rows
