"""Groups prompts into batches of few shapes, the longest first.

    for batch in prompt_batches(prompts, batch_size=8, pad_id=0, kind="decoder"):
        tokens = decode(params, batch.features)      # [8, ...]
        answers = {i: tokens[row] for row, i in enumerate(batch.indices)}

Each shape costs a compilation of seconds, so lengths are rounded up to multiples of 32
and the last batch is filled up by repeating its first prompt.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

BUCKET_TOKENS = 32


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Prompts that run together.

    Attributes:
      indices: which prompts the first rows are; the rows after them are filling.
      rows: for every row the prompt it holds.
      features: what `flanjax.decode` takes: `encoder_input_tokens`, or
        `decoder_input_tokens` and `lengths`; int32 [batch, length] and [batch].
    """

    indices: list[int]
    rows: list[int]
    features: dict[str, np.ndarray]

    @property
    def length(self) -> int:
        """Tokens of a row, padding included."""
        return next(v.shape[1] for k, v in self.features.items() if "tokens" in k)


def prompt_batches(
    prompts: Sequence[np.ndarray], batch_size: int, pad_id: int, kind: str
) -> Iterator[PromptBatch]:
    """Yields batches of exactly `batch_size` rows that hold every prompt once.

    Args:
      prompts: token ids of each, as `Layout.prompt` gives them.
      batch_size: rows of a batch.
      pad_id: fills rows on the right.
      kind: "encoder_decoder" or "decoder", which decides the features' names.
    """
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        rows = indices + [indices[0]] * (batch_size - len(indices))
        lengths = np.array([len(prompts[i]) for i in rows], np.int32)
        width = -(-int(lengths.max()) // BUCKET_TOKENS) * BUCKET_TOKENS
        tokens = np.full((batch_size, width), pad_id, np.int32)
        for row, i in enumerate(rows):
            tokens[row, : len(prompts[i])] = prompts[i]
        if kind == "encoder_decoder":
            features = {"encoder_input_tokens": tokens}
        else:
            features = {"decoder_input_tokens": tokens, "lengths": lengths}
        yield PromptBatch(indices, rows, features)
