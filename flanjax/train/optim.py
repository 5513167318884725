"""Optimisers: Adafactor with T5X's behaviour, and AdamW.

    optimizer = make_optimizer(OptimizerConfig(name="adafactor"), axes)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)   # params + updates

An `Optimizer` is an `optax.GradientTransformation` (init, update) that also knows its
schedule and the logical axes of its state. A `layers` axis is a batch axis: a scanned
parameter [layers, in, out] is updated as T5X updates the separate matrices of its
unscanned network, so nothing is ever averaged over layers. T5X's scanned network
differs in one thing, which matrices have factored moments: `factor_by_axes`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flanjax.errors import ConfigError, nearest
from flanjax.train.schedules import Schedule, ScheduleConfig, make_schedule
from flanjax.train.trees import Tree, flatten, unflatten

Axes = tuple[str | None, ...]

# T5X's `standard_logical_factor_rules`, as far as stacked layers have these axes:
# https://github.com/google-research/t5x/blob/main/t5x/adafactor.py
_ROWS = ("embed",)
_COLUMNS = ("heads", "kv", "joined_kv", "mlp")


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, its rate and its settings; Adafactor's names are T5X's."""

    name: str = "adafactor"
    """'adafactor' or 'adamw'."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate."""
    global_norm_clip_threshold: float | None = None
    """Gradients are scaled down to this global norm; None leaves them alone."""
    weight_decay_rate: float | None = None
    """Decoupled. Adafactor, as T5X: share lost per step. AdamW: times the learning
    rate, norm scales spared."""
    decay_rate: float = 0.8
    """Adafactor: exponent of the second-moment decay 1 - (t + 1) ** -decay_rate."""
    step_offset: int = 0
    """Adafactor: steps subtracted from t."""
    multiply_by_parameter_scale: bool = True
    """Adafactor: step sizes are relative to each parameter's root mean square."""
    clipping_threshold: float | None = 1.0
    """Adafactor: root mean square an update is clipped to."""
    epsilon1: float = 1e-30
    """Adafactor: added to squared gradients."""
    epsilon2: float = 1e-3
    """Adafactor: floor of a parameter's root mean square."""
    min_dim_size_to_factor: int = 128
    """Adafactor: both dimensions of a matrix must reach this for factored moments."""
    factor_by_axes: bool = False
    """Adafactor: matrices of stacked layers are factored whatever their size, where
    their axes say so (rows "embed", columns "heads", "kv", "joined_kv" or "mlp"), as
    T5X's rules for scanned networks do; the others by their size."""
    beta1: float | None = None
    """Adafactor: momentum of the updates; None keeps none."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8


class Optimizer(NamedTuple):
    """An optax transformation with its schedule and the axes of its state."""

    init: Callable[[Tree], Any]
    update: Callable[[Tree, Any, Tree], tuple[Tree, Any]]
    schedule: Schedule
    state_axes: Callable[[Tree], Any]
    """From (abstract) params to a state whose leaves are tuples of axis names."""


class AdafactorState(flax.struct.PyTreeNode):
    """Second moments, factored (v_row, v_col) or not (v), and momentum (m).

    As in T5X the slots a parameter does not use are zeros of shape (1,) per layer.
    """

    count: Any
    v_row: Tree
    v_col: Tree
    v: Tree
    m: Tree


class AdamState(flax.struct.PyTreeNode):
    """First and second moments of Adam."""

    count: Any
    mu: Tree
    nu: Tree


def make_optimizer(config: OptimizerConfig, axes: Tree) -> Optimizer:
    """Builds the optimiser that `config` describes.

    Args:
      config: settings.
      axes: logical axis names of the parameters (may hold more than are trained).

    Raises:
      ConfigError: unknown name of an optimiser or of a schedule factor.
    """
    makers = {"adafactor": _make_adafactor, "adamw": _make_adamw}
    if config.name not in makers:
        raise ConfigError(
            f"unknown optimiser '{config.name}'.{nearest(config.name, makers)}",
            where="OptimizerConfig.name",
            fix=f"use one of: {', '.join(makers)}",
        )
    optimizer = makers[config.name](config, flatten(axes))
    if config.global_norm_clip_threshold is None:
        return optimizer
    clip = optax.clip_by_global_norm(config.global_norm_clip_threshold)

    def update(grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        grads, _ = clip.update(grads, optax.EmptyState())
        return optimizer.update(grads, state, params)

    return optimizer._replace(update=update)


def _is_stacked(axes: Axes) -> bool:
    return bool(axes) and axes[0] == "layers"


def _make_adamw(config: OptimizerConfig, axes: dict[str, Axes]) -> Optimizer:
    schedule = make_schedule(config.schedule)
    adam = optax.scale_by_adam(
        config.adam_beta1, config.adam_beta2, config.adam_epsilon
    )

    def init(params: Tree) -> AdamState:
        moments: Any = adam.init(params)
        return AdamState(*moments)

    def update(grads: Tree, state: AdamState, params: Tree) -> tuple[Tree, AdamState]:
        rate = schedule(state.count)
        moments: Any = optax.ScaleByAdamState(state.count, state.mu, state.nu)
        steps, moments = adam.update(grads, moments)
        decay = config.weight_decay_rate or 0.0
        params = flatten(params)
        updates = {
            # Norm scales and biases are vectors within a layer and do not decay.
            path: -rate
            * (step + (decay * params[path] if _is_matrix(axes[path]) else 0.0))
            for path, step in flatten(steps).items()
        }
        return unflatten(updates), AdamState(*moments)

    def state_axes(params: Tree) -> AdamState:
        names = {path: axes[path] for path in flatten(params)}
        tree = unflatten(names)
        return AdamState(count=(), mu=tree, nu=tree)

    return Optimizer(init, update, schedule, state_axes)


def _is_matrix(axes: Axes) -> bool:
    return len(axes) - _is_stacked(axes) >= 2


def _make_adafactor(config: OptimizerConfig, axes: dict[str, Axes]) -> Optimizer:
    schedule = make_schedule(config.schedule)

    def init(params: Tree) -> AdafactorState:
        slots = {}
        for path, param in flatten(params).items():
            dims = _factored_dims(axes[path], param.shape, config)
            make = partial(_init_slots, dims=dims, momentum=config.beta1 is not None)
            make = jax.vmap(make) if _is_stacked(axes[path]) else make
            slots[path] = make(param)
        return AdafactorState(jnp.zeros((), jnp.int32), *_columns(slots))

    def update(
        grads: Tree, state: AdafactorState, params: Tree
    ) -> tuple[Tree, AdafactorState]:
        rate = schedule(state.count)
        t = (state.count - config.step_offset).astype(jnp.float32)
        decay = 1.0 - (t + 1.0) ** -config.decay_rate
        grads = flatten(grads)
        slots = [flatten(tree) for tree in (state.v_row, state.v_col, state.v, state.m)]
        updates, new = {}, {}
        for path, param in flatten(params).items():
            dims = _factored_dims(axes[path], param.shape, config)
            step = partial(
                _update_parameter, config=config, dims=dims, rate=rate, decay=decay
            )
            step = jax.vmap(step) if _is_stacked(axes[path]) else step
            old = tuple(tree[path] for tree in slots)
            updates[path], new[path] = step(grads[path], param, old)
        state = AdafactorState(state.count + 1, *_columns(new))
        return unflatten(updates), state

    def state_axes(params: Tree) -> AdafactorState:
        slots = {
            path: _slot_axes(axes[path], param.shape, config)
            for path, param in flatten(params).items()
        }
        return AdafactorState((), *_columns(slots))

    return Optimizer(init, update, schedule, state_axes)


def _columns(slots: dict[str, tuple]) -> list[Tree]:
    """Turns {path: (v_row, v_col, v, m)} into four nested trees."""
    return [
        unflatten({path: slot[i] for path, slot in slots.items()}) for i in range(4)
    ]


def _factored_dims(
    axes: Axes, shape: tuple[int, ...], config: OptimizerConfig
) -> tuple[int, int] | None:
    """(row, column) of one layer's matrix, or None where all its moments are kept.

    By size the row is the smaller dimension; by axes it is the embedding's.
    """
    stacked = int(_is_stacked(axes))
    axes, shape = axes[stacked:], shape[stacked:]
    if len(shape) != 2:
        return None
    if stacked and config.factor_by_axes:
        for row, column in ((0, 1), (1, 0)):
            if axes[row] in _ROWS and axes[column] in _COLUMNS:
                return row, column
        return None
    if min(shape) < config.min_dim_size_to_factor:
        return None
    return (0, 1) if shape[0] <= shape[1] else (1, 0)


def _init_slots(
    param: jax.Array, *, dims: tuple[int, int] | None, momentum: bool
) -> tuple[jax.Array, ...]:
    full, unused = param.shape, (1,)
    shapes = (
        (full[dims[0]],) if dims else unused,
        (full[dims[1]],) if dims else unused,
        unused if dims else full,
        full if momentum else unused,
    )
    return tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)


def _slot_axes(
    axes: Axes, shape: tuple[int, ...], config: OptimizerConfig
) -> tuple[Axes, ...]:
    """Axis names of the slots that `_init_slots` makes."""
    dims, unused = _factored_dims(axes, shape, config), (None,)
    stack, axes = (axes[:1], axes[1:]) if _is_stacked(axes) else ((), axes)
    slots = (
        (axes[dims[0]],) if dims else unused,
        (axes[dims[1]],) if dims else unused,
        unused if dims else axes,
        unused if config.beta1 is None else axes,
    )
    return tuple(stack + slot for slot in slots)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _update_parameter(
    grad: jax.Array,
    param: jax.Array,
    slots: tuple[jax.Array, ...],
    *,
    config: OptimizerConfig,
    dims: tuple[int, int] | None,
    rate: jax.Array,
    decay: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """One Adafactor step (https://arxiv.org/abs/1804.04235) for one layer's array."""
    grad = grad.astype(jnp.float32)
    v_row, v_col, v, m = slots
    squared = jnp.square(grad) + config.epsilon1
    if dims:
        row, col = dims
        v_row = decay * v_row + (1.0 - decay) * jnp.mean(squared, axis=col)
        v_col = decay * v_col + (1.0 - decay) * jnp.mean(squared, axis=row)
        row_factor = jnp.expand_dims((v_row / jnp.mean(v_row)) ** -0.5, col)
        step = grad * row_factor * jnp.expand_dims(v_col**-0.5, row)
    else:
        v = decay * v + (1.0 - decay) * squared
        step = grad * v**-0.5
    if config.clipping_threshold is not None:
        step /= jnp.maximum(1.0, _rms(step) / config.clipping_threshold)
    scale = rate
    if config.multiply_by_parameter_scale:
        scale *= jnp.maximum(_rms(param.astype(jnp.float32)), config.epsilon2)
    step *= scale
    if config.beta1 is not None:
        m = config.beta1 * m + (1.0 - config.beta1) * step
        step = m
    if config.weight_decay_rate is not None:
        # The difference is exact, so params + update rounds as T5X rounds.
        decayed = (1.0 - config.weight_decay_rate) * param
        return (decayed - step) - param, (v_row, v_col, v, m)
    return (-step).astype(param.dtype), (v_row, v_col, v, m)
