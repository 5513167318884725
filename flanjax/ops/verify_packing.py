"""Proves that packed examples do not see each other: `flanjax verify packing`.

    rows = verify_packing()
    assert all(row.ok for row in rows)

For both model families, with random weights: the loss of one packed example has a
gradient of exactly zero with respect to what the model knows of every other example; a
packed batch has the loss of its examples taken one by one; and wrong segment ids,
planted on purpose, are caught by the same check.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.loss import LossConfig, loss_and_metrics
from flanjax.models.t5 import T5Config

Batch = dict[str, np.ndarray]
Score = Callable[[Batch], tuple[jax.Array, dict[str, jax.Array]]]

VOCABULARY = 64
# Lengths of (inputs, targets) of the examples of each row.
PACKED_ROWS = (((5, 3), (7, 4), (4, 2)), ((6, 5), (3, 3)))
LENGTHS = {"encoder": 18, "decoder": 12}
DECODER_LENGTH = 28


class Row(NamedTuple):
    """One check: its value, what it is held to, and the verdict."""

    check: str
    value: float
    tolerance: str
    ok: bool


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family as the checks need it.

    Attributes:
      name: for the table.
      model: the module.
      params: random parameters.
      batch: packed features.
      examples: batches of the same shape with one example and empty rows.
      routes: what a leak is looked for in: check name -> (perturbed quantity, stack
        whose segment ids its positions have).
      plants: check name -> features whose segment 2 is relabelled as 1.
    """

    name: str
    model: Any
    params: Mapping[str, Any]
    batch: Batch
    examples: list[Batch]
    routes: Mapping[str, tuple[str, str]]
    plants: Mapping[str, tuple[str, ...]]


def verify_packing() -> list[Row]:
    """Runs all checks on both families; takes seconds on a CPU.

    Returns:
      One row a check, to be printed as a table.
    """
    rows = []
    for family in (_t5_family(), _decoder_family()):
        score = _compiled_score(family)
        for check, (quantity, stack) in family.routes.items():
            name = f"{family.name}: {check}"
            others, own = _reach(family, score, family.batch, quantity, stack)
            rows.append(Row(f"{name}, other segments", others, "= 0", others == 0))
            rows.append(Row(f"{name}, own segment", own, "> 0", own > 0))
            wrong = _plant(family.batch, family.plants[check])
            leak, _ = _reach(family, score, wrong, quantity, stack)
            rows.append(Row(f"{name}, wrong mask caught", leak, "> 0", leak > 0))
        name, error = (
            f"{family.name}: packed = unpacked loss",
            _loss_difference(family, score),
        )
        rows.append(Row(name, error, "<= 1e-5", error <= 1e-5))
    return rows


def _compiled_score(family: Family) -> Score:
    """Compiles batch -> its loss and the loss's gradient in every quantity."""
    width = family.model.config.emb_dim
    zeros = {
        quantity: jnp.zeros((*family.batch[f"{stack}_segment_ids"].shape, width))
        for quantity, stack in family.routes.values()
    }

    def loss(perturbations, batch):
        return loss_and_metrics(
            family.model,
            family.params,
            batch,
            LossConfig(),
            perturbations=perturbations,
        )[0]

    return jax.jit(lambda batch: jax.value_and_grad(loss)(zeros, batch))


def _reach(
    family: Family, score: Score, batch: Batch, quantity: str, stack: str
) -> tuple[float, float]:
    """Largest gradient of any segment's loss in other segments, smallest in its own.

    Segments are those of the family's batch, whatever ids `batch` carries.
    """
    segments = family.batch[f"{stack}_segment_ids"]
    target_segments = family.batch["decoder_segment_ids"]
    others, own = 0.0, float("inf")
    for row, examples in enumerate(PACKED_ROWS):
        for segment in range(1, len(examples) + 1):
            weights = np.zeros_like(target_segments)
            weights[row] = target_segments[row] == segment
            weights *= family.batch["decoder_loss_weights"]
            _, gradients = score(batch | {"decoder_loss_weights": weights})
            size = np.abs(gradients[quantity]).max(-1)
            mine = np.zeros_like(segments, bool)
            mine[row] = segments[row] == segment
            others = max(others, float(size[~mine].max()))
            own = min(own, float(size[mine].max()))
    return others, own


def _loss_difference(family: Family, score: Score) -> float:
    """Relative difference of the packed loss and the sum of the examples' losses."""
    packed, _ = score(family.batch)
    alone = sum(float(score(example)[0]) for example in family.examples)
    return abs(float(packed) / alone - 1.0)


def _plant(batch: Batch, features: tuple[str, ...]) -> Batch:
    """Relabels segment 2 as 1, so that two examples see each other."""
    return batch | {
        name: np.where(batch[name] == 2, 1, batch[name]) for name in features
    }


def _t5_family() -> Family:
    config = T5Config(VOCABULARY, 32, 2, 16, 48, 2, 2)
    model = build_model(config)
    rng = np.random.default_rng(0)
    pairs = [
        [tuple(rng.integers(2, VOCABULARY, n) for n in lengths) for lengths in row]
        for row in PACKED_ROWS
    ]
    encoder, decoder = ("encoder_segment_ids",), ("decoder_segment_ids",)
    return Family(
        name="t5",
        model=model,
        params=_random_params(model),
        batch=_stack([_t5_row(row) for row in pairs]),
        examples=[_alone(_t5_row([pair])) for row in pairs for pair in row],
        routes={
            "encoder self-attention": ("encoder_embedded", "encoder"),
            "decoder self-attention": ("decoder_embedded", "decoder"),
            "cross-attention": ("encoded", "encoder"),
        },
        plants={
            "encoder self-attention": encoder,
            "decoder self-attention": decoder,
            "cross-attention": decoder,
        },
    )


def _decoder_family() -> Family:
    config = DecoderConfig(VOCABULARY, 32, 4, 2, 8, 48, 2, prefix_lm=True)
    model = build_model(config)
    rng = np.random.default_rng(1)
    pairs = [
        [tuple(rng.integers(2, VOCABULARY, n) for n in lengths) for lengths in row]
        for row in PACKED_ROWS
    ]
    return Family(
        name="decoder",
        model=model,
        params=_random_params(model),
        batch=_stack([_decoder_row(row) for row in pairs]),
        examples=[_alone(_decoder_row([pair])) for row in pairs for pair in row],
        routes={"self-attention": ("decoder_embedded", "decoder")},
        plants={"self-attention": ("decoder_segment_ids",)},
    )


def _random_params(model: Any) -> dict[str, Any]:
    """Weights large enough that attention prefers some positions to others."""
    rng = np.random.default_rng(2)
    shapes, _ = abstract_params(model)
    return jax.tree.map(
        lambda leaf: rng.normal(0.0, 0.2, leaf.shape).astype(np.float32), shapes
    )


def _t5_row(pairs) -> Batch:
    row = {}
    for stack, side in (("encoder", 0), ("decoder", 1)):
        tokens = [pair[side] for pair in pairs]
        name = "encoder_input_tokens" if side == 0 else "decoder_target_tokens"
        row[name] = _pad(tokens, LENGTHS[stack])
        row |= _labels(stack, tokens, LENGTHS[stack])
    shifted = [np.concatenate([[0], pair[1][:-1]]) for pair in pairs]
    row["decoder_input_tokens"] = _pad(shifted, LENGTHS["decoder"])
    row["decoder_loss_weights"] = (row["decoder_segment_ids"] > 0).astype(np.int32)
    return row


def _decoder_row(pairs) -> Batch:
    texts = [np.concatenate(pair) for pair in pairs]
    inputs, targets = [t[:-1] for t in texts], [t[1:] for t in texts]
    weights = [
        np.arange(len(t)) >= len(p[0]) - 1 for t, p in zip(targets, pairs, strict=True)
    ]
    prefix = [np.arange(len(t)) < len(p[0]) for t, p in zip(inputs, pairs, strict=True)]
    return {
        "decoder_input_tokens": _pad(inputs, DECODER_LENGTH),
        "decoder_target_tokens": _pad(targets, DECODER_LENGTH),
        "decoder_loss_weights": _pad(weights, DECODER_LENGTH),
        "decoder_causal_attention": _pad(prefix, DECODER_LENGTH),
    } | _labels("decoder", inputs, DECODER_LENGTH)


def _labels(stack: str, parts: list[np.ndarray], length: int) -> Batch:
    """Segment ids and positions of parts laid end to end."""
    segments = [np.full(len(part), i + 1) for i, part in enumerate(parts)]
    positions = [np.arange(len(part)) for part in parts]
    return {
        f"{stack}_segment_ids": _pad(segments, length),
        f"{stack}_positions": _pad(positions, length),
    }


def _pad(parts: list[np.ndarray], length: int) -> np.ndarray:
    joined = np.concatenate(parts).astype(np.int32)
    return np.pad(joined, (0, length - len(joined)))


def _stack(rows: list[Batch]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _alone(row: Batch) -> Batch:
    """A batch of the packed batch's shape with this row and nothing else."""
    empty = {name: np.zeros_like(value) for name, value in row.items()}
    return _stack([row] + [empty] * (len(PACKED_ROWS) - 1))
