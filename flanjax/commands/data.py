"""`flanjax tasks`, `flanjax mixture show` and `flanjax data fetch|prepare|show`."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from flanjax.commands.tables import print_rows
from flanjax.errors import ConfigError
from flanjax.progress import Progress

DEFAULT_MODULES = ("mixtures.tiny",)
LEDGER_COLUMNS = ("task", "rate", "share", "cap", "examples", "expected", "epochs")


def tasks(args: argparse.Namespace) -> int:
    """Lists the tasks that the given modules register."""
    _import_modules(args)
    from flanjax.data.tasks import task_info, task_names

    infos = [task_info(name) for name in task_names()]
    columns = ("name", "collection", "dataset", "category", "prompt_type", "licence")
    rows = [[info[column] for column in columns] for info in infos]
    print_rows(f"{len(rows)} tasks", columns, rows, args.json)
    return 0


def mixture_show(args: argparse.Namespace) -> int:
    """Prints what a number of examples of the mixture would be made of."""
    from flanjax.data.ensure import ensure_prepared
    from flanjax.data.ledger import ledger
    from flanjax.data.store import PrepareConfig

    progress = Progress()
    config = PrepareConfig(
        mixture=args.mixture,
        mixture_modules=tuple(args.mixtures) or DEFAULT_MODULES,
        vocabulary=args.vocabulary,
        store_dir=args.store_dir,
    )
    say = (lambda text: None) if args.json else progress.line
    resolved = ensure_prepared(config, say)
    rows = ledger(resolved)
    for row in rows:
        row["expected_examples"] = args.examples * row["share"]
        row["epochs"] = row["expected_examples"] / row["examples"]
    if args.json:
        print(json.dumps({"mixture": resolved.name, "members": rows}))
        return 0
    cells = [
        [
            row["task"],
            float(row["rate"]),
            f"{row['share']:.2%}",
            row["cap"] or "",
            row["examples"],
            round(row["expected_examples"]),
            f"{row['epochs']:.2f}" + (" !" if row["epochs"] > 5 else ""),
        ]
        for row in rows
    ]
    title = f"{resolved.name}: {args.examples:,} examples (! = more than 5 epochs)"
    print_rows(title, LEDGER_COLUMNS, cells)
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
    """Prepares what a configuration asks for."""
    from flanjax.data.store import PrepareConfig

    progress = Progress()
    if args.config_json:
        config = PrepareConfig(**json.loads(args.config_json))
    elif args.gin_file:
        from flanjax.config import load_config

        # Where the run will be kept does not matter to its data.
        bindings = ["MODEL_DIR=unused", *args.bindings]
        paths = [path for path in args.gin_search_paths.split(",") if path]
        config = load_config(args.gin_file, bindings, paths)[0].prepare
    else:
        raise ConfigError(
            "no configuration given",
            fix="flanjax data prepare --gin_file=gin/recipes/tiny.gin",
        )
    _quiet_tensorflow()
    with progress.task("loading TensorFlow and SeqIO"):
        from flanjax.data.prepare import prepare as run_prepare
    with progress.task("preparing", announce=False):
        path = run_prepare(config, progress.line)
    progress.line(f"prepared: {path}")
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints examples of a task, or the batch a run used at a step."""
    if args.run:
        from flanjax.ops.batch_lens import show_batch

        show_batch(Path(args.run), args.step, args.num, args.json)
        return 0
    if not args.task:
        raise ConfigError(
            "nothing to show",
            fix="name a task (flanjax tasks), or --run DIR --step N",
        )
    _import_modules(args)
    from flanjax.data.tasks import task_examples

    for example in task_examples(args.task, args.split, args.num):
        if args.json:
            print(json.dumps(example))
        else:
            _print_example(example)
    return 0


def _print_example(example: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    facts = ("row_id", "template_id", "prompt_type", "shot_ids")
    console.rule("  ".join(f"{key}={example[key]}" for key in facts), align="left")
    console.print(Text(example["inputs_pretokenized"]))
    console.print(Text(example["targets_pretokenized"], style="bold green"))


def _import_modules(args: argparse.Namespace) -> None:
    _quiet_tensorflow()
    with Progress().task("loading TensorFlow and SeqIO", announce=False):
        from flanjax.data.tasks import import_mixtures

        import_mixtures(tuple(args.mixtures) or DEFAULT_MODULES)


def _quiet_tensorflow() -> None:
    """Its notes on missing GPUs are of no use here; the variable set by hand wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
