"""Machines one does not have: names such as "v5p:8x8x4" and the devices they mean.

    topology = parse_topology("v5e:16x16")
    mesh = make_mesh(config.mesh, topology_devices(topology))   # 256 devices, no TPU

TPU devices come from libtpu (`pip install flanjax[tpu]`), which compiles for every
topology on any Linux machine; "cpu:8" is eight simulated devices of this one.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from flanjax.errors import ConfigError, nearest
from flanjax.train.peak import PEAKS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      kind: the device's name in `flanjax.train.peak.PEAKS`.
      hbm: bytes of memory of one chip.
      source: where that figure stands.
      dimensions: of a topology's shape.
      example: a topology that exists.
      devices: JAX devices on one chip; they share its memory evenly.
      options: what libtpu needs to be told.
    """

    kind: str
    hbm: int
    source: str
    dimensions: int
    example: str
    devices: int = 1
    options: tuple[tuple[str, str], ...] = ()


# Compiling needs no TPU, but libtpu looks for the machine it is on and says at length
# that it is on none, locks it for one process, and logs to /tmp.
_LIBTPU = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_LOG_DIR": "disabled",
}

_DOCS = "https://cloud.google.com/tpu/docs/"
CHIPS = {
    # Without "megacore" the two cores of a v4 chip count as devices of their own.
    "v4": Chip(
        "TPU v4",
        32 * GIB,
        _DOCS + "v4",
        3,
        "v4:4x4x4",
        options=(("chip_config_name", "megacore"),),
    ),
    "v5e": Chip("TPU v5e", 16 * GIB, _DOCS + "v5e", 2, "v5e:16x16"),
    "v5p": Chip("TPU v5p", 95 * GIB, _DOCS + "v5p", 3, "v5p:8x8x4"),
    "v6e": Chip("TPU v6", 32 * GIB, _DOCS + "v6e", 2, "v6e:16x16"),
    "tpu7x": Chip("TPU7x", 192 * GIB, _DOCS + "tpu7x", 3, "tpu7x:4x4x4", devices=2),
}
_EXAMPLES = ", ".join([*(chip.example for chip in CHIPS.values()), "cpu:8"])


@dataclasses.dataclass(frozen=True)
class Topology:
    """A machine to compile for.

    Attributes:
      name: as the user wrote it.
      platform: "tpu" or "cpu".
      chip: None for a CPU.
      shape: chips along each axis of one slice.
      slices: how many of them, joined by the data-centre network.
    """

    name: str
    platform: str
    chip: Chip | None
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def num_devices(self) -> int:
        """JAX devices of all slices."""
        chips = math.prod(self.shape) * self.slices
        return chips * (self.chip.devices if self.chip else 1)

    @property
    def hbm(self) -> int | None:
        """Bytes one device has; None for a CPU, whose devices share the host's."""
        return self.chip.hbm // self.chip.devices if self.chip else None

    @property
    def peak(self) -> float | None:
        """Dense bfloat16 operations per second of one device; None for a CPU."""
        if self.chip is None:
            return None
        return dict(PEAKS)[self.chip.kind]


def parse_topology(text: str, slices: int = 1) -> Topology:
    """Reads "FAMILY:AxB", "FAMILY:AxBxC" or "cpu:N".

    Args:
      text: of the command line.
      slices: machines of that shape; `MeshConfig.slices` is their number.

    Raises:
      ConfigError: no such family or shape; lists what there is.
    """
    family, _, sizes = text.partition(":")
    families = [*CHIPS, "cpu"]
    wanted = f"give one such as {_EXAMPLES}"
    if family not in families:
        raise ConfigError(
            f"there is no topology '{text}'.{nearest(family, families)}",
            where="--topology",
            fix=f"families: {', '.join(families)}; {wanted}",
        )
    if slices < 1:
        raise ConfigError(f"--slices is {slices}", fix="give 1 or more")
    chip = CHIPS.get(family)
    dimensions = chip.dimensions if chip else 1
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes) or (
        len(sizes.split("x")) != dimensions
    ):
        form = "x".join("ABC"[:dimensions]) if chip else "N"
        chips = f" ({sizes.partition('-')[2] or sizes} chips is no shape)" * bool(chip)
        raise ConfigError(
            f"'{text}' is not {family}:{form}{chips}", where="--topology", fix=wanted
        )
    shape = tuple(int(size) for size in sizes.split("x"))
    return Topology(text, "tpu" if chip else "cpu", chip, shape, slices)


def has_libtpu() -> bool:
    """Whether programs for TPUs can be compiled here."""
    return importlib.util.find_spec("libtpu") is not None


def topology_devices(topology: Topology) -> list[Any]:
    """Returns the topology's devices, to compile for; none of them can run anything.

    Raises:
      ConfigError: libtpu does not know the shape, or this process has already started
        its CPU with fewer devices.
    """
    if topology.platform == "cpu":
        return simulated_devices(topology.num_devices)
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    chip = topology.chip
    assert chip is not None
    try:
        description = topologies.get_topology_desc(
            platform="tpu",
            topology_name=topology.name,
            num_slices=topology.slices,
            **dict(chip.options),
        )
    except Exception as error:
        raise ConfigError(
            f"libtpu refuses the topology '{topology.name}': "
            + str(error).partition("\n")[0].removeprefix("INVALID_ARGUMENT: "),
            where="--topology",
            fix=f"give one such as {_EXAMPLES}",
        ) from error
    return list(description.devices)


def simulated_devices(count: int) -> list[Any]:
    """Returns CPU devices, which JAX can make only before it starts.

    Raises:
      ConfigError: it has started with fewer.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            pass  # The devices have been started; there may be enough.
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"this process has started with {len(devices)} CPU device(s), not {count}",
            where="--topology",
            fix=f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}",
        )
    return devices[:count]
