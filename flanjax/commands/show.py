"""`flanjax data show`: rendered examples, or the batch of a run's step."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flanjax.commands.modules import (
    feature_lengths,
    load_modules,
    mixture_modules,
    prepare_config,
)
from flanjax.errors import ConfigError
from flanjax.progress import Progress

if TYPE_CHECKING:
    from flanjax.data.store import ResolvedMixture
    from flanjax.data.vocabulary import Vocabulary
    from flanjax.ops.data_lens import Look
    from flanjax.report.shown import Shown

_IN_TERMINAL, _MIXTURE_IN_TERMINAL, _ON_PAGE, _ROWS_ON_PAGE = 3, 8, 96, 12


def show(args: argparse.Namespace) -> int:
    """Prints examples, or the batch a run used at a step; --html writes a page."""
    if args.run:
        from flanjax.ops.batch_lens import show_batch

        page = Path(args.html) if args.html else None
        show_batch(Path(args.run), args.step, args.num, args.json, page)
        return 0
    if not args.task:
        raise ConfigError(
            "nothing to show",
            fix="name a task (flanjax tasks), or --run DIR --step N",
        )
    look, vocabulary = _look(args)
    if args.html:
        _write_page(args, look, vocabulary)
    elif args.json:
        for example in look.examples:
            print(json.dumps(example.as_json()))
    else:
        print_examples(look.examples)
    for line in look.left_out:
        print(f"left out: {line}", file=sys.stderr)
    if look.is_mixture and not look.exact:
        print(_INEXACT, file=sys.stderr)
    return 0


_INEXACT = (
    "shares are estimates, with every task at its cap: numbers of examples are known "
    "once the mixture is prepared"
)


def _look(args: argparse.Namespace) -> "tuple[Look, Vocabulary]":
    feature_lengths(args)  # A bad flag is told before minutes of work.
    load_modules(args)
    import seqio

    from flanjax.data.seqio_vocabulary import set_default_vocabulary
    from flanjax.data.vocabulary import load_vocabulary
    from flanjax.ops.data_lens import look_at

    set_default_vocabulary(args.vocabulary)
    vocabulary = load_vocabulary(args.vocabulary)
    num = args.num
    if num is None:
        is_task = args.task in seqio.TaskRegistry.names()
        num = _IN_TERMINAL if is_task else _MIXTURE_IN_TERMINAL
        num = _ON_PAGE if args.html else num
    with Progress(sys.stderr).task(f"rendering {args.task}", announce=False):
        look = look_at(
            args.task,
            args.split,
            num,
            seqio.TaskRegistry,
            seqio.MixtureRegistry,
            vocabulary,
            _prepared(args),
        )
    return look, vocabulary


def _prepared(args: argparse.Namespace) -> "ResolvedMixture | None":
    """The prepared mixture, which knows the shares, if it is up to date."""
    from flanjax.data.store import ResolvedMixture, is_fresh, resolved_path

    path = resolved_path(prepare_config(args, args.task, split=args.split))
    return ResolvedMixture.load(path) if is_fresh(path)[0] else None


def _write_page(
    args: argparse.Namespace, look: "Look", vocabulary: "Vocabulary"
) -> None:
    from flanjax.data.layout import make_layout
    from flanjax.ops.data_lens import packed
    from flanjax.report.data_page import DataPage, write_data_page
    from flanjax.report.shown import all_ids, pieces

    lengths = feature_lengths(args)
    layout = make_layout(args.kind, lengths, vocabulary)
    rows = packed(look.examples, layout, _ROWS_ON_PAGE)
    shown = {example.task for example in look.examples}
    facts = [
        ("tasks", f"{len(shown):,} of {look.members:,}"),
        ("templates", f"{len({e.template_id for e in look.examples}):,}"),
        ("split", args.split),
        ("vocabulary", f"{args.vocabulary}, {vocabulary.size:,} ids"),
        ("rows", f"{args.kind}, {lengths['inputs']:,} / {lengths['targets']:,} tokens"),
        ("modules", ", ".join(mixture_modules(args))),
    ]
    inexact = look.is_mixture and not look.exact
    page = DataPage(
        title=look.name,
        kind="mixture" if look.is_mixture else "task",
        examples=look.examples,
        rows=rows,
        pieces=pieces(vocabulary, all_ids(look.examples, rows)),
        facts=facts,
        notes=[f"{_INEXACT[0].upper()}{_INEXACT[1:]}."] if inexact else [],
        left_out=look.left_out,
    )
    path = write_data_page(args.html, page)
    print(f"{path}: {len(look.examples)} examples, {path.stat().st_size / 1000:.0f} kB")


def print_examples(examples: "Sequence[Shown]") -> None:
    """Prints examples: exemplars dim, then the query, targets in bold green."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for e in examples:
        title = Text(e.task, style="bold")
        for part in (e.collection, e.prompt_type, e.template_id):
            title.append(f"  {part}" if part else "", style="not bold")
        if e.share is not None:
            title.append(f"  {e.share:.2%} of the mixture", style="not bold dim")
        console.rule(title, align="left")
        text = Text(e.inputs[: e.query_start], style="dim")
        console.print(text.append(e.inputs[e.query_start :], style="not dim"))
        console.print(Text("→ ").append(e.targets, style="bold green"))
        facts = [f"{e.split} row {e.row_id or '?'}"]
        if e.shot_ids:
            facts.append(f"exemplars {', '.join(e.shot_ids)}")
        facts.append(f"{len(e.input_ids):,} + {len(e.target_ids):,} tokens")
        if e.choices:
            facts.append(f"choices {' | '.join(map(repr, e.choices))}")
        console.print(Text("  ".join(facts), style="dim"))
