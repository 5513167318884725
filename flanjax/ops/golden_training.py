"""Parity with T5X over training steps: losses, final parameters, optimiser state.

    rows = list(trajectories(Golden.open(directory)))

A recorded run is told from its name: `traj` and what is written behind it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from flanjax.convert.t5x_layout import SLOTS
from flanjax.models.build import abstract_params
from flanjax.models.layers import unstack_layers
from flanjax.models.loss import LossConfig
from flanjax.ops.compare import Row, compare, compare_trees
from flanjax.ops.golden_files import Golden
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.schedules import ScheduleConfig
from flanjax.train.state import TrainState, init_state, state_shardings
from flanjax.train.step import make_train_step

Metrics = Mapping[str, Any]

_SUM = LossConfig()
_MOMENTUM = {
    "beta1": 0.9,
    "weight_decay_rate": 1e-3,
    "global_norm_clip_threshold": 1.0,
    "clipping_threshold": 0.5,
}


def trajectories(golden: Golden) -> Iterator[Row]:
    """The encoder-decoder's runs: each optimiser setting that was recorded."""
    kinds = "factored|microbatch|noparamscale|momentum_wd"
    for run in golden.files(rf"(traj(?:_({kinds})(\d*))?)\.npz"):
        name, kind, number = run.groups()
        settings: dict[str, Any] = {}
        rate, loss, microbatches = _constant(golden), _SUM, 1
        if kind == "factored":
            settings = {"min_dim_size_to_factor": int(number)}
        elif kind == "microbatch":
            microbatches = int(number)
        elif kind == "noparamscale":
            settings = {"multiply_by_parameter_scale": False}
        elif kind == "momentum_wd":
            settings, rate = _MOMENTUM, _warmed_up(golden.arrays(f"{name}.npz"))
            loss = LossConfig(label_smoothing=0.1, normalizer="num_real_target_tokens")
        model = golden.encoder_decoder()
        config = OptimizerConfig(schedule=rate, **settings)
        # The number of microbatches changes nothing but the order of sums.
        end = "traj" if kind == "microbatch" else name
        yield from _run(golden, name, model, config, loss, microbatches, end=end)


def scanned(golden: Golden) -> Iterator[Row]:
    """T5X's scanned network: moments factored by the names of axes."""
    model = golden.encoder_decoder(relpos_per_layer=True)
    config = OptimizerConfig(schedule=_constant(golden), factor_by_axes=True)
    params = "scalable_params.npz"
    yield from _run(golden, "scalable_traj", model, config, params=params)


def decoder_only(golden: Golden) -> Iterator[Row]:
    """T5X's decoder-only network, causal and as a prefix language model."""
    config = OptimizerConfig(schedule=_constant(golden))
    for file in golden.files(r"deconly_(causal|prefixlm)_traj\.npz"):
        yield from _run(
            golden,
            f"deconly_{file[1]}_traj",
            golden.decoder_only(prefix_lm=file[1] == "prefixlm"),
            config,
            params="deconly_params.npz",
            batches="deconly_train_batches.npz",
        )


def _constant(golden: Golden) -> ScheduleConfig:
    return ScheduleConfig("constant", golden.meta["config"]["lr"])


def _warmed_up(recorded: Mapping[str, np.ndarray]) -> ScheduleConfig:
    """The schedule of the momentum run, which meta.json does not give in numbers.

    Its peak is the base rate and ends the warm-up; all other rates follow from these.
    """
    peak = int(np.argmax(recorded["lr"]))
    factors = "constant * linear_warmup * rsqrt_normalized_decay"
    return ScheduleConfig(factors, float(recorded["lr"][peak]), warmup_steps=peak)


def _run(
    golden: Golden,
    name: str,
    model: Any,
    config: OptimizerConfig,
    loss: LossConfig = _SUM,
    microbatches: int = 1,
    *,
    end: str | None = None,
    params: str = "params.npz",
    batches: str = "train_batches.npz",
) -> Iterator[Row]:
    """Trains on the recorded batches and compares every recorded number.

    Args:
      golden: the recordings.
      name: of the run.
      model: what is trained.
      config: its optimiser.
      loss: its loss.
      microbatches: parts of a batch.
      end: name of the run whose final state is compared; that of this run.
      params: file of the parameters it starts from.
      batches: file of its batches, one after the other.
    """
    recorded = dict(golden.arrays(f"{name}.npz"))
    steps = len(recorded["loss"])
    history, state = _train(
        golden, model, config, loss, microbatches, params, batches, steps
    )
    for array, want in recorded.items():
        got = [_as_recorded(array, metrics, loss) for metrics in history]
        yield compare(f"{name}: {array} of {steps} steps", got, want, rtol=1e-5)
    end, final = end or name, unstack_layers(state.params)
    recorded = golden.flat(f"{end}_final_params.npz")
    check = f"{name}: final parameters"
    yield compare_trees(check, final, recorded, atol=2e-6)
    if f"{end}_final_opt_state.npz" not in golden.meta["arrays"]:
        return
    recorded = golden.flat(f"{end}_final_opt_state.npz")
    for slot in SLOTS:
        # Squares of gradients that are all but zero hold rounding error alone: an
        # absolute part of 1e-9 of the array's largest value leaves those out. Momentum
        # crosses zero where gradients cancel, and has what gradients are allowed.
        yield compare_trees(
            f"{name}: optimiser state {slot}",
            unstack_layers(getattr(state.opt_state, slot)),
            {
                path.removesuffix(f"/{slot}"): value
                for path, value in recorded.items()
                if path.endswith(f"/{slot}")
            },
            rtol=1e-3,
            atol=1e-5 if slot == "m" else 1e-9,
            relative_to_largest=True,
        )


def _train(
    golden: Golden,
    model: Any,
    config: OptimizerConfig,
    loss: LossConfig,
    microbatches: int,
    params: str,
    batches: str,
    steps: int,
) -> tuple[list[Metrics], TrainState]:
    optimizer = make_optimizer(config, abstract_params(model)[1])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = init_state(
        model, optimizer, jax.random.PRNGKey(0), mesh, params=golden.params(params)
    )
    train_step = make_train_step(
        model,
        optimizer,
        loss,
        mesh,
        state_shardings(state),
        microbatches=microbatches,
    )
    columns, history = dict(golden.arrays(batches)), []
    for i in range(steps):
        state, metrics = train_step(state, {k: v[i] for k, v in columns.items()})
        history.append(jax.device_get(metrics))
    return history, state


def _as_recorded(array: str, metrics: Metrics, loss: LossConfig) -> Any:
    """A step's metric as T5X has it: losses are sums unless they are normalised."""
    names = {"lr": "learning_rate", "loss": "loss_sum"}
    value = metrics[names.get(array, array)]
    if array == "z_loss" and loss.normalizer is None:
        return value * metrics["weight_sum"]
    if array == "loss" and loss.normalizer is not None:
        return metrics["loss"]
    return value
