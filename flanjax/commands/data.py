"""`flanjax tasks` and `flanjax data fetch|prepare`."""

import argparse
import json

from flanjax.commands.modules import (
    load_modules,
    loading_tensorflow,
    prepare_config,
    run_config,
)
from flanjax.commands.tables import print_rows
from flanjax.progress import Progress


def tasks(args: argparse.Namespace) -> int:
    """Lists the tasks that the given modules register, or counts them."""
    if args.count:
        from flanjax.commands.count import count

        return count(args)
    load_modules(args)
    from flanjax.data.tasks import task_info, task_names

    infos = [task_info(name) for name in task_names()]
    columns = ("name", "collection", "dataset", "category", "prompt_type", "licence")
    rows = [[info[column] for column in columns] for info in infos]
    print_rows(f"{len(rows)} tasks", columns, rows, args.json)
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Downloads by name; what is there already costs nothing."""
    from flanjax.data.fetch import fetch as fetch_one

    progress = Progress()
    for name in args.names:
        with progress.task(f"fetching {name}", announce=False):
            path = fetch_one(name, progress.line)
        progress.line(f"{name}: {path}")
    return 0


def prepare(args: argparse.Namespace) -> int:
    """Prepares a mixture, or what a configuration asks for."""
    if "list" in args.faithful:
        return _list_switches()
    progress = Progress()
    config = _prepare_config(args)
    with progress.task("loading TensorFlow and SeqIO"), loading_tensorflow():
        from flanjax.data.prepare import prepare as run_prepare
    with progress.task("preparing", announce=False):
        path = run_prepare(config, progress.line, args.runner, args.runner_options)
    progress.line(f"prepared: {path}")
    return 0


def _prepare_config(args: argparse.Namespace):
    """The configuration: JSON (a run starting it), gin files, or the flags."""
    from flanjax.data.store import PrepareConfig

    if args.config_json:
        return PrepareConfig(**json.loads(args.config_json))
    if args.gin_file:
        return run_config(args).prepare
    return prepare_config(
        args,
        args.mixture,
        passes=args.passes,
        num_workers=args.num_workers,
        faithful=tuple(args.faithful),
    )


def _list_switches() -> int:
    from flanjax.data.faithful import SWITCHES

    rows = [[name, what] for name, what in SWITCHES.items()]
    print_rows("defects of FLAN's public code", ("switch", "what it brings back"), rows)
    return 0
