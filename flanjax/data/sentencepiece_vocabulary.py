"""SentencePiece models as vocabularies: T5's, with sentinels on top, and Llama's.

t5 = load_vocabulary("sentencepiece:spiece.model")      # 100 sentinels
llama = load_vocabulary("tokenizer:llama2_directory")   # tokenizer.model as it is
"""

import functools
import typing

from flanjax.data.vocabulary import Vocabulary, digest
from flanjax.errors import ConfigError

_SPECIAL = ("pad", "eos", "bos", "unk")


class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model, with sentinels above its pieces where it is T5's.

    `<extra_id_0>` is the highest id, as in T5X. `encode(..., special=True)` reads the
    sentinels' names or, where there are none, the model's control pieces (`<s>`).

    Args:
      spec: what names it.
      model: the content of the file.
      extra_ids: how many sentinels; T5 has 100.
      special_ids: ids by `pad`, `eos`, `bos`, `unk` that the model does not tell, or
        tells otherwise.
      chat_template: Jinja text, or None.
    """

    def __init__(
        self,
        spec: str,
        model: bytes,
        *,
        extra_ids: int = 100,
        special_ids: dict[str, int | None] | None = None,
        chat_template: str | None = None,
    ):
        self.spec = spec
        self.model = model
        self.extra_ids = extra_ids
        self.chat_template = chat_template
        self._plain = _sentencepiece(model, spec)
        self._pieces = self._plain.get_piece_size()
        self.size = self._pieces + extra_ids
        given = {n: i for n, i in (special_ids or {}).items() if i is not None}
        ids = {name: getattr(self._plain, f"{name}_id")() for name in _SPECIAL} | given
        if ids["eos"] < 0:
            raise ConfigError("the SentencePiece model has no EOS piece", where=spec)
        self.eos_id, self.unk_id = ids["eos"], ids["unk"]
        self.bos_id = None if ids["bos"] < 0 else ids["bos"]
        # With T5's, SeqIO reserves 0 for padding whatever the model says.
        no_pad = 0 if extra_ids else self.eos_id
        self.pad_id = no_pad if ids["pad"] < 0 else ids["pad"]
        named = (sorted(given.items()), chat_template) if special_ids else ""
        self._fingerprint = digest(model + f"{extra_ids}{named}".encode())

    @functools.cached_property
    def _with_specials(self) -> typing.Any:
        model = parse_model(self.model)
        kinds = _schema().ModelProto.SentencePiece
        for piece in model.pieces:
            if not self.extra_ids and piece.type == kinds.CONTROL:
                piece.type = kinds.USER_DEFINED
        for i in reversed(range(self.extra_ids)):
            name = f"▁<extra_id_{i}>"
            model.pieces.add(piece=name, score=0.0, type=kinds.USER_DEFINED)
        return _sentencepiece(model.SerializeToString(), self.spec)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns the ids of the pieces."""
        return (self._with_specials if special else self._plain).encode(text)

    def encode_batch(self, texts: typing.Sequence[str]) -> list[list[int]]:
        """Returns `encode` of each text."""
        return self._plain.encode(list(texts))

    def decode_all(self, ids: list[int]) -> str:
        """Returns the text; unknown pieces show as SentencePiece's glyph."""
        return self._plain.decode([i for i in ids if i < self._pieces])

    def token(self, token_id: int) -> str:
        """Returns a piece, or the name of a sentinel."""
        if token_id >= self._pieces:
            return f"<extra_id_{self.size - 1 - token_id}>"
        return self._plain.id_to_piece(token_id)

    def fingerprint(self) -> str:
        """Returns the digest of the model, the extra ids and what was given."""
        return self._fingerprint


def bpe_model(
    tokens: list[str],
    scores: list[float],
    types: list[int],
    *,
    special_ids: dict[str, int | None],
    add_prefix: bool,
) -> bytes:
    """Returns the SentencePiece model (BPE) that a GGUF file's lists stand for.

    Args:
      tokens: pieces by id.
      scores: of the pieces; higher ones are merged first.
      types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
      special_ids: ids by `pad`, `eos`, `bos`, `unk`; None where there is none.
      add_prefix: a space is put before every text.
    """
    schema = _schema()
    model = schema.ModelProto()
    for token, score, kind in zip(tokens, scores, types, strict=True):
        model.pieces.add(piece=token, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type = schema.TrainerSpec.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = 6 in types
    for name, i in special_ids.items():
        setattr(trainer, f"{name}_id", -1 if i is None else i)
        if i is not None:
            setattr(trainer, f"{name}_piece", tokens[i])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = add_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString()


def parse_model(content: bytes) -> typing.Any:
    """Returns the file's message: `pieces`, `trainer_spec`, `normalizer_spec`."""
    return _schema().ModelProto.FromString(content)


def _schema() -> typing.Any:
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2  # Generated, without types.


def _sentencepiece(model: bytes, where: str) -> typing.Any:
    import sentencepiece

    processor: typing.Any = sentencepiece.SentencePieceProcessor  # Has no types.
    try:
        return processor(model_proto=model)
    except RuntimeError as error:
        raise ConfigError(f"not a SentencePiece model: {error}", where=where) from error
