"""Low-rank adapters: a frozen kernel W is used as W + (alpha / rank) A B.

    config = DecoderConfig(..., lora=LoraConfig(rank=8))
    params["decoder"]["layers"]["mlp"]["wi_0"]   # kernel, lora_a, lora_b
    plain = merge_lora(params, config)           # the same function, kernels only

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685 (A random, B zero at start).
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from flanjax.errors import ConfigError

ALL_KERNELS = (r"(self_|encoder_decoder_)?attention/(query|key|value|out)", r"mlp/.*")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which kernels get an adapter, and how large it is.

    Attributes:
      rank: columns of A and rows of B; 0 means no adapters at all.
      alpha: the adapter's product is scaled by alpha / rank.
      targets: regular expressions; a kernel whose module path (such as
        "decoder/layers/mlp/wi_0") ends in a match gets an adapter.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: Sequence[str] = ALL_KERNELS

    def __post_init__(self):
        if self.rank < 0:
            raise ConfigError(
                f"LoRA rank is {self.rank}", fix="give 0 (no adapters) or more"
            )
        # Modules are hashed by their configuration, and gin gives lists.
        object.__setattr__(self, "targets", tuple(self.targets))

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank

    def applies_to(self, path: Sequence[str]) -> bool:
        """Whether the kernel of the module at `path` gets an adapter."""
        name = "/".join(path)
        return self.rank > 0 and any(
            re.search(rf"(^|/)({target})$", name) for target in self.targets
        )


def is_lora(path: Sequence[str]) -> bool:
    """Whether the parameter at `path` (names from the root) is part of an adapter."""
    return path[-1] in ("lora_a", "lora_b")


def merge_lora(params: dict[str, Any], config: Any) -> dict[str, Any]:
    """Folds every adapter into its kernel.

    Args:
      params: nested parameters, with or without a leading layer axis.
      config: the model's configuration (its `lora` gives the scale).

    Returns:
      Parameters of the same model without adapters.
    """
    if "lora_a" in params:
        update = jnp.matmul(params["lora_a"], params["lora_b"])
        return {"kernel": params["kernel"] + config.lora.scale * update}
    return {
        name: merge_lora(value, config) if isinstance(value, dict) else value
        for name, value in params.items()
    }
