"""`flanjax mixture show`: what examples of a mixture are made of, and their cost."""

import argparse
import json

import numpy as np

from flanjax.commands.modules import feature_lengths, prepare_config
from flanjax.commands.tables import print_rows
from flanjax.progress import Progress

LEDGER_COLUMNS = ("task", "rate", "share", "cap", "examples", "expected", "epochs")
COST_COLUMNS = (
    "inputs", "targets", "inputs fill", "targets fill", "cut", "examples/row",
    "padded tokens/example", "GFLOP/example", "cost",
)  # fmt: skip
# Blocks whose examples are packed to measure fill and cost.
_BLOCKS = 2
_BEST = 5


def mixture_show(args: argparse.Namespace) -> int:
    """Prints what a number of examples of the mixture would be made of."""
    from flanjax.data.ensure import ensure_prepared
    from flanjax.data.ledger import epochs, ledger, left_out

    progress = Progress()
    lengths = feature_lengths(args)
    config = prepare_config(args, args.mixture)
    say = (lambda text: None) if args.json else progress.line
    resolved = ensure_prepared(config, say)
    rows = ledger(resolved)
    for row in rows:
        row["expected_examples"] = args.examples * row["share"]
        row["epochs"] = epochs(resolved, row, row["expected_examples"])
    costs = _costs(args, resolved, lengths)
    if args.json:
        content = {
            "mixture": resolved.name,
            "members": rows,
            "missing": list(resolved.missing),
            "costs": costs,
        }
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
    _print_costs(args, costs)
    for line in left_out(resolved):
        print(f"left out: {line}")
    return 0


def _costs(args: argparse.Namespace, resolved, lengths: dict[str, int]) -> list[dict]:
    """The present lengths, and with --search_lengths the cheapest others."""
    from flanjax.data.layout import make_layout
    from flanjax.data.lengths_search import measure, search
    from flanjax.data.loader import make_plan
    from flanjax.data.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(resolved.vocabulary["spec"])
    layout = make_layout(args.kind, lengths, vocabulary)
    plan = make_plan(resolved, args.store_dir, layout, seed=0)
    blocks = [plan.block(number) for number in range(_BLOCKS)]
    places = [plan.offsets[block.members] + block.examples for block in blocks]
    raw = plan.lengths[np.concatenate(places)]
    present = measure(layout, raw)
    others = search(layout, raw)[:_BEST] if args.search_lengths else []
    return [
        {
            "inputs": cost.layout.inputs_length,
            "targets": cost.layout.targets_length,
            "inputs_fill": cost.inputs_fill,
            "targets_fill": cost.targets_fill,
            "cut": cost.cut,
            "examples_per_row": len(raw) / cost.rows,
            "padded_tokens_per_example": cost.tokens,
            "gflop_per_example": cost.flops / 1e9,
            "relative_cost": cost.flops / present.flops,
        }
        for cost in [present, *others]
    ]


def _print_costs(args: argparse.Namespace, costs: list[dict]) -> None:
    cells = [
        [
            f"{value:.1%}" if name in ("inputs_fill", "targets_fill", "cut") else value
            for name, value in cost.items()
        ]
        for cost in costs
    ]
    title = f"fill and padded cost of packed {args.kind} rows"
    if len(costs) > 1:
        title += "; below the present lengths the cheapest found"
    print_rows(f"{title} (operations of a T5 1.1 Large)", COST_COLUMNS, cells)
