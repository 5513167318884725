"""Arithmetic of a training step and of a run, for utilisation, recipes and checks.

    step_flops(model, decoder_tokens=1024, decoder_length=64,
               encoder_tokens=4096, encoder_length=256)
    run_cost(config).hours(peak=64 * 275e12, mfu=0.4)

XLA's own count is no use: it counts the body of a loop over layers once.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

from flanjax.models.build import abstract_params, build_model
from flanjax.train.state import Trainable
from flanjax.train.trees import flatten


def step_flops(
    model: Any,
    *,
    decoder_tokens: float,
    decoder_length: int,
    encoder_tokens: float = 0,
    encoder_length: int = 0,
    loss_tokens: float | None = None,
    trainable: Trainable | None = None,
) -> float:
    """Floating-point operations in the matrix products of a forward and backward pass.

    Attention counts every position of a row, masked or not, as is the custom
    (https://arxiv.org/abs/2204.02311, Appendix B), but with a sliding window no more
    than the window. What rematerialisation computes again is not counted.

    Args:
      model: as `build_model` makes it.
      decoder_tokens: tokens of the batch that pass the decoder.
      decoder_length: positions of a decoder row.
      encoder_tokens: tokens that pass the encoder.
      encoder_length: positions of an encoder row.
      loss_tokens: tokens that the output head scores; None for all of the decoder.
      trainable: predicate on paths; weight gradients of the others are not computed.

    Returns:
      Two operations per weight and token forward, two for the gradient of its input,
      two for its own if it is trained; and 12 for each query, key, head channel and
      layer.
    """
    scored = decoder_tokens if loss_tokens is None else loss_tokens
    window = getattr(model.config, "sliding_window", None) or decoder_length
    total = 0.0
    for path, weights in _weights(model):
        tokens, keys = decoder_tokens, min(window, decoder_length)
        if path[-1] == "embedding":
            # A lookup multiplies nothing; a tied head does.
            tokens = scored if model.config.logits_via_embedding else 0
        elif path[-1] not in ("kernel", "lora_a", "lora_b"):
            continue
        elif "logits_dense" in path:
            tokens = scored
        elif path[0] == "encoder":
            tokens, keys = encoder_tokens, encoder_length
        elif "encoder_decoder_attention" in path:
            keys = encoder_length
            tokens = encoder_tokens if path[-2] in ("key", "value") else tokens
        passes = 6.0 if trainable is None or trainable(path) else 4.0
        total += passes * weights * tokens
        if path[-2:] == ("query", "kernel"):
            channels = weights / model.config.emb_dim  # Of all layers together.
            total += 12.0 * channels * tokens * keys
    return total


@functools.lru_cache(maxsize=8)
def _weights(model: Any) -> list[tuple[tuple[str, ...], int]]:
    """Path and size of every parameter; tracing the model takes 0.3 s, so once."""
    shapes = flatten(abstract_params(model)[0])
    return [(tuple(n.split("/")), math.prod(x.shape)) for n, x in shapes.items()]


@dataclass(frozen=True)
class RunCost:
    """What a whole run computes.

    Attributes:
      rows: packed rows it sees.
      tokens: positions of these rows, inputs and targets; full rows, no padding.
      flops: operations, as `step_flops` counts them.
    """

    rows: int
    tokens: int
    flops: float

    def hours(self, peak: float, mfu: float) -> float:
        """Hours at a share `mfu` of `peak` operations per second of all devices."""
        return self.flops / (peak * mfu) / 3600


def run_cost(config: Any, trainable: Trainable | None = None) -> RunCost:
    """Counts what a run computes when its rows are full.

    Args:
      config: a `RunConfig`.
      trainable: as for `step_flops`.
    """
    model, lengths = build_model(config.model), config.data.feature_lengths
    rows, inputs, targets = (
        config.data.batch_size,
        lengths["inputs"],
        lengths["targets"],
    )
    if model.kind == "encoder_decoder":
        flops = step_flops(
            model,
            decoder_tokens=rows * targets,
            decoder_length=targets,
            encoder_tokens=rows * inputs,
            encoder_length=inputs,
            trainable=trainable,
        )
    else:
        flops = step_flops(
            model,
            decoder_tokens=rows * (inputs + targets),
            decoder_length=inputs + targets,
            loss_tokens=rows * targets,
            trainable=trainable,
        )
    seen = rows * config.train_steps
    return RunCost(seen, seen * (inputs + targets), flops * config.train_steps)
