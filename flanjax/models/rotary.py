"""Rotary positions (RoPE), and their scaling to longer texts than were trained on.

    rotary = rotary_tables(positions, head_dim=64, base=5e5, scaling=RopeScaling(...))
    query = rotate(query, rotary)

Heads are in Hugging Face's order: the two halves of a head are a pair's two parts.
Source: https://arxiv.org/abs/2104.09864.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.errors import ConfigError, nearest
from flanjax.models.layers import at_least_float32

KINDS = ("llama3", "linear")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are lowered for long texts.

    Attributes:
      kind: "linear" divides every frequency by `factor` (positions are interpolated,
        https://arxiv.org/abs/2306.15595); "llama3" leaves short wavelengths alone,
        divides long ones, and goes smoothly between (Llama 3.1,
        https://arxiv.org/abs/2407.21783).
      factor: how many times longer texts become.
      low_freq_factor: llama3: wavelengths above original_length / this are divided.
      high_freq_factor: llama3: those below original_length / this are left alone.
      original_length: llama3: positions the model was first trained on.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(
                f"the scaling of rotary positions is '{self.kind}'."
                f"{nearest(str(self.kind), KINDS)}",
                where="RopeScaling.kind",
                fix=f"one of {', '.join(KINDS)}",
            )
        if self.factor < 1:
            raise ConfigError(
                f"factor is {self.factor}",
                where="RopeScaling.factor",
                fix="give 1 or more: texts become that many times longer",
            )
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"low_freq_factor {self.low_freq_factor} is not below "
                f"high_freq_factor {self.high_freq_factor}",
                where="RopeScaling.low_freq_factor",
                fix="Llama 3.1 has 1.0 and 4.0",
            )

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        """Maps radians per position to lower ones, same shape."""
        if self.kind == "linear":
            return frequencies / self.factor
        # How often a frequency turns over the length the model was trained on.
        turns = self.original_length * frequencies / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequencies * (kept + (1.0 - kept) / self.factor)


def rotary_tables(
    positions: jax.Array,
    head_dim: int,
    base: float,
    scaling: RopeScaling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine, each float32 [batch, length, 1, head_dim / 2].

    Args:
      positions: int [batch, length].
      head_dim: width of a head; even.
      base: of the frequencies base ** (-2 i / head_dim).
      scaling: lowers them; None for none.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
    frequencies = base**-exponent
    if scaling is not None:
        frequencies = scaling.apply(frequencies).astype(np.float32)
    angle = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns [batch, length, heads, head_dim] by its positions' angles."""
    cosine, sine = rotary
    first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
