"""Compares flanjax with numbers recorded from T5X: `flanjax verify golden DIRECTORY`.

    for row in verify_golden("../shared/golden/t5x"):
        print(row.check, row.max_error, row.tolerance, row.ok)

The directory holds `meta.json` (sizes, schedules) and .npz files: parameters and
batches, and what T5X computed from them in float32. A file that is missing or cannot
be read gives a row that failed and names it.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.decode.sample import greedy
from flanjax.models.attention import relative_position_bucket
from flanjax.models.build import abstract_params, build_model
from flanjax.models.layers import stack_layers, unstack_layers
from flanjax.models.loss import LossConfig, loss_and_metrics, normalizer
from flanjax.models.t5 import T5Config
from flanjax.ops.compare import Row, compare, compare_trees
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.schedules import ScheduleConfig, make_schedule
from flanjax.train.state import init_state, state_shardings
from flanjax.train.step import make_train_step
from flanjax.train.trees import flatten, unflatten

EOS_ID = 1
_NORMALIZERS = {
    "none": None,
    "num_real": "num_real_target_tokens",
    "num_total": "num_total_target_tokens",
    "avg_per_seq": "average_per_sequence",
}
_PACKING = ("segment_ids", "positions")

_score = jax.jit(loss_and_metrics, static_argnums=(0, 3))


@dataclasses.dataclass(frozen=True)
class _Golden:
    """The directory, read on demand."""

    directory: Path
    meta: Mapping[str, Any]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.directory / name) as file:
            return dict(file.items())

    def params(self, name: str) -> dict[str, Any]:
        """Parameters with their layers stacked, as the scanned model has them."""
        return stack_layers(unflatten(self.arrays(name)))

    def model(self, **changes: Any) -> Any:
        sizes = self.meta["config"]
        config = T5Config(
            vocab_size=sizes["vocab"],
            emb_dim=sizes["emb"],
            num_heads=sizes["heads"],
            head_dim=sizes["hd"],
            mlp_dim=sizes["mlp"],
            num_encoder_layers=sizes["enc"],
            num_decoder_layers=sizes["dec"],
            mlp_activations=sizes["act"],
            logits_via_embedding=sizes["via_emb"],
        )
        return build_model(dataclasses.replace(config, **changes))


def verify_golden(directory: str | Path) -> list[Row]:
    """Runs every check; none depends on another having passed.

    Args:
      directory: as described above; sizes are read from its meta.json.

    Returns:
      One row per comparison.
    """
    directory = Path(directory)
    try:
        golden = _Golden(directory, json.loads((directory / "meta.json").read_text()))
    except (OSError, ValueError) as error:
        return [Row(f"meta.json: {error}", None, None, False)]
    rows: list[Row] = []
    for name, check in _CHECKS.items():
        done = len(rows)
        try:
            # The recorded numbers are float32 throughout, on accelerators too.
            with jax.default_matmul_precision("highest"):
                for row in check(golden):
                    rows.append(row)
        except Exception as error:  # Whatever stops a check is a check that failed.
            note = f"{name}: {type(error).__name__}: {error}".splitlines()[0]
            rows.append(Row(note, None, None, False))
        if len(rows) == done:
            rows.append(Row(f"{name}: nothing to compare", None, None, False))
    return rows


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(model: Any, params: Any, batch: Any, method: str = "__call__") -> jax.Array:
    return model.apply({"params": params}, batch, method=method)


def _forward(golden: _Golden) -> Iterator[Row]:
    batch, expected = golden.arrays("batch.npz"), golden.arrays("forward.npz")
    params, model = golden.params("params.npz"), golden.model()
    encoded = _apply(model, params, batch, "encode")
    real = batch["encoder_segment_ids"] != 0
    limits = {"rtol": 1e-4, "atol": 2e-5}
    yield compare(
        "encoder output", encoded, expected["encoder_output"], where=real, **limits
    )
    logits = _apply(model, params, batch)
    real = batch["decoder_segment_ids"] != 0
    yield compare("logits", logits, expected["logits"], where=real, **limits)
    log_probability = jnp.take_along_axis(
        jax.nn.log_softmax(logits), batch["decoder_target_tokens"][..., None], axis=-1
    )[..., 0]
    scores = jnp.sum(log_probability * batch["decoder_loss_weights"], axis=-1)
    yield compare("sequence scores", scores, expected["score_batch"], atol=1e-4)


def _unpacked(golden: _Golden) -> Iterator[Row]:
    expected, params = golden.arrays("forward.npz"), golden.params("params.npz")
    batch = {
        name: value
        for name, value in golden.arrays("batch.npz").items()
        if not name.endswith(_PACKING)
    }
    model = golden.model()
    logits = _apply(model, params, batch)
    yield compare(
        "logits, unpacked view",
        logits,
        expected["logits_unpacked_view"],
        rtol=1e-4,
        atol=2e-5,
        where=batch["decoder_target_tokens"] != 0,
    )
    loss, _ = _score(model, params, batch, LossConfig())
    yield compare(
        "loss, unpacked view", loss, expected["loss_unpacked_view"], rtol=1e-5
    )


def _loss_config(label: str, smoothing: float) -> LossConfig:
    """From the recorded name of a normaliser: none, const233, num_real, noz, ..."""
    if label == "noz":
        return LossConfig(z_loss=0.0, label_smoothing=smoothing)
    constant = re.fullmatch(r"const([\d.]+)", label)
    value = float(constant[1]) if constant else _NORMALIZERS[label]
    return LossConfig(label_smoothing=smoothing, normalizer=value)


def _losses(golden: _Golden) -> Iterator[Row]:
    batch, expected = golden.arrays("batch.npz"), golden.arrays("forward.npz")
    model, params = golden.model(), golden.params("params.npz")
    for name, value in expected.items():
        parts = name.split("/")
        if parts[0] != "loss":
            continue
        custom = parts[1] == "custom_weights"
        smoothing = 0.0 if custom else float(parts[1].removeprefix("ls"))
        config = _loss_config(parts[2], smoothing)
        scored = dict(batch)
        if custom:
            scored["decoder_loss_weights"] = expected["custom_loss_weights"]
        # Most normalisers only divide: one compilation serves them all.
        average = config.normalizer == "average_per_sequence"
        summed = config if average else dataclasses.replace(config, normalizer=None)
        loss, sums = _score(model, params, scored, summed)
        divisor = normalizer(config, sums)
        yield compare(name, loss / divisor, value, rtol=1e-5)
        others = {
            "z_loss": sums["z_loss"] / divisor,
            "accuracy": sums["correct"] / sums["weight_sum"],
        }
        for kind, other in others.items():
            recorded = "/".join([kind, *parts[1:]])
            if recorded in expected:
                yield compare(recorded, other, expected[recorded], rtol=1e-5)


def _gradients(golden: _Golden) -> Iterator[Row]:
    params, model = golden.params("params.npz"), golden.model()
    batch = jax.tree.map(jnp.asarray, golden.arrays("batch.npz"))
    recordings = {
        "grads.npz": LossConfig(),
        "grads_ls0.1_num_real.npz": _loss_config("num_real", 0.1),
    }
    for file, config in recordings.items():

        def loss(params: Any, config: LossConfig = config) -> jax.Array:
            total, sums = loss_and_metrics(model, params, batch, config)
            return total / normalizer(config, sums)

        grads = jax.jit(jax.grad(loss))(params)
        yield compare_trees(
            f"gradients {file.removesuffix('.npz')}",
            grads,
            golden.arrays(file),
            rtol=1e-3,
            atol=1e-5,
            relative_to_largest=True,
        )


def _buckets(golden: _Golden) -> Iterator[Row]:
    expected = golden.arrays("relpos_buckets.npz")
    config = golden.model().config
    for name in ("bidirectional", "causal"):
        got = relative_position_bucket(
            expected["relative_position"],
            name == "bidirectional",
            config.relpos_buckets,
            config.relpos_max_distance,
        )
        yield compare(f"relative-position buckets, {name}", got, expected[name])


def _schedules(golden: _Golden) -> Iterator[Row]:
    expected = golden.arrays("lr_schedules.npz")
    for name, settings in golden.meta["lr_schedules"].items():
        schedule = make_schedule(ScheduleConfig(**settings))
        rates = jax.vmap(schedule)(jnp.asarray(expected["steps"]))
        yield compare(f"schedule {name}", rates, expected[name], rtol=1e-6)


def _trajectory(golden: _Golden, name: str, **settings: Any) -> Iterator[Row]:
    """Trains on the recorded batches; a microbatched run ends where `traj` does."""
    microbatches = settings.pop("microbatches", 1)
    expected, batches = golden.arrays(f"{name}.npz"), golden.arrays("train_batches.npz")
    rate = ScheduleConfig("constant", golden.meta["config"]["lr"])
    model = golden.model()
    optimizer = make_optimizer(
        OptimizerConfig(schedule=rate, **settings), abstract_params(model)[1]
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = golden.params("params.npz")
    state = init_state(model, optimizer, jax.random.PRNGKey(0), mesh, params=params)
    train_step = make_train_step(
        model,
        optimizer,
        LossConfig(),
        mesh,
        state_shardings(state),
        microbatches=microbatches,
    )
    history = []
    for i in range(len(expected["loss"])):
        state, metrics = train_step(state, {k: v[i] for k, v in batches.items()})
        history.append(jax.device_get(metrics))
    recorded = {
        "loss": "loss_sum",
        "weight_sum": "weight_sum",
        "lr": "learning_rate",
        "accuracy": "accuracy",
    }
    for theirs, ours in recorded.items():
        got = [metrics[ours] for metrics in history]
        check = f"{name}: {theirs} of {len(history)} steps"
        yield compare(check, got, expected[theirs], rtol=1e-5)
    end = "traj" if microbatches > 1 else name
    yield compare_trees(
        f"{name}: final parameters",
        state.params,
        golden.arrays(f"{end}_final_params.npz"),
        rtol=0.0,
        atol=2e-6,
    )
    slots = {
        f"{path}/{slot}": value
        for slot in ("v_row", "v_col", "v", "m")
        for path, value in flatten(
            unstack_layers(getattr(state.opt_state, slot))
        ).items()
    }
    # Squares of gradients that are all but zero hold rounding error alone: an
    # absolute part of 1e-9 of the array's largest value leaves those out.
    yield compare_trees(
        f"{name}: optimiser state",
        unflatten(slots),
        golden.arrays(f"{end}_final_opt_state.npz"),
        rtol=1e-3,
        atol=1e-9,
        relative_to_largest=True,
    )


def _t5_1_0(golden: _Golden) -> Iterator[Row]:
    batch, expected = golden.arrays("batch.npz"), golden.arrays("t5_1_0_forward.npz")
    model = golden.model(mlp_activations=("relu",), logits_via_embedding=True)
    params = golden.params("t5_1_0_params.npz")
    yield compare(
        "T5 1.0 logits",
        _apply(model, params, batch),
        expected["logits"],
        rtol=1e-4,
        atol=2e-5,
        where=batch["decoder_segment_ids"] != 0,
    )
    loss, _ = _score(model, params, batch, LossConfig())
    yield compare("T5 1.0 loss", loss, expected["loss"], rtol=1e-5)


def _decoding(golden: _Golden) -> Iterator[Row]:
    expected = golden.arrays("decode.npz")
    model, params = golden.model(), golden.params("decode_params.npz")
    length = int(expected["max_decode_len"])
    for kind in ("greedy", "greedy_prompt"):
        for padding in ("unpadded", "padded"):
            name = f"{kind}/{padding}"
            inputs = expected[f"encoder_input_tokens_{padding}"]
            forced = expected.get(f"{name}/decoder_input_tokens")
            if forced is not None:
                # The recorded tokens are decoder inputs: one behind the targets.
                forced = np.pad(forced[:, 1:], ((0, 0), (0, 1)))
            tokens, scores = greedy(
                model,
                params,
                {"encoder_input_tokens": jnp.asarray(inputs)},
                length,
                EOS_ID,
                forced=None if forced is None else jnp.asarray(forced),
            )
            yield compare(f"{name} tokens", tokens, expected[f"{name}/tokens"])
            yield compare(
                f"{name} scores", scores, expected[f"{name}/scores"], atol=1e-4
            )


_CHECKS: dict[str, Callable[[_Golden], Iterator[Row]]] = {
    "forward": _forward,
    "unpacked view": _unpacked,
    "losses": _losses,
    "gradients": _gradients,
    "relative-position buckets": _buckets,
    "schedules": _schedules,
    "traj": lambda golden: _trajectory(golden, "traj"),
    "traj_factored16": lambda golden: _trajectory(
        golden, "traj_factored16", min_dim_size_to_factor=16
    ),
    "traj_microbatch2": lambda golden: _trajectory(
        golden, "traj_microbatch2", microbatches=2
    ),
    "T5 1.0": _t5_1_0,
    "decoding": _decoding,
}
