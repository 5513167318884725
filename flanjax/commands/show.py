"""`flanjax data show`: rendered examples of a task, or the batch of a run's step."""

import argparse
import json
from pathlib import Path
from typing import Any

from flanjax.commands.modules import load_modules
from flanjax.errors import ConfigError


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
    load_modules(args)
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
