"""Looks at a run's data, evaluations and initial weights as training would open them.

    found = look_at_data(config)
    found.failures      # what is wrong with which member of the mixture

Reads the prepared store only: seconds, and no TensorFlow.
"""

import dataclasses

import numpy as np

from flanjax.config import RunConfig
from flanjax.convert.place import parameter_shapes
from flanjax.data.guards import check_lengths
from flanjax.data.layout import Layout, make_layout
from flanjax.data.store import (
    OpenStores,
    ResolvedMixture,
    is_fresh,
    resolved_path,
)
from flanjax.data.verdict import refuse_failed
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError, DataError, UserError
from flanjax.eval.suites import from_json
from flanjax.models.build import build_model
from flanjax.train.initial import planned
from flanjax.train.trainable import trainable

_LISTED = 20


@dataclasses.dataclass(frozen=True)
class DataFound:
    """What a run will read.

    Attributes:
      members, examples: tasks of the mixture and examples in their stores.
      evals: names of the evaluations.
      new_tokens: the most tokens an evaluation decodes.
      note: what the check of the data (`flanjax data check`) said, or "".
    """

    members: int
    examples: int
    evals: tuple[str, ...]
    new_tokens: int
    note: str


def look_at_data(config: RunConfig, prepare: str) -> DataFound:
    """Lays out one example of every member and opens every evaluation.

    Args:
      config: the run's.
      prepare: command that prepares its data, for messages.

    Raises:
      ConfigError: the vocabulary does not fit the model.
      DataError: the data are not prepared, or something of them cannot be used; names
        every member that fails.
    """
    vocabulary = load_vocabulary(config.prepare.vocabulary)
    if vocabulary.size > config.model.vocab_size:
        raise ConfigError(
            f"the vocabulary has {vocabulary.size} ids and the model "
            f"{config.model.vocab_size}",
            where=f"vocabulary {vocabulary.spec}",
            fix=f"set the model's vocab_size to {vocabulary.size} or more",
        )
    path = resolved_path(config.prepare)
    fresh, reason = is_fresh(path)
    if not fresh:
        raise DataError(
            f"the data cannot be looked at: {reason}", where=str(path), fix=prepare
        )
    resolved, data = ResolvedMixture.load(path), config.data
    layout = make_layout(
        build_model(config.model).kind,
        data.feature_lengths,
        vocabulary,
        data.wrapping,
        data.system_prompt,
    )
    store_dir = config.prepare.store_dir
    failures = _failures(resolved, store_dir, layout, config.model.vocab_size)
    if failures:
        more = [f"and {len(failures) - _LISTED} more"] * (len(failures) > _LISTED)
        raise DataError(
            f"{len(failures)} of the run's tasks cannot be used: "
            + "; ".join(failures[:_LISTED] + more),
            where=str(store_dir),
            fix=prepare,
        )
    check_lengths(resolved, store_dir, layout, data.max_truncated)
    note = refuse_failed(store_dir, resolved, data.allow_failed_check)
    specs = [from_json(entry.spec) for entry in resolved.evals]
    return DataFound(
        members=len(resolved.members),
        examples=sum(member.num_examples for member in resolved.members),
        evals=tuple(spec.name for spec in specs),
        new_tokens=max((spec.max_decode_tokens for spec in specs), default=1),
        note=note or "",
    )


def _failures(
    resolved: ResolvedMixture, store_dir: str, layout: Layout, vocab_size: int
) -> list[str]:
    """One sentence for each member, validation split or evaluation that fails."""
    stores, failures = OpenStores(store_dir), []
    entries = [(m.name, m.path, True) for m in resolved.members]
    entries += [(f"validation/{m.name}", m.path, True) for m in resolved.validation]
    entries += [(f"eval {e.spec['name']}", e.path, False) for e in resolved.evals]
    for name, path, is_training in entries:
        try:
            store = stores.get(path)
            if not len(store):
                raise DataError("it has no examples")
            (example,) = store.read([0])
            if is_training:
                _check_row(layout.row([example]), vocab_size)
            else:
                _check_ids(layout.prompt(example.inputs), vocab_size)
        except UserError as error:
            failures.append(f"{name}: {error.what}")
        except (OSError, ValueError, IndexError) as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return failures


def _check_row(row: dict[str, np.ndarray], vocab_size: int) -> None:
    for name, ids in row.items():
        if name.endswith("_tokens"):
            _check_ids(ids, vocab_size)
    if not row["decoder_loss_weights"].any():
        raise DataError("its first example has no target token to learn from")


def _check_ids(ids: np.ndarray, vocab_size: int) -> None:
    if not len(ids):
        raise DataError("its first prompt is empty")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise DataError(
            f"it holds the token id {ids.max() if ids.min() >= 0 else ids.min()}, and "
            f"the model has {vocab_size}"
        )


def look_at_weights(config: RunConfig) -> str:
    """Opens the initial checkpoint, reading no tensor; says what it holds.

    Raises:
      CheckpointError, ConfigError, DataError: it cannot be opened, or is of another
        model.
      ConfigError: nothing is left to train.
    """
    trainable(config)
    source = config.initial_checkpoint
    if source is None:
        return "weights are drawn from the seed"
    with planned(config) as (weights, plan):
        shapes = parameter_shapes(weights.config, stacked=True)
        count = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
        return f"{weights.where}: {count:,} numbers; {plan.line()}"
