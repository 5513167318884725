"""Parity with T5X in one pass: activations, logits, losses, gradients, schedules.

    rows = list(forward(Golden.open(directory)))

Each check takes the recordings and yields a row for every comparison.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flanjax.decode.score import score_batch
from flanjax.models.attention import relative_position_bucket
from flanjax.models.build import abstract_params
from flanjax.models.layers import unstack_layers
from flanjax.models.loss import LossConfig, loss_and_metrics, normalizer
from flanjax.ops.compare import Row, compare, compare_trees
from flanjax.ops.golden_files import Golden
from flanjax.train.schedules import ScheduleConfig, make_schedule
from flanjax.train.trees import flatten

LOGITS: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}
LOSS: dict[str, Any] = {"rtol": 1e-5}
SCORE: dict[str, Any] = {"atol": 1e-4}

_NORMALIZERS = {
    "none": None,
    "num_real": "num_real_target_tokens",
    "num_total": "num_total_target_tokens",
    "avg_per_seq": "average_per_sequence",
}
_PACKING = ("segment_ids", "positions")

_score = jax.jit(loss_and_metrics, static_argnums=(0, 3))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(model: Any, params: Any, batch: Any, method: str = "__call__") -> jax.Array:
    return model.apply({"params": params}, batch, method=method)


def _loss(model: Any, params: Any, batch: Any, config: LossConfig) -> jax.Array:
    total, sums = _score(model, params, batch, config)
    return total / normalizer(config, sums)


def parameters(golden: Golden) -> Iterator[Row]:
    """Names, shapes, logical axes and number of the encoder-decoder's parameters."""
    shapes, axes = abstract_params(golden.encoder_decoder(scan_layers=False))
    want = golden.axes("param_axes")
    wrong = [name for name, got in flatten(axes).items() if want.pop(name, ()) != got]
    note = f" (wrong: {', '.join([*wrong, *want][:3])})" if wrong or want else ""
    yield Row(f"logical axes{note}", None, None, not (wrong or want))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    yield compare("number of parameters", count, golden.meta["num_params"])


def forward(golden: Golden) -> Iterator[Row]:
    """Packed batch: encoder output, logits in both dtypes, scores of the rows."""
    batch: dict[str, Any] = dict(golden.arrays("batch.npz"))
    expected = golden.arrays("forward.npz")
    params, model = golden.params("params.npz"), golden.encoder_decoder()
    encoded = _apply(model, params, batch, "encode")
    real = batch["encoder_segment_ids"] != 0
    want = expected["encoder_output"]
    yield compare("encoder output", encoded, want, where=real, **LOGITS)
    real = batch["decoder_segment_ids"] != 0
    logits = _apply(model, params, batch)
    yield compare("logits", logits, expected["logits"], where=real, **LOGITS)
    scores = score_batch(model, params, batch)
    yield compare("scores of rows", scores, expected["score_batch"], **SCORE)
    narrow = _apply(golden.encoder_decoder(dtype="bfloat16"), params, batch)
    want = expected["logits_bf16_activations"]
    yield compare("logits, bfloat16 activations", narrow, want, where=real, atol=0.1)


def unpacked(golden: Golden) -> Iterator[Row]:
    """The same rows without segment ids: one padded example in each."""
    expected, params = golden.arrays("forward.npz"), golden.params("params.npz")
    batch: dict[str, Any] = {
        name: value
        for name, value in golden.arrays("batch.npz").items()
        if not name.endswith(_PACKING)
    }
    model = golden.encoder_decoder()
    real = batch["decoder_target_tokens"] != 0
    got, want = _apply(model, params, batch), expected["logits_unpacked_view"]
    yield compare("logits, unpacked view", got, want, where=real, **LOGITS)
    loss = _loss(model, params, batch, LossConfig())
    yield compare("loss, unpacked view", loss, expected["loss_unpacked_view"], **LOSS)


def t5_1_0(golden: Golden) -> Iterator[Row]:
    """T5 1.0: ReLU and a tied, scaled output head."""
    batch: dict[str, Any] = dict(golden.arrays("batch.npz"))
    changes = {"mlp_activations": ("relu",), "logits_via_embedding": True}
    model = golden.encoder_decoder(**changes)
    yield from _logits_and_loss(golden, "t5_1_0", model, batch)


def scanned(golden: Golden) -> Iterator[Row]:
    """T5X's scanned network: a relative-position bias in every layer."""
    batch: dict[str, Any] = dict(golden.arrays("batch.npz"))
    model = golden.encoder_decoder(relpos_per_layer=True)
    yield from _logits_and_loss(golden, "scalable", model, batch)


def decoder_only(golden: Golden) -> Iterator[Row]:
    """T5X's decoder-only network, causal and as a prefix language model."""
    batch: dict[str, Any] = dict(golden.arrays("deconly_batch.npz"))
    for file in golden.files(r"deconly_(causal|prefixlm)_forward\.npz"):
        model = golden.decoder_only(prefix_lm=file[1] == "prefixlm")
        yield from _logits_and_loss(
            golden, f"deconly_{file[1]}", model, batch, "deconly_params.npz"
        )


def _logits_and_loss(
    golden: Golden,
    name: str,
    model: Any,
    batch: Mapping[str, Any],
    params_file: str | None = None,
) -> Iterator[Row]:
    """Compares every array of `{name}_forward.npz`."""
    expected = golden.arrays(f"{name}_forward.npz")
    params = golden.params(params_file or f"{name}_params.npz")
    real = batch["decoder_segment_ids"] != 0
    got = _apply(model, params, batch)
    yield compare(f"{name} logits", got, expected["logits"], where=real, **LOGITS)
    for array in expected:
        # loss, or loss_ls01_num_real: smoothing in tenths, and the normaliser.
        match = re.fullmatch(r"loss(?:_ls(\d)(\d+)_(\w+))?", array)
        if match:
            smoothing = float(f"{match[1] or 0}.{match[2] or 0}")
            config = _loss_config(match[3] or "none", smoothing)
            loss = _loss(model, params, batch, config)
            yield compare(f"{name} {array}", loss, expected[array], **LOSS)
    if "score_batch" in expected:
        scores = score_batch(model, params, batch)
        want = expected["score_batch"]
        yield compare(f"{name} scores of rows", scores, want, **SCORE)


def _loss_config(label: str, smoothing: float) -> LossConfig:
    """From the recorded name of a normaliser: none, const233, num_real, noz, ..."""
    if label == "noz":
        return LossConfig(z_loss=0.0, label_smoothing=smoothing)
    constant = re.fullmatch(r"const([\d.]+)", label)
    value = float(constant[1]) if constant else _NORMALIZERS[label]
    return LossConfig(label_smoothing=smoothing, normalizer=value)


def losses(golden: Golden) -> Iterator[Row]:
    """Every recorded smoothing and normaliser, with z-loss and accuracy."""
    batch, expected = golden.arrays("batch.npz"), golden.arrays("forward.npz")
    model, params = golden.encoder_decoder(), golden.params("params.npz")
    for name in expected:
        kind, _, rest = name.partition("/")
        if kind != "loss":
            continue
        label, _, divided_by = rest.partition("/")
        custom = label == "custom_weights"
        smoothing = 0.0 if custom else float(label.removeprefix("ls"))
        config = _loss_config(divided_by, smoothing)
        scored = dict(batch)
        if custom:
            scored["decoder_loss_weights"] = expected["custom_loss_weights"]
        # Most normalisers only divide: one compilation serves them all.
        average = config.normalizer == "average_per_sequence"
        summed = config if average else dataclasses.replace(config, normalizer=None)
        loss, sums = _score(model, params, scored, summed)
        divisor = normalizer(config, sums)
        yield compare(name, loss / divisor, expected[name], **LOSS)
        others = {
            f"z_loss/{rest}": sums["z_loss"] / divisor,
            f"accuracy/{rest}": sums["correct"] / sums["weight_sum"],
        }
        for other, got in others.items():
            if other in expected:
                yield compare(other, got, expected[other], **LOSS)


def gradients(golden: Golden) -> Iterator[Row]:
    """Gradients of the loss with respect to every parameter."""
    params, model = golden.params("params.npz"), golden.encoder_decoder()
    batch = jax.tree.map(jnp.asarray, dict(golden.arrays("batch.npz")))
    for file in golden.files(r"(grads(?:_ls([\d.]+)_(\w+))?)\.npz"):
        config = _loss_config(file[3] or "none", float(file[2] or 0.0))
        loss = functools.partial(_loss, model, batch=batch, config=config)
        yield compare_trees(
            f"gradients {file[1]}",
            unstack_layers(jax.jit(jax.grad(loss))(params)),
            golden.flat(file[0]),
            rtol=1e-3,
            atol=1e-5,
            relative_to_largest=True,
        )


def buckets(golden: Golden) -> Iterator[Row]:
    """Relative-position buckets."""
    expected = golden.arrays("relpos_buckets.npz")
    config = golden.encoder_decoder().config
    for name in ("bidirectional", "causal"):
        got = relative_position_bucket(
            expected["relative_position"],
            name == "bidirectional",
            config.relpos_buckets,
            config.relpos_max_distance,
        )
        yield compare(f"relative-position buckets, {name}", got, expected[name])


def schedules(golden: Golden) -> Iterator[Row]:
    """Learning rates of every recorded schedule."""
    expected = golden.arrays("lr_schedules.npz")
    for name, settings in golden.meta["lr_schedules"].items():
        schedule = make_schedule(ScheduleConfig(**settings))
        rates = jax.vmap(schedule)(jnp.asarray(expected["steps"]))
        yield compare(f"schedule {name}", rates, expected[name], rtol=1e-6)
