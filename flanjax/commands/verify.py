"""`flanjax verify golden|packing|resume`: exit status 1 when a check fails."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flanjax.commands.tables import print_rows
from flanjax.progress import Progress


def golden(args: argparse.Namespace) -> int:
    """Compares with numbers recorded from T5X."""
    from flanjax.ops.verify_golden import verify_golden

    rows = verify_golden(Path(args.directory))
    columns = ("check", "max error", "tolerance", "verdict")
    return _verdict("parity with T5X", columns, rows, args.json)


def packing(args: argparse.Namespace) -> int:
    """Proves that packed examples do not see each other."""
    from flanjax.ops.verify_packing import verify_packing

    columns = ("check", "value", "tolerance", "verdict")
    return _verdict("packing", columns, verify_packing(), args.json)


def resume(args: argparse.Namespace) -> int:
    """Proves that a killed run goes on exactly."""
    from flanjax.ops.verify_resume import verify_resume

    files = args.gin_file or ["gin/recipes/tiny.gin"]
    flags = [f"--gin_file={name}" for name in files]
    # Saves often, so that kills fall between, during and after saves.
    flags += ["--gin.SAVE_PERIOD=4", "--gin.EVAL_PERIOD=0"]
    flags += [f"--gin.{binding}" for binding in args.bindings]
    with tempfile.TemporaryDirectory(prefix="flanjax_resume_") as scratch:
        rows = verify_resume(
            flags,
            Path(scratch),
            args.steps,
            args.kills,
            args.seed,
            Progress(),
        )
    columns = ("check", "found", "expected", "verdict")
    return _verdict("resume", columns, rows, args.json)


def _verdict(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], as_json: bool
) -> int:
    print_rows(title, columns, rows, as_json)
    verdict = columns.index("verdict")
    return 0 if rows and all(row[verdict] is True for row in rows) else 1
