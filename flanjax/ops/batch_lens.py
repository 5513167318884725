"""Rebuilds the batch a run used at a step, and prints what is in it.

    flanjax data show --run runs/tiny --step 120

A batch is a pure function of the run's configuration and its step, so nothing was
stored: the plan is made again and its hash compared with the one in metrics.jsonl.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
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
from flanjax.train.metrics import read_metrics

COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")


def show_batch(run_dir: Path, step: int, num: int, as_json: bool) -> None:
    """Prints the first rows of the batch that update `step` used.

    Args:
      run_dir: a run directory with config.gin.
      step: updates done before it (0 is the first batch).
      num: rows to print.
      as_json: one JSON object per example instead.

    Raises:
      ConfigError: no such run, or the data is no longer what the run used.
    """
    path = run_dir / "config.gin"
    if not path.exists():
        raise ConfigError(f"no config.gin in '{run_dir}'", fix="give a MODEL_DIR")
    config, _ = load_config([str(path)])
    vocabulary = load_vocabulary(config.prepare.vocabulary)
    resolved = ensure_prepared(config.prepare, lambda text: None)
    batch = _batch(config, vocabulary, resolved, step)
    _check_hash(run_dir, step, batch.hash)
    stores = OpenStores(config.prepare.store_dir)
    console = Console(soft_wrap=True)
    for index, pairs in enumerate(batch.examples[:num]):
        metas = []
        for member, example in pairs:
            entry = resolved.members[member]
            meta = stores.get(entry.path).read([example])[0].meta
            metas.append({"task": entry.name, **meta})
        if as_json:
            for segment, meta in enumerate(metas, 1):
                print(json.dumps({"row": index, "segment": segment, **meta}))
        else:
            _print_row(console, vocabulary, batch.features, index, metas)


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
    batches = make_loader(
        resolved,
        store_dir,
        layout,
        data.batch_size,
        config.seed,
        position=plan.position_of(step, data.batch_size),
        plan=plan,
    )
    return next(batches)


def _check_hash(run_dir: Path, step: int, found: str) -> None:
    """The loss logged at step + 1 was computed on this batch."""
    for row in read_metrics(run_dir):
        if row["kind"] == "train" and row["step"] == step + 1:
            if row["batch_hash"] != found:
                raise ConfigError(
                    f"the batch of step {step} is not the one the run used",
                    where=str(run_dir),
                    fix="the store was prepared again since; restore its tasks",
                )


def _print_row(
    console: Console,
    vocabulary: Vocabulary,
    features: dict[str, np.ndarray],
    index: int,
    metas: list[dict[str, Any]],
) -> None:
    console.rule(f"row {index}: {len(metas)} examples", align="left")
    for stack in ("encoder", "decoder"):
        if f"{stack}_segment_ids" not in features:
            continue
        name = "input" if stack == "encoder" else "target"
        tokens = features[f"{stack}_{name}_tokens"][index]
        segments = features[f"{stack}_segment_ids"][index]
        weights = features.get("decoder_loss_weights")
        for segment in range(1, len(metas) + 1):
            here = segments == segment
            text = Text(style=COLOURS[segment % len(COLOURS)])
            if stack == "encoder" or weights is None:
                text.append(vocabulary.decode_all(tokens[here].tolist()))
            else:
                learned = weights[index][here] > 0
                text.append(vocabulary.decode_all(tokens[here][~learned].tolist()))
                text.append(
                    vocabulary.decode_all(tokens[here][learned].tolist()),
                    style="bold underline",
                )
            console.print(f"[{stack} {segment}]", end=" ", markup=False)
            console.print(text)
    for segment, meta in enumerate(metas, 1):
        facts = ("task", "template_id", "row_id", "shot_ids")
        line = "  ".join(f"{fact}={meta.get(fact)}" for fact in facts)
        console.print(f"  {segment}: {line}", markup=False)
