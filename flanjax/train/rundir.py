"""The run directory: what a run writes about itself, besides metrics and records.

    config.gin        the configuration as resolved; parses to the same run
    environment.json  versions, devices, git state, command
    ledger.json       what was trained on, expected and realised
    results.json      {step: {eval: {metric: {value, n, stderr, low, high}}}}
    status.json       running, finished, interrupted or failed, and where time went

Every file is replaced in one move, so that a killed run leaves no half file.
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from flanjax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside `path` and moves it there."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1, default=str) + "\n")
    os.replace(temporary, path)


def read_json(path: Path, default: Any) -> Any:
    """Returns the file's value, or `default` where it does not exist."""
    return json.loads(path.read_text()) if path.exists() else default


class RunDir:
    """One run directory; safe to open again when a run resumes."""

    def __init__(self, path: str | os.PathLike[str], steps_total: int):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        previous = read_json(self.path / "status.json", {})
        self._status: dict[str, Any] = {
            "state": "running",
            "steps_done": previous.get("steps_done", 0),
            "steps_total": steps_total,
            "started": previous.get("started", time.time()),
            "starts": previous.get("starts", 0) + 1,
            "seconds": previous.get("seconds", {}),
            "message": "",
        }

    def describe(self, config_text: str, extra: dict[str, Any]) -> None:
        """Writes config.gin and environment.json.

        Args:
          config_text: the resolved gin text.
          extra: facts known only now: devices, model size, what was restored.
        """
        (self.path / "config.gin").write_text(config_text)
        write_json(self.path / "environment.json", environment() | extra)

    def status(self, **changes: Any) -> None:
        """Updates status.json: state, steps_done, message, seconds."""
        seconds = changes.pop("seconds", {})
        self._status.update(changes, updated=time.time())
        for name, value in seconds.items():
            total = self._status["seconds"].get(name, 0.0) + value
            self._status["seconds"][name] = round(total, 3)
        write_json(self.path / "status.json", self._status)

    def results(self, step: int, scores: dict[str, dict[str, Any]]) -> None:
        """Adds one evaluation's scores under its step."""
        path = self.path / "results.json"
        results = read_json(path, {})
        results[str(step)] = scores
        write_json(path, results)


def environment() -> dict[str, Any]:
    """Versions, machine, git state and command line of this process."""
    return {
        "flanjax": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "command": " ".join(sys.argv),
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any]:
    """Commit and whether files differ from it; empty outside a git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed_files": len(git("status", "--porcelain").splitlines()),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}
