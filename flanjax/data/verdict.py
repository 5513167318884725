"""What `flanjax data check` found about a prepared mixture, kept for the trainer.

    save_verdict(store_dir, resolved, {"failed": [...], ...})
    refuse_failed(store_dir, resolved, allow=False)      # raises DataError

The verdict belongs to the mixture's fingerprint: other data, other verdict.
"""

import json
import os
from pathlib import Path
from typing import Any

from flanjax.data.store import ResolvedMixture
from flanjax.errors import DataError

_LISTED = 10


def verdict_path(store_dir: str | os.PathLike, resolved: ResolvedMixture) -> Path:
    """Returns where the verdict on a prepared mixture lies."""
    name = f"{resolved.name}-{resolved.fingerprint}.json"
    return Path(store_dir) / "checks" / name


def save_verdict(
    store_dir: str | os.PathLike, resolved: ResolvedMixture, verdict: dict[str, Any]
) -> Path:
    """Writes a verdict, whole or not at all.

    Args:
      store_dir: the store.
      resolved: the mixture it is about.
      verdict: JSON values; `failed` is a list of sentences, empty for a clean mixture.
    """
    path = verdict_path(store_dir, resolved)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(verdict, indent=1, ensure_ascii=False))
    os.replace(temporary, path)
    return path


def refuse_failed(
    store_dir: str | os.PathLike, resolved: ResolvedMixture, allow: bool
) -> str | None:
    """Stops a run on a mixture whose check failed.

    Args:
      store_dir: the store.
      resolved: the mixture to train on.
      allow: go on all the same.

    Returns:
      A line for the log when the run goes on in spite of a failed check, else None.

    Raises:
      DataError: the check failed; names what it found.
    """
    path = verdict_path(store_dir, resolved)
    if not path.exists():
        return None
    failed = json.loads(path.read_text())["failed"]
    if not failed:
        return None
    if allow:
        return f"training although the data check failed ({len(failed)} findings)"
    rest = [f"and {len(failed) - _LISTED} more"] * (len(failed) > _LISTED)
    raise DataError(
        f"the check of mixture '{resolved.name}' failed:\n  "
        + "\n  ".join([*failed[:_LISTED], *rest]),
        where=str(path),
        fix="leave those tasks or rows out and check again (flanjax data check), or "
        "set DataConfig.allow_failed_check = True",
    )
