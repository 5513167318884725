"""Turns tokenised examples into the model's features, in SeqIO's names and values.

    layout = make_layout("encoder_decoder", {"inputs": 7, "targets": 8}, vocabulary)
    layout.row([Example([7, 8, 5], [3, 9]), ...])["encoder_input_tokens"]
    # [7, 8, 5, 1, ...]: trimmed to 6, EOS appended, next segment behind it

The store keeps examples as they are at SeqIO's cache point, before trimming and EOS.
Everything after that point is here, so that one store serves every feature length.

Over-length examples are truncated, never dropped, as SeqIO's `append_eos_after_trim`
does: inputs and targets both lose their TAIL, and keep their EOS (or, in a chat layout,
the whole wrapping around them). A few-shot prompt longer than the room therefore loses
its question; the few-shot token budget and `guards.check_lengths` are there to keep
that from happening unseen.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from flanjax.data.assemble import Segments, assemble
from flanjax.errors import ConfigError, DataError, nearest

_MARKER = "flanjax-user-text"
_ENCODER_DECODER = (
    "encoder_input_tokens",
    "encoder_segment_ids",
    "encoder_positions",
    "decoder_target_tokens",
    "decoder_input_tokens",
    "decoder_loss_weights",
    "decoder_segment_ids",
    "decoder_positions",
)
_DECODER = (*_ENCODER_DECODER[3:], "decoder_causal_attention")


class Tokens(Protocol):
    """What a row is made of."""

    @property
    def inputs(self) -> np.ndarray:
        """Int [n] token ids."""
        ...

    @property
    def targets(self) -> np.ndarray:
        """Int [m] token ids."""
        ...


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an example becomes a segment of a row.

    A segment's inputs part is `prefix_ids + inputs + separator_ids` (+ EOS if
    `inputs_eos`), its targets part is `targets + EOS`. An encoder-decoder keeps the two
    in features of their own; a decoder joins them in rows of
    `inputs_length + targets_length`, as SeqIO's PrefixLM converter does.

    Attributes:
      kind: "encoder_decoder" or "decoder".
      inputs_length: tokens of an inputs part at most, wrapping and EOS included.
      targets_length: tokens of a targets part at most, EOS included.
      pad_id: fills the rest of a row.
      eos_id: ends every targets part.
      start_id: first decoder input of a segment (T5X's shift right); None means inputs
        are `segment[:-1]` and targets `segment[1:]`, as Llama-like models are trained.
      prefix_ids: tokens before the inputs.
      separator_ids: tokens after the inputs.
      inputs_eos: whether the inputs part ends with EOS.

    Raises:
      DataError: a length leaves no room for one token of any example.
    """

    kind: str
    inputs_length: int
    targets_length: int
    pad_id: int = 0
    eos_id: int = 1
    start_id: int | None = 0
    prefix_ids: tuple[int, ...] = ()
    separator_ids: tuple[int, ...] = ()
    inputs_eos: bool = True

    def __post_init__(self):
        if self.kind not in ("encoder_decoder", "decoder"):
            hint = nearest(self.kind, ("encoder_decoder", "decoder"))
            raise ConfigError(f"unknown layout kind '{self.kind}'.{hint}")
        if self.start_id is None and (self.kind != "decoder" or not self._wrapping):
            raise ConfigError(
                "a layout without start_id needs kind 'decoder' and a prefix or "
                "separator",
                fix="set start_id, or give prefix_ids or separator_ids",
            )
        for feature, length, taken in (
            ("inputs", self.inputs_length, self._wrapping),
            ("targets", self.targets_length, 1),
        ):
            if length < taken + 1:
                raise DataError(
                    f"feature length {feature}={length} is too small for any example: "
                    f"{taken} token(s) of wrapping and EOS leave no room",
                    where="TASK_FEATURE_LENGTHS",
                    fix=f"set '{feature}' to at least {taken + 1}",
                )

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Tokens that close the inputs part."""
        return self.separator_ids + ((self.eos_id,) if self.inputs_eos else ())

    @property
    def _wrapping(self) -> int:
        return len(self.prefix_ids) + len(self.suffix_ids)

    @property
    def inputs_room(self) -> int:
        """Raw input tokens that fit; more are cut off at the tail."""
        return self.inputs_length - self._wrapping

    @property
    def targets_room(self) -> int:
        """Raw target tokens that fit; more are cut off at the tail."""
        return self.targets_length - 1

    @property
    def features(self) -> dict[str, int]:
        """Feature name -> length of a row."""
        if self.kind == "decoder":
            return dict.fromkeys(_DECODER, self.inputs_length + self.targets_length)
        return {
            name: self.inputs_length if name[0] == "e" else self.targets_length
            for name in _ENCODER_DECODER
        }

    @property
    def limits(self) -> tuple[int, int]:
        """The two budgets of a row, for `packing.pack`."""
        if self.kind == "decoder":
            return self.inputs_length + self.targets_length, 0
        return self.inputs_length, self.targets_length

    def lengths(self, raw: np.ndarray) -> np.ndarray:
        """Lengths of inputs and targets parts after trimming.

        Args:
          raw: int [n, 2], token counts in the store (no EOS, no wrapping).

        Returns:
          int32 [n, 2], tokens the two parts take, wrapping and EOS included.
        """
        room = np.array([self.inputs_room, self.targets_room])
        added = np.array([self._wrapping, 1])
        return (np.minimum(raw, room) + added).astype(np.int32)

    def sizes(self, raw: np.ndarray) -> np.ndarray:
        """What examples take of the two budgets `limits`: int32 [n, 2]."""
        lengths = self.lengths(raw)
        if self.kind == "encoder_decoder":
            return lengths
        shift = 1 if self.start_id is None else 0
        whole = lengths.sum(axis=1, dtype=np.int32) - shift
        return np.stack([whole, np.zeros_like(whole)], axis=1)

    def prompt(self, inputs: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the inputs part to decode from, int32, trimmed as in training."""
        inputs = np.asarray(inputs, np.int32)[: self.inputs_room]
        parts = (self.prefix_ids, inputs, self.suffix_ids)
        return np.concatenate([np.asarray(part, np.int32) for part in parts])

    def target(self, targets: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the targets part, int32, trimmed as in training, EOS at its end."""
        targets = np.asarray(targets, np.int32)[: self.targets_room]
        return np.append(targets, np.int32(self.eos_id))

    def row(self, examples: Sequence[Tokens]) -> dict[str, np.ndarray]:
        """Builds one row, int32 [length] per feature; segments in the order given."""
        return {name: value[0] for name, value in self.batch([examples]).items()}

    def batch(self, rows: Sequence[Sequence[Tokens]]) -> dict[str, np.ndarray]:
        """Builds features int32 [len(rows), length]; an empty row is all padding."""
        parts = [
            np.asarray(part, np.int32)
            for row in rows
            for example in row
            for part in (example.inputs, example.targets)
        ]
        lengths = np.array([len(part) for part in parts], np.int64).reshape(-1, 2)
        ends = np.cumsum(lengths.sum(axis=1))
        segments = Segments(
            tokens=np.concatenate([*parts, np.zeros(0, np.int32)]),
            starts=ends - lengths.sum(axis=1),
            lengths=lengths,
            rows=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
        )
        return assemble(self, segments, len(rows))


def make_layout(
    kind: str,
    feature_lengths: Mapping[str, int],
    vocabulary,
    wrapping: str = "plain",
    system_prompt: str | None = None,
) -> Layout:
    """Builds the layout of a model family.

    Args:
      kind: "encoder_decoder" or "decoder".
      feature_lengths: {"inputs": tokens, "targets": tokens}, as T5X's
        TASK_FEATURE_LENGTHS.
      vocabulary: a `flanjax.data.vocabulary.Vocabulary`.
      wrapping: "plain" (inputs and targets separated by EOS, as FLAN did) or "chat"
        (decoder only: the tokens the vocabulary's chat template puts around the user's
        text and before the answer).
      system_prompt: system message of a chat layout.

    Returns:
      A `Layout`. An encoder-decoder starts decoding with the pad id, as T5; a decoder
      has no start token.

    Raises:
      ConfigError: unknown kind, wrapping or feature; no chat template.
      DataError: a feature length is too small for any example.
    """
    if set(feature_lengths) != {"inputs", "targets"}:
        raise ConfigError(
            f"feature lengths name {sorted(feature_lengths)}",
            where="TASK_FEATURE_LENGTHS",
            fix="give exactly 'inputs' and 'targets'",
        )
    if wrapping not in ("plain", "chat"):
        hint = nearest(wrapping, ("plain", "chat"))
        raise ConfigError(f"unknown wrapping '{wrapping}'.{hint}")
    if wrapping == "chat" and kind != "decoder":
        raise ConfigError("chat wrapping needs a decoder", fix="use wrapping='plain'")
    prefix, separator = (), ()
    if wrapping == "chat":
        prefix, separator = _chat_wrapping(vocabulary, system_prompt)
    return Layout(
        kind=kind,
        inputs_length=int(feature_lengths["inputs"]),
        targets_length=int(feature_lengths["targets"]),
        pad_id=vocabulary.pad_id,
        eos_id=vocabulary.eos_id,
        start_id=vocabulary.pad_id if kind == "encoder_decoder" else None,
        prefix_ids=prefix,
        separator_ids=separator,
        inputs_eos=wrapping == "plain",
    )


def _chat_wrapping(vocabulary, system_prompt: str | None):
    """Returns the token ids a chat template puts before and after the user's text."""
    messages = [{"role": "user", "content": _MARKER}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    text = vocabulary.render_chat(messages, add_generation_prompt=True)
    before, found, after = text.partition(_MARKER)
    if not found or not after:
        raise ConfigError(
            "the chat template does not show the user's text followed by the start of "
            "an answer",
            where=getattr(vocabulary, "spec", None),
            fix="use wrapping='plain', or another vocabulary",
        )
    return (
        tuple(vocabulary.encode(before, special=True)),
        tuple(vocabulary.encode(after, special=True)),
    )
