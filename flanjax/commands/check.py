"""`flanjax data check`: held-out sets in the training data, and examples that are cut.

The verdict is kept in the store; `flanjax train` refuses a mixture whose check failed.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flanjax.commands.modules import (
    feature_lengths,
    load_modules,
    prepare_config,
    run_config,
)
from flanjax.commands.tables import print_rows
from flanjax.errors import ConfigError, DataError
from flanjax.progress import Progress

if TYPE_CHECKING:
    from flanjax.data.contamination import Overlap, RowTexts
    from flanjax.data.layout import Layout
    from flanjax.data.store import Member, PrepareConfig, ResolvedMixture

# A set that shares runs of words in more than this part of its rows is contaminated;
# below it they are quoted, but may be chance: proverbs, formulas, quoted laws.
MOST_SHARED = 0.01
MOST_TRUNCATED = 0.05


def data_check(args: argparse.Namespace) -> int:
    """Compares a mixture with held-out sets, looks at its lengths, keeps the verdict.

    Returns:
      0, or 3 when something was found that training should not go on with.
    """
    progress = Progress()
    say: Callable[[str], None] = (lambda text: None) if args.json else progress.line
    from flanjax.data.ensure import ensure_prepared
    from flanjax.data.guards import check_lengths

    config, layout = _what(args)
    load_modules(args, config.mixture_modules)
    resolved = ensure_prepared(config, say)
    overlaps, sets, absent = _overlaps(args, resolved, config.store_dir, say)
    lengths = check_lengths(resolved, config.store_dir, layout, threshold=1.0)
    failed = [_sentence(o) for o in overlaps if o.failed(MOST_SHARED)]
    failed += [
        f"{row['task']}: {row[name]:.1%} of {row['examples']:,} examples have "
        + name.replace("_", " ")
        for row in lengths
        for name in ("inputs_truncated", "targets_truncated", "targets_empty")
        if row[name] > MOST_TRUNCATED
    ]
    from flanjax.data.verdict import save_verdict

    verdict = {
        "mixture": resolved.name,
        "fingerprint": resolved.fingerprint,
        "ngram": args.ngram,
        "lengths": [layout.inputs_room, layout.targets_room],
        "compared_with": sets,
        "no_data": absent,
        "overlaps": [_as_json(overlap) for overlap in overlaps],
        "failed": failed,
    }
    path = save_verdict(config.store_dir, resolved, verdict)
    if args.json:
        print(json.dumps(verdict, ensure_ascii=False))
    else:
        _print(verdict, overlaps, len(resolved.members))
        progress.line(f"{'FAILED' if failed else 'clean'}: {path}")
    return DataError.exit_code if failed else 0


def _what(args: argparse.Namespace) -> tuple["PrepareConfig", "Layout"]:
    """The data of a run and its room for tokens: from gin files, or from flags."""
    from flanjax.data.layout import make_layout
    from flanjax.data.vocabulary import load_vocabulary

    if not args.gin_file:
        config = prepare_config(args, args.mixture)
        vocabulary = load_vocabulary(config.vocabulary)
        return config, make_layout(args.kind, feature_lengths(args), vocabulary)
    from flanjax.models.build import build_model

    run = run_config(args)
    data, vocabulary = run.data, load_vocabulary(run.prepare.vocabulary)
    layout = make_layout(
        build_model(run.model).kind,
        data.feature_lengths,
        vocabulary,
        data.wrapping,
        data.system_prompt,
    )
    return run.prepare, layout


def _overlaps(
    args: argparse.Namespace,
    resolved: "ResolvedMixture",
    store_dir: str,
    say: Callable[[str], None],
) -> tuple[list["Overlap"], list[str], list[str]]:
    """Returns the overlaps, the sets compared with, and those without data here."""
    from flanjax.data.contamination import HeldOutIndex

    if args.ngram < 1:
        raise ConfigError("--ngram must be at least 1", fix="13 words are customary")
    held_out, absent = _held_out(args)
    if not held_out:
        raise DataError(
            "no held-out set to compare with has data here",
            fix="name evaluations with --evals and their module with --mixtures",
        )
    index = HeldOutIndex(held_out, args.ngram)
    say(f"comparing with {len(held_out)} held-out sets, {sum(index.totals):,} rows")
    overlaps = []
    for name, rows in _training(resolved, store_dir):
        overlaps += index.compare(name, rows)
    return overlaps, sorted(held_out), absent


def _held_out(
    args: argparse.Namespace,
) -> tuple[dict[str, list["RowTexts"]], list[str]]:
    """Reads each held-out set once, whatever number of evaluations uses it."""
    from flanjax.data.row_texts import row_texts
    from flanjax.data.tasks import instruction_task
    from flanjax.eval.suites import eval_names, resolve_evals

    found, absent, seen = {}, [], set()
    for spec in resolve_evals(args.evals or eval_names()):
        task = instruction_task(spec.task)
        try:
            rows = task.source.fingerprint(spec.split)
            if rows not in seen:
                found[task.base] = list(row_texts(task, spec.split))
            seen.add(rows)
        except DataError:
            if args.evals:
                raise
            absent.append(task.base)
    return found, list(dict.fromkeys(absent))


def _training(
    resolved: "ResolvedMixture", store_dir: str
) -> Iterator[tuple[str, Iterator["RowTexts"]]]:
    """Yields each dataset of the mixture once; its prompt types share their rows."""
    from flanjax.data.row_texts import row_texts
    from flanjax.data.tasks import instruction_task, task_names

    known, seen = set(task_names()), set()
    for member in resolved.members:
        if member.name not in known:
            yield member.name, _stored_texts(resolved, store_dir, member)
            continue
        task = instruction_task(member.name)
        if task.base not in seen:
            seen.add(task.base)
            yield task.base, row_texts(task, "train")


def _stored_texts(
    resolved: "ResolvedMixture", store_dir: str, member: "Member"
) -> Iterator["RowTexts"]:
    """A SeqIO task from elsewhere: what it says is what was prepared of it."""
    from flanjax.data.contamination import RowTexts
    from flanjax.data.store import OpenStores
    from flanjax.data.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(resolved.vocabulary["spec"])
    store = OpenStores(store_dir).get(member.path)
    for start in range(0, member.num_examples, 512):
        numbers = range(start, min(start + 512, member.num_examples))
        for number, example in zip(numbers, store.read(list(numbers)), strict=True):
            yield RowTexts(
                str(number),
                (vocabulary.decode(example.inputs),),
                (vocabulary.decode(example.targets),),
            )


def _sentence(overlap: "Overlap") -> str:
    quote = overlap.quotes[0]
    return (
        f"{overlap.task} holds {overlap.exact_rows:,} rows of {overlap.held_out} and "
        f"touches {overlap.share:.1%} of it: {quote.training_row} = "
        f'{quote.held_out_row}: "{quote.text}"'
    )


def _as_json(overlap: "Overlap") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(overlap), "share": overlap.share}


def _print(verdict: dict, overlaps: list["Overlap"], members: int) -> None:
    rows = [
        [
            o.task,
            o.held_out,
            o.exact_rows,
            o.shared_rows,
            f"{o.held_out_rows:,} of {o.held_out_total:,}",
            "FAILED" if o.failed(MOST_SHARED) else "to look at",
        ]
        for o in overlaps
    ]
    columns = (
        "training task",
        "held-out set",
        "equal rows",
        f"{verdict['ngram']}-gram rows",
        "held-out rows",
        "",
    )
    sets = len(verdict["compared_with"])
    title = f"{members} tasks against {sets} held-out sets"
    if rows:
        print_rows(title, columns, rows)
    else:
        print(f"{title}: nothing in common")
    for overlap in overlaps:
        for quote in overlap.quotes:
            print(
                f"  {overlap.task} {quote.training_row} | {overlap.held_out} "
                f'{quote.held_out_row}: "{quote.text}"'
            )
    for name in verdict["no_data"]:
        print(f"  not compared, no data here: {name}")
    for sentence in verdict["failed"]:
        print(f"  FAILED: {sentence}")
