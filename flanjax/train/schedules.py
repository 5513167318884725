"""Learning-rate schedules, written as T5X writes them: a product of named factors.

    make_schedule(ScheduleConfig("constant * linear_warmup * rsqrt_decay"))(step)

The numbers equal T5X's `create_learning_rate_scheduler`, its floor of 1e-8 included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flanjax.errors import ConfigError, nearest

Schedule = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class ScheduleConfig:
    """A learning rate as a function of the step; the names are T5X's."""

    factors: str = "constant"
    """Factors joined by `*`: constant, linear_warmup, linear_decay, rsqrt_decay,
    rsqrt_normalized_decay, decay_every, cosine_decay."""
    base_learning_rate: float = 1e-3
    """What `constant` and `linear_decay` multiply by."""
    warmup_steps: int = 1000
    """Length of the warm-up, and where the decays begin."""
    decay_factor: float = 0.5
    """`decay_every`: multiplier; `linear_decay`: share lost per step."""
    steps_per_decay: int = 20_000
    """`decay_every`: steps between two multiplications."""
    steps_per_cycle: int = 100_000
    """`cosine_decay`: steps of one cycle after the warm-up; then it starts again."""
    step_offset: int = 0
    """Steps subtracted first (never below zero), for runs that go on from others."""
    min_learning_rate: float = 1e-8
    """Floor of the product."""


def _linear_warmup(step: jax.Array, config: ScheduleConfig) -> jax.Array | float:
    # No warm-up asked for means the full rate from the first step, not 0 / 0.
    return jnp.minimum(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0


def _linear_decay(step: jax.Array, config: ScheduleConfig) -> jax.Array:
    falling = 1.0 + config.decay_factor * (config.warmup_steps - step)
    rising = _linear_warmup(step, config)
    return config.base_learning_rate * jnp.minimum(rising, falling)


def _rsqrt_decay(step: jax.Array, config: ScheduleConfig) -> jax.Array:
    return jnp.maximum(step, max(config.warmup_steps, 1)) ** -0.5


def _rsqrt_normalized_decay(step: jax.Array, config: ScheduleConfig) -> jax.Array:
    return max(config.warmup_steps, 1) ** 0.5 * _rsqrt_decay(step, config)


def _decay_every(step: jax.Array, config: ScheduleConfig) -> jax.Array:
    return config.decay_factor ** (step // config.steps_per_decay)


def _cosine_decay(step: jax.Array, config: ScheduleConfig) -> jax.Array:
    cycles = jnp.maximum(0.0, (step - config.warmup_steps) / config.steps_per_cycle)
    return jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (cycles % 1.0))))


_FACTORS: dict[str, Callable[[jax.Array, ScheduleConfig], jax.Array | float]] = {
    "constant": lambda step, config: config.base_learning_rate,
    "linear_warmup": _linear_warmup,
    "linear_decay": _linear_decay,
    "rsqrt_decay": _rsqrt_decay,
    "rsqrt_normalized_decay": _rsqrt_normalized_decay,
    "decay_every": _decay_every,
    "cosine_decay": _cosine_decay,
}


def make_schedule(config: ScheduleConfig) -> Schedule:
    """Returns the function from a step (an integer scalar) to a float32 rate.

    Raises:
      ConfigError: a factor has an unknown name.
    """
    names = [name.strip() for name in config.factors.split("*")]
    for name in names:
        if name not in _FACTORS:
            raise ConfigError(
                f"unknown learning-rate factor '{name}'.{nearest(name, _FACTORS)}",
                where=f"ScheduleConfig.factors = '{config.factors}'",
                fix=f"join these with ' * ': {', '.join(_FACTORS)}",
            )

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.maximum(0, jnp.asarray(step) - config.step_offset)
        step = step.astype(jnp.float32)
        rate = jnp.ones((), jnp.float32)
        for name in names:
            rate *= _FACTORS[name](step, config)
        return jnp.maximum(rate, config.min_learning_rate).astype(jnp.float32)

    return schedule
