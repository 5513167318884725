"""What is watched while a run goes on: loss spikes, norms, what to profile.

spikes = SpikeWatch(MonitorConfig())
usual = spikes.seen(loss)         # None, or what the loss had been before a spike
group_norms(grads, "grad_norm")   # {"grad_norm/encoder/mlp": ..., ...}
"""

import collections
import math
import statistics
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flanjax.errors import ConfigError
from flanjax.train.trees import flatten

_MAD_TO_SIGMA = 1.4826  # Of a normal distribution.
_FEWEST = 20  # Steps before a loss can be called unusual.


@dataclass(frozen=True)
class MonitorConfig:
    """What is logged beyond loss and speed."""

    group_norms: bool = False
    """Log the norm of gradients and of parameters of each group, at every step."""
    spike_deviations: float = 8.0
    """A loss this many robust standard deviations above the median of the steps before
    is a spike, logged with the tasks in its batch; 0 turns the watch off."""
    spike_window: int = 100
    """Steps the median is taken over."""
    profile_steps: int = 0
    """Steps to trace; 0 traces none. `flanjax train --profile` sets it."""
    profile_after: int = 3
    """Steps of this start that pass before the trace begins."""
    peak_tflops: float | None = None
    """Of one device, in 10^12 operations per second, for utilisation (MFU); None takes
    the maker's figure, or measures where there is none."""

    def __post_init__(self):
        if self.spike_window < _FEWEST:
            raise ConfigError(
                f"spike_window is {self.spike_window}",
                where="MonitorConfig.spike_window",
                fix=f"give {_FEWEST} or more",
            )
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ConfigError(
                f"peak_tflops is {self.peak_tflops}",
                where="MonitorConfig.peak_tflops",
                fix="give the peak of one device in TFLOP/s, or None",
            )


class SpikeWatch:
    """Tells an unusual loss from the usual scatter of the steps before it."""

    def __init__(self, config: MonitorConfig):
        self._config = config
        self._seen: collections.deque[float] = collections.deque(
            maxlen=config.spike_window
        )

    def seen(self, loss: float) -> float | None:
        """Notes a step's loss.

        Returns:
          The median before it where the loss is a spike, else None. A loss that is
          not finite is no spike: such steps are skipped and counted elsewhere.
        """
        usual = None
        if not math.isfinite(loss):
            return None
        if self._config.spike_deviations and len(self._seen) >= _FEWEST:
            median = statistics.median(self._seen)
            scatter = statistics.median(abs(x - median) for x in self._seen)
            # Losses that hardly differ would make anything a spike.
            scatter = max(_MAD_TO_SIGMA * scatter, 0.01 * abs(median))
            if loss > median + self._config.spike_deviations * scatter:
                usual = median
        self._seen.append(loss)
        return usual


def group_norms(tree: Any, name: str) -> dict[str, jax.Array]:
    """Returns the norm of each group of a tree of arrays.

    A group is a stack and its part, all layers together: "encoder/mlp",
    "decoder/self_attention", "token_embedder/embedding".

    Args:
      tree: nested dict of arrays, named as parameters are.
      name: what the groups' names start with.
    """
    squares: dict[str, Any] = {}
    for path, leaf in flatten(tree).items():
        names = [part for part in path.split("/") if not part.startswith("layers")]
        group = "/".join([name, *names[:2]])
        square = jnp.sum(jnp.square(leaf.astype(jnp.float32)))
        squares[group] = squares.get(group, 0.0) + square
    return {group: jnp.sqrt(square) for group, square in squares.items()}
