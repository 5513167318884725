"""Arithmetic a training step needs, for utilisation; XLA counts a scan's body once.

step_flops(model, encoder_tokens=4096, decoder_tokens=1024, context=256)
"""

import math
from typing import Any

from flanjax.models.build import abstract_params
from flanjax.train.state import Trainable
from flanjax.train.trees import flatten


def step_flops(
    model: Any,
    *,
    decoder_tokens: int,
    encoder_tokens: int = 0,
    context: float,
    trainable: Trainable | None = None,
) -> float:
    """Floating-point operations of one forward and backward pass.

    Args:
      model: as `build_model` makes it.
      decoder_tokens: tokens of the batch that pass the decoder.
      encoder_tokens: tokens that pass the encoder.
      context: positions a token attends to, on average.
      trainable: predicate on paths; weight gradients of the others are not computed.

    Returns:
      Two operations per weight and token forward, two for the gradient of its input,
      two for its own if it is trained; and 12 per attended position, head channel
      and layer for attention.
    """
    total = 0.0
    for name, leaf in flatten(abstract_params(model)[0]).items():
        path = tuple(name.split("/"))
        if path[-1] == "embedding" and not model.config.logits_via_embedding:
            continue  # A lookup multiplies nothing.
        if len(leaf.shape) < 2 or "relpos_bias" in path:
            continue
        reads_inputs = path[0] == "encoder" or name.endswith(
            (
                "encoder_decoder_attention/key/kernel",
                "encoder_decoder_attention/value/kernel",
            )
        )
        tokens = encoder_tokens if reads_inputs else decoder_tokens
        passes = 6.0 if trainable is None or trainable(path) else 4.0
        weights = math.prod(leaf.shape)
        total += passes * weights * tokens
        if name.endswith("attention/query/kernel"):
            channels = weights / model.config.emb_dim  # Of all layers together.
            total += 12.0 * channels * context * tokens
    return total
