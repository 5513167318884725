"""`flanjax mixture show`: what a number of examples of a mixture is made of."""

import argparse
import json

from flanjax.commands.modules import mixture_modules
from flanjax.commands.tables import print_rows
from flanjax.progress import Progress

LEDGER_COLUMNS = ("task", "rate", "share", "cap", "examples", "expected", "epochs")


def mixture_show(args: argparse.Namespace) -> int:
    """Prints what a number of examples of the mixture would be made of."""
    from flanjax.data.ensure import ensure_prepared
    from flanjax.data.ledger import left_out, ledger
    from flanjax.data.store import PrepareConfig

    progress = Progress()
    config = PrepareConfig(
        mixture=args.mixture,
        mixture_modules=mixture_modules(args),
        vocabulary=args.vocabulary,
        store_dir=args.store_dir,
        allow_missing=args.allow_missing,
    )
    say = (lambda text: None) if args.json else progress.line
    resolved = ensure_prepared(config, say)
    rows = ledger(resolved)
    for row in rows:
        row["expected_examples"] = args.examples * row["share"]
        row["epochs"] = row["expected_examples"] / row["examples"]
    if args.json:
        missing = list(resolved.missing)
        content = {"mixture": resolved.name, "members": rows, "missing": missing}
        print(json.dumps(content))
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
    for line in left_out(resolved):
        print(f"left out: {line}")
    return 0
