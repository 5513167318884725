"""Examples and packed rows as a person looks at them, on a page or in a terminal.

row = packed_row(features, 0, examples=[4, 7])      # of a batch's features
row.stacks[0].fill                                  # 0.97
row.stacks[1].runs[0]                               # Run(segment=1, loss=True, count=9)
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shown:
    """A rendered example and where it came from.

    Attributes:
      task: SeqIO task name.
      split: of the task.
      inputs, targets: texts.
      input_ids, target_ids: their tokens, before trimming and without EOS.
      collection, dataset, prompt_type, template_id, row_id: provenance, "" if the task
        does not say.
      share: of the mixture it was taken from, or None.
      shot_ids: rows of the exemplars.
      choices: what the target would be for each option.
      references: other accepted targets.
      query_start: characters of `inputs` before the example's own row, those of the
        exemplars; 0 where there are none or it is not known.
    """

    task: str
    split: str
    inputs: str
    targets: str
    input_ids: Sequence[int]
    target_ids: Sequence[int]
    collection: str = ""
    dataset: str = ""
    prompt_type: str = ""
    template_id: str = ""
    row_id: str = ""
    share: float | None = None
    shot_ids: Sequence[str] = ()
    choices: Sequence[str] = ()
    references: Sequence[str] = ()
    query_start: int = 0

    @classmethod
    def of(cls, features: Mapping[str, Any], **known: Any) -> "Shown":
        """Makes one from the features of a task's example, as far as they are there."""
        texts = ("prompt_type", "template_id", "row_id", "collection")
        lists = ("shot_ids", "choices", "references")
        return cls(
            **{name: str(features.get(name, "")) for name in texts},
            **{name: [str(each) for each in features.get(name, ())] for name in lists},
            **known,
        )

    def as_json(self) -> dict[str, Any]:
        """Returns a dict with SeqIO's names: `inputs` are ids."""
        plain = dataclasses.asdict(self)
        return {
            **plain,
            "inputs": list(plain.pop("input_ids")),
            "targets": list(plain.pop("target_ids")),
            "inputs_pretokenized": self.inputs,
            "targets_pretokenized": self.targets,
        }


class Run(NamedTuple):
    """Neighbouring tokens of one segment (0 is padding), with or without loss."""

    segment: int
    loss: bool
    count: int


@dataclasses.dataclass(frozen=True)
class Stack:
    """What one side of the model is given in a row.

    Attributes:
      name: "encoder" or "decoder".
      length: tokens of the row.
      ids: the tokens before its final padding; of a decoder those it has to predict.
      runs: segments from left to right, padding included.
    """

    name: str
    length: int
    ids: Sequence[int]
    runs: Sequence[Run]

    @property
    def fill(self) -> float:
        """Fraction of the row that is not padding."""
        return sum(run.count for run in self.runs if run.segment) / self.length


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """A row of a batch.

    Attributes:
      number: of the row.
      examples: which of the shown examples are its segments 1, 2, ...
      stacks: encoder and decoder, or the decoder alone.
    """

    number: int
    examples: Sequence[int]
    stacks: Sequence[Stack]


def packed_row(
    features: Mapping[str, np.ndarray], number: int, examples: Sequence[int]
) -> PackedRow:
    """Reads a row off a batch's features (`flanjax.data.layout`), int [rows, length].

    Args:
      features: of the batch.
      number: of the row.
      examples: which of the shown examples its segments are.
    """
    stacks = []
    for name, tokens in (("encoder", "input"), ("decoder", "target")):
        if f"{name}_segment_ids" in features:
            segments = features[f"{name}_segment_ids"][number]
            loss = np.zeros_like(segments)
            if name == "decoder":
                loss = features["decoder_loss_weights"][number]
            ids = features[f"{name}_{tokens}_tokens"][number]
            used = int(np.flatnonzero(segments).max(initial=-1)) + 1
            runs = _runs(segments.tolist(), (loss > 0).tolist())
            stacks.append(Stack(name, len(segments), ids[:used].tolist(), runs))
    return PackedRow(number, list(examples), stacks)


def _runs(segments: Sequence[int], loss: Sequence[bool]) -> list[Run]:
    runs: list[Run] = []
    for segment, weighs in zip(segments, loss, strict=True):
        if runs and runs[-1][:2] == (segment, weighs):
            runs[-1] = runs[-1]._replace(count=runs[-1].count + 1)
        else:
            runs.append(Run(segment, weighs, 1))
    return runs


class Pieces(Protocol):
    """What is asked of a vocabulary."""

    def token(self, token_id: int) -> str:
        """The written form of a token."""
        ...

    def decode_all(self, ids: list[int]) -> str:
        """The text of tokens."""
        ...


def pieces(vocabulary: Pieces, ids: Iterable[int]) -> dict[int, str]:
    """Returns the text that each of the tokens stands for, spaces as spaces.

    Tokens without a text of their own (parts of a character, special ones) have their
    written form, or "" if there is none.
    """
    return {each: _piece(vocabulary, each) for each in sorted(set(map(int, ids)))}


def _piece(vocabulary: Pieces, token_id: int) -> str:
    written = vocabulary.token(token_id)
    if "▁" in written:  # SentencePiece's space, which decoding one token drops.
        return written.replace("▁", " ")
    text = vocabulary.decode_all([token_id])
    return text if text and "\ufffd" not in text else written


def all_ids(examples: Iterable[Shown], rows: Iterable[PackedRow]) -> set[int]:
    """Returns every token id in examples and rows."""
    lists = [ids for e in examples for ids in (e.input_ids, e.target_ids)]
    lists += [stack.ids for row in rows for stack in row.stacks]
    return {each for ids in lists for each in ids}
