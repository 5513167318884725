"""The arithmetic a device could do, which utilisation (MFU) is a fraction of."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Dense bfloat16 operations per second of a device by the makers' data sheets; the first
# name that the device's kind contains counts.
PEAKS = (
    ("H200", 989e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("TPU7x", 2307e12 / 2),  # Two devices on a chip.
    ("TPU v6", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),  # What JAX calls a v5p.
    ("TPU v4", 275e12),
)
_SIZE, _TRIALS = 2048, 8


def peak_flops(devices: Sequence[Any], stated: float | None = None) -> float:
    """Operations per second of all devices together.

    Simulated devices of one CPU share it, so the CPU counts once.

    Args:
      devices: jax.Devices, of one kind.
      stated: 10^12 operations per second of one device, when the user knows better.

    Returns:
      The stated figure, else the data sheet's, or for a CPU or an unknown kind what a
      float32 matrix product reaches here and now.
    """
    if stated is not None:
        return stated * 1e12 * len(devices)
    kind = devices[0].device_kind
    for name, peak in PEAKS:
        if name in kind:
            return peak * len(devices)
    measured = _measured(devices[0])
    return measured if devices[0].platform == "cpu" else measured * len(devices)


def _measured(device: Any) -> float:
    matrix = jax.device_put(jnp.ones((_SIZE, _SIZE), jnp.float32), device)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    best = float("inf")
    for _ in range(_TRIALS):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
