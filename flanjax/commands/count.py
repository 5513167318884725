"""`flanjax tasks --count`: FLAN's collections by every way to count them."""

import argparse
import dataclasses
import json

from flanjax.commands.modules import load_modules
from flanjax.commands.tables import print_rows
from flanjax.errors import ConfigError

_COUNTED = "mixtures.flan2022"
_NUMBERS = ("paper", "listed", "registered", "present", "table", "code")
_HEADINGS = (
    "collection",
    "paper",
    "listed here",
    "registered",
    "data here",
    "public table",
    "public code",
)


def count(args: argparse.Namespace) -> int:
    """Prints how many tasks each collection has, by whom, and what is here.

    Args:
      args: `mixtures` (modules to import, by default FLAN 2022) and `json`.

    Returns:
      Exit status 0.

    Raises:
      ConfigError: the modules register no collection.
    """
    args.mixtures = args.mixtures or [_COUNTED]
    load_modules(args)
    from flanjax.data.catalog import count_collections
    from flanjax.data.located import data_root
    from flanjax.data.tasks import task_names

    counts = count_collections()
    if not counts:
        raise ConfigError(
            "these modules register no collection",
            where=", ".join(args.mixtures),
            fix=f"count {_COUNTED}, or register one: flanjax.data.catalog",
        )
    total = {name: sum(getattr(c, name) for c in counts) for name in _NUMBERS}
    root, seqio_tasks = str(data_root()), len(task_names())
    if args.json:
        collections = [dataclasses.asdict(each) for each in counts]
        result = {"collections": collections, "total": total}
        print(json.dumps({**result, "seqio_tasks": seqio_tasks, "data_root": root}))
        return 0
    rows = [[c.name, *(getattr(c, name) for name in _NUMBERS)] for c in counts]
    rows.append(["total", *total.values()])
    cells = [[f"{x:,}" if isinstance(x, int) else x for x in row] for row in rows]
    print_rows("tasks by collection", _HEADINGS, cells)
    papers = " + ".join(f"{each.paper:,}" for each in counts)
    tables = " + ".join(f"{each.table:,}" for each in counts)
    print(f"paper: {papers} = {total['paper']:,}")
    print(f"public table, inverted uses counted: {tables} = {total['table']:,}")
    for each in counts:
        print(f"{each.name}: {each.note}")
    print(f"{seqio_tasks:,} SeqIO tasks: each in several prompt types and forms")
    print(f"data here: below {root} (FLANJAX_DATA), or prepared by TFDS")
    return 0
