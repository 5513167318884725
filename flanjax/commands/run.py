"""`flanjax train`, `flanjax quickstart` and `flanjax report`."""

import argparse
from pathlib import Path

from flanjax.progress import Progress


def train(args: argparse.Namespace) -> int:
    """Trains as the gin files say."""
    from flanjax.errors import ConfigError

    if not args.gin_file:
        raise ConfigError(
            "no configuration given",
            fix="flanjax train --gin_file=gin/recipes/tiny.gin "
            "--gin.MODEL_DIR=runs/tiny",
        )
    progress = Progress()
    _prepare_process()
    with progress.task("starting", announce=False):
        from flanjax.config import load_config
        from flanjax.train.loop import run

    search_paths = [path for path in args.gin_search_paths.split(",") if path]
    bindings = list(args.bindings)
    if args.profile:
        bindings.append(f"MonitorConfig.profile_steps={args.profile}")
    config, text = load_config(args.gin_file, bindings, search_paths)
    return run(config, text, progress)


def quickstart(args: argparse.Namespace) -> int:
    """Runs the first real run, or with --tiny the smoke run."""
    _prepare_process()
    from flanjax.quickstart import quickstart as run_quickstart

    return run_quickstart(args.tiny, args.model_dir, Progress())


def report(args: argparse.Namespace) -> int:
    """Draws the report of a run directory again."""
    from flanjax.errors import ConfigError
    from flanjax.report.report import write_report

    if not Path(args.run).is_dir():
        raise ConfigError(f"no run directory '{args.run}'", fix="give MODEL_DIR")
    print(write_report(Path(args.run)))
    return 0


def _prepare_process() -> None:
    from flanjax.train.process import keep_compiled_programs, keep_freed_memory

    keep_freed_memory()
    keep_compiled_programs()
