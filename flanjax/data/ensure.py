"""Opens a prepared mixture, preparing it first in a process of its own if need be.

Preparing imports TensorFlow and SeqIO; training does not. So the trainer reads the
small JSON that `flanjax data prepare` leaves, and starts that command itself when the
JSON is missing or the files that define the mixture have changed.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable

from flanjax.data.store import PrepareConfig, ResolvedMixture, is_fresh, resolved_path
from flanjax.errors import DataError, UserError


def ensure_prepared(
    config: PrepareConfig, say: Callable[[str], None]
) -> ResolvedMixture:
    """Returns the resolved mixture, prepared and up to date.

    Args:
      config: which mixture, vocabulary, evaluations and store.
      say: prints one line; told why something is prepared, and its progress.

    Raises:
      UserError: what the preparing process found wrong, with its exit status.
    """
    path = resolved_path(config)
    fresh, reason = is_fresh(path)
    if not fresh:
        say(f"preparing data: {reason}")
        _prepare_in_process(config, say)
        fresh, reason = is_fresh(path)
        if not fresh:
            raise DataError(f"prepared data cannot be used: {reason}", where=str(path))
    resolved = ResolvedMixture.load(path)
    if resolved.missing:
        say(
            f"without {len(resolved.missing):,} task splits whose data are missing; "
            "`flanjax data prepare` looks for them again"
        )
    return resolved


def _prepare_in_process(config: PrepareConfig, say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "flanjax", "data", "prepare", "--config_json"]
    command.append(json.dumps(dataclasses.asdict(config)))
    # A file, not a pipe: TensorFlow's warnings could fill a pipe that nobody reads.
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                say("  " + line.rstrip())
            status = process.wait()
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
        errors.seek(0)
        text = errors.read()
    if status:
        error = UserError(_message(text) or f"data prepare ended with {status}")
        error.exit_code = status if status in (2, 3) else 1
        raise error


def _message(errors: str) -> str:
    """The child's one clear message, without the warnings of its libraries."""
    # At the start of a line: a problem inside the message may say "error: " too.
    _, found, message = f"\n{errors}".rpartition("\nerror: ")
    return message.strip() if found else errors.strip()
