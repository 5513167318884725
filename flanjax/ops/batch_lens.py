"""Rebuilds the batch a run used at a step, and shows what is in it.

    flanjax data show --run runs/tiny --step 120 --html batch.html

A batch is a pure function of the run's configuration and its step, so nothing was
stored: the plan is made again and its hash compared with the one in metrics.jsonl.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flanjax.config import RunConfig, load_config
from flanjax.data.ensure import ensure_prepared
from flanjax.data.layout import make_layout
from flanjax.data.loader import Batch, make_loader, make_plan
from flanjax.data.store import OpenStores, ResolvedMixture
from flanjax.data.vocabulary import Vocabulary, load_vocabulary
from flanjax.errors import ConfigError
from flanjax.models.build import build_model
from flanjax.report.data_page import DataPage, write_data_page
from flanjax.report.shown import (
    PackedRow,
    Shown,
    Stack,
    all_ids,
    packed_row,
    pieces,
)
from flanjax.train.metrics import read_metrics

COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")
_IN_TERMINAL, _ON_PAGE = 3, 24


def show_batch(
    run_dir: Path, step: int, num: int | None, as_json: bool, page: Path | None
) -> None:
    """Shows the first rows of the batch that update `step` used.

    Args:
      run_dir: a run directory with config.gin.
      step: updates done before it (0 is the first batch).
      num: rows to show; None for a few, and more on a page.
      as_json: print one JSON object per example instead.
      page: write an HTML page there instead.

    Raises:
      ConfigError: no such run or step, or the data is no longer what the run used.
    """
    path = run_dir / "config.gin"
    if not path.exists():
        raise ConfigError(f"no config.gin in '{run_dir}'", fix="give a MODEL_DIR")
    if step < 0 or (num is not None and num < 1):
        raise ConfigError(
            f"--step {step} --num {num} shows nothing",
            fix="steps start at 0; show at least one row",
        )
    config, _ = load_config([str(path)])
    vocabulary = load_vocabulary(config.prepare.vocabulary)
    resolved = ensure_prepared(config.prepare, lambda text: None)
    batch = _batch(config, vocabulary, resolved, step)
    logged = _check_hash(run_dir, step, batch.hash)
    num = num or (_ON_PAGE if page else _IN_TERMINAL)
    examples, rows = _contents(config, resolved, batch, num)
    if page:
        texts = pieces(vocabulary, all_ids(examples, rows))
        title, facts = f"{run_dir.name}, step {step}", _facts(config, batch, logged)
        facts.append(("vocabulary", f"{vocabulary.spec}, {vocabulary.size:,} ids"))
        content = DataPage(title, "batch", examples, rows, texts, facts)
        write_data_page(page, content)
        size = page.stat().st_size / 1000
        print(f"{page}: {len(examples)} examples in {len(rows)} rows, {size:.0f} kB")
        return
    console = Console(soft_wrap=True)
    for row in rows:
        segments = [examples[index] for index in row.examples]
        if as_json:
            for segment, example in enumerate(segments, 1):
                place = {"row": row.number, "segment": segment}
                print(json.dumps(place | example.as_json()))
        else:
            _print_row(console, vocabulary, row, segments)


def _batch(
    config: RunConfig, vocabulary: Vocabulary, resolved: ResolvedMixture, step: int
) -> Batch:
    data, store_dir = config.data, config.prepare.store_dir
    kind = build_model(config.model).kind
    layout = make_layout(
        kind, data.feature_lengths, vocabulary, data.wrapping, data.system_prompt
    )
    plan = make_plan(
        resolved, store_dir, layout, config.seed, data.block_examples, data.packing
    )
    with make_loader(
        resolved,
        store_dir,
        layout,
        data.batch_size,
        config.seed,
        position=plan.position_of(step, data.batch_size),
        prefetch=0,
        plan=plan,
    ) as batches:
        return next(batches)


def _check_hash(run_dir: Path, step: int, found: str) -> bool:
    """The loss logged at step + 1 was computed on this batch; False if none was."""
    logged = False
    for row in read_metrics(run_dir):
        if row["kind"] == "train" and row["step"] == step + 1:
            logged = True
            if row["batch_hash"] != found:
                raise ConfigError(
                    f"the batch of step {step} is not the one the run used",
                    where=str(run_dir),
                    fix="the store was prepared again since; restore its tasks",
                )
    return logged


def _contents(
    config: RunConfig, resolved: ResolvedMixture, batch: Batch, num: int
) -> tuple[list[Shown], list[PackedRow]]:
    """The first rows, and the examples that are their segments."""
    stores = OpenStores(config.prepare.store_dir)
    examples: list[Shown] = []
    rows: list[PackedRow] = []
    for number, pairs in enumerate(batch.examples[:num]):
        first = len(examples)
        for member, index in pairs:
            entry = resolved.members[member]
            example = stores.get(entry.path).read([index])[0]
            shown = Shown.of(
                example.meta,
                task=entry.name,
                split=config.prepare.split,
                dataset=entry.info.get("dataset", ""),
                share=entry.share,
                inputs=example.meta.get("inputs_pretokenized", ""),
                targets=example.meta.get("targets_pretokenized", ""),
                input_ids=example.inputs.tolist(),
                target_ids=example.targets.tolist(),
            )
            examples.append(shown)
        segments = range(first, len(examples))
        rows.append(packed_row(batch.features, number, segments))
    return examples, rows


def _facts(config: RunConfig, batch: Batch, logged: bool) -> list[tuple[str, str]]:
    data = config.data
    lengths = data.feature_lengths
    state = "as logged by the run" if logged else "not logged by the run"
    return [
        ("mixture", config.prepare.mixture),
        ("batch", f"{data.batch_size:,} rows, {int(batch.counts.sum()):,} examples"),
        ("rows", f"{lengths['inputs']:,} / {lengths['targets']:,} tokens"),
        ("hash", f"{batch.hash}, {state}"),
    ]


def _print_row(
    console: Console,
    vocabulary: Vocabulary,
    row: PackedRow,
    examples: Sequence[Shown],
) -> None:
    fills = "  ".join(f"{stack.name} {stack.fill:.1%} full" for stack in row.stacks)
    console.rule(f"row {row.number}: {len(examples)} examples  {fills}", align="left")
    for stack in row.stacks:
        for segment in range(1, len(examples) + 1):
            text = Text(style=COLOURS[segment % len(COLOURS)])
            for ids, loss in _parts(stack, segment):
                style = "bold underline" if loss else ""
                text.append(vocabulary.decode_all(ids), style=style)
            console.print(f"[{stack.name} {segment}]", end=" ", markup=False)
            console.print(text)
    for segment, example in enumerate(examples, 1):
        known = dataclasses.asdict(example)
        facts = ("task", "template_id", "row_id", "shot_ids")
        line = "  ".join(f"{fact}={known[fact]}" for fact in facts)
        console.print(f"  {segment}: {line}", markup=False)


def _parts(stack: Stack, segment: int) -> list[tuple[list[int], bool]]:
    """The tokens of a segment, those without and those with loss apart."""
    parts, place = [], 0
    for run in stack.runs:
        if run.segment == segment:
            parts.append((list(stack.ids[place : place + run.count]), run.loss))
        place += run.count
    return parts
