"""Low-rank adapters: a frozen kernel W is used as W + (alpha / rank) A B.

    config = DecoderConfig(..., lora=LoraConfig(rank=8))
    params["decoder"]["layers"]["mlp"]["wi_0"]   # kernel, lora_a, lora_b
    plain = merge_lora(params, config)           # the same function, kernels only

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685 (A random, B zero at start).
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from flanjax.errors import ConfigError, nearest

ALL_KERNELS = (r"(self_|encoder_decoder_)?attention/(query|key|value|out)", r"mlp/.*")

# The embedding and the output head: what they do is no product inside a layer.
_OUTSIDE = {
    ("token_embedder",): "the embedding",
    ("token_embedder", "embedding"): "the embedding",
    ("decoder", "logits_dense"): "the output head",
}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which kernels get an adapter, and how large it is.

    Attributes:
      rank: columns of A and rows of B; 0 means no adapters at all.
      alpha: the adapter's product is scaled by alpha / rank.
      targets: regular expressions; a kernel whose module path (such as
        "decoder/layers/mlp/wi_0") ends in a match gets an adapter, in every layer.
      dropout: share of an adapter's inputs that training replaces by zeros, each
        element on its own; the model's own dropout is another setting.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: Sequence[str] = ALL_KERNELS
    dropout: float = 0.0

    def __post_init__(self):
        if self.rank < 0:
            raise ConfigError(
                f"LoRA rank is {self.rank}",
                where="LoraConfig.rank",
                fix="give 0 (no adapters) or more",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"LoRA dropout is {self.dropout}",
                where="LoraConfig.dropout",
                fix="give a number from 0 to below 1",
            )
        check_patterns(self.targets, "LoraConfig.targets")
        # Modules are hashed by their configuration, and gin gives lists.
        object.__setattr__(self, "targets", tuple(self.targets))

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank

    def applies_to(self, path: Sequence[str]) -> bool:
        """Whether the kernel of the module at `path` gets an adapter."""
        path = _of_all_layers(path)
        return self.rank > 0 and any(ends_in(target, path) for target in self.targets)


def ends_in(pattern: str, path: Sequence[str]) -> bool:
    """Whether a regular expression matches the last names of a path, or all of them."""
    return re.search(rf"(^|/)({pattern})$", "/".join(path)) is not None


def check_patterns(patterns: Any, where: str) -> None:
    """Raises ConfigError unless `patterns` is a sequence of regular expressions."""
    if isinstance(patterns, str):
        raise ConfigError(
            f"'{patterns}' is one text, not a list",
            where=where,
            fix=f"write ['{patterns}']",
        )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"'{pattern}' is no regular expression: {error}", where=where
            ) from error


def check_adapters(lora: LoraConfig, shapes: Mapping[str, Any]) -> None:
    """Checks that adapters of this configuration fit a model.

    Args:
      lora: rank above 0.
      shapes: the model's parameters, or their shapes (`abstract_params`).

    Raises:
      ConfigError: a target matches no kernel (names the nearest), or the embedding or
        the output head; or the rank is larger than a kernel's sides.
    """
    kernels = dict(_kernels(shapes))
    inside = [path for path in kernels if path not in _OUTSIDE]
    for target in lora.targets:
        for path, what in _OUTSIDE.items():
            if ends_in(target, path):
                raise ConfigError(
                    f"the LoRA target '{target}' matches {what} "
                    f"({'/'.join(path)}), which cannot have an adapter",
                    where="LoraConfig.targets",
                    fix=f"targets are kernels inside the layers: {_listed(inside)}",
                )
        if not any(ends_in(target, path) for path in inside):
            names = {"/".join(path[-n:]) for path in inside for n in (1, 2, len(path))}
            raise ConfigError(
                f"the LoRA target '{target}' matches no kernel of the model."
                f"{nearest(target, names)}",
                where="LoraConfig.targets",
                fix=f"the model's kernels: {_listed(inside)}",
            )
    for path in inside:
        side = min(kernels[path].shape[-2:])
        if lora.applies_to(path) and lora.rank > side:
            raise ConfigError(
                f"LoRA rank is {lora.rank}, but {'/'.join(path)} has a kernel of "
                f"{' x '.join(map(str, kernels[path].shape[-2:]))}",
                where="LoraConfig.rank",
                fix=f"give a rank of {side} or less, or leave this kernel out of the "
                "targets",
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
    merged = {
        name: merge_lora(value, config) if isinstance(value, dict) else value
        for name, value in params.items()
        if not is_lora((name,))
    }
    if "lora_a" in params:
        update = jnp.matmul(params["lora_a"], params["lora_b"])
        merged["kernel"] = params["kernel"] + config.lora.scale * update
    return merged


def _kernels(
    shapes: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the path of every module with a kernel, and the kernel."""
    for name, value in shapes.items():
        if isinstance(value, Mapping):
            yield from _kernels(value, (*path, name))
        elif name == "kernel":
            yield _of_all_layers(path), value


def _of_all_layers(path: Sequence[str]) -> tuple[str, ...]:
    """The path of scanned layers: decoding runs the same adapters layer by layer."""
    return tuple("layers" if name.startswith("layers_") else name for name in path)


def _listed(paths: Sequence[Sequence[str]]) -> str:
    """The last two names of each path, once."""
    return ", ".join(dict.fromkeys("/".join(path[-2:]) for path in paths))
