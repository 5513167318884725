"""Vocabularies: text to token ids and back, from any of four kinds of file.

    vocabulary = load_vocabulary("bytes")
    vocabulary.encode("hi")          # [107, 108]
    vocabulary.decode([107, 108, 1]) # "hi"; 1 is EOS

A vocabulary is named by a short string, its spec: `bytes`, `sentencepiece:PATH.model`
(T5's, with its sentinels), `tokenizer:PATH` (tokenizer.json, tokenizer.model or a
Hugging Face directory) or `gguf:PATH` (`gguf:smollm2` is the fetched file). Libraries
are imported when a vocabulary of their kind is loaded, so importing this module costs
nothing.
"""

import abc
import functools
import hashlib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path

from flanjax.data.chat import render_template
from flanjax.errors import ConfigError, nearest

if typing.TYPE_CHECKING:
    import tokenizers

SPEC_KINDS = ("bytes", "sentencepiece", "tokenizer", "gguf")


class Vocabulary(abc.ABC):
    """Text to ids and back. No encoder adds BOS or EOS; the layout does.

    Attributes:
      spec: what `load_vocabulary` was given.
      size: rows that a model's embedding needs, extra ids included. A model may have
        more rows (T5 pads 32,100 to 32,128).
      pad_id: fills rows of a batch. Some files name EOS as padding.
      eos_id: ends a text.
      bos_id: begins a text, or None.
      unk_id: stands for what cannot be encoded, or None.
      extra_ids: how many ids at the top are sentinels or spare ones, without a piece.
      chat_template: Jinja text that wraps a conversation, or None.
    """

    spec: str
    size: int
    pad_id: int
    eos_id: int
    bos_id: int | None = None
    unk_id: int | None = None
    extra_ids: int = 0
    chat_template: str | None = None

    @abc.abstractmethod
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns the ids of a text, without BOS or EOS.

        Args:
          text: any text.
          special: read `<|im_start|>`, `<extra_id_0>` and the like as the special
            tokens they name. Off for data, which must not be able to forge them.
        """

    @abc.abstractmethod
    def decode_all(self, ids: list[int]) -> str:
        """Returns the text of all ids, dropping special ones."""

    @abc.abstractmethod
    def token(self, token_id: int) -> str:
        """Returns the written form of one token, special or not."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Returns a SHA-256 hex digest of what defines the ids."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns `encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text up to the first EOS, without special and padding ids."""
        kept = [int(i) for i in ids]
        if self.eos_id in kept:
            kept = kept[: kept.index(self.eos_id)]
        if self.pad_id != self.eos_id:
            kept = [i for i in kept if i != self.pad_id]
        return self.decode_all(kept)

    def render_chat(self, messages: list[dict], add_generation_prompt: bool) -> str:
        """Returns a conversation wrapped by the vocabulary's chat template.

        Args:
          messages: dicts with `role` and `content`.
          add_generation_prompt: end with the header of the assistant's turn.

        Raises:
          ConfigError: there is no template, or it refuses the messages.
        """
        if self.chat_template is None:
            raise ConfigError(
                "this vocabulary has no chat template",
                where=f"vocabulary {self.spec}",
                fix="use plain wrapping, or a vocabulary of a chat model",
            )
        names = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        names |= {"pad_token": self.pad_id, "unk_token": self.unk_id}
        tokens = {k: self.token(v) for k, v in names.items() if v is not None}
        return render_template(
            self.chat_template,
            f"chat template of vocabulary {self.spec}",
            {
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
                **tokens,
            },
        )

    def __reduce__(self):
        return load_vocabulary, (self.spec,)


class ByteVocabulary(Vocabulary):
    """UTF-8 bytes at 3..258, with ByT5's layout: pad 0, EOS 1, unknown 2.

    384 ids: 3 + 256 + 125 extra ones, as ByT5 and SeqIO's ByteVocabulary(125) have, so
    that the size divides evenly over devices. The extra ids have no text.
    """

    spec = "bytes"
    size = 384
    extra_ids = 125
    pad_id = 0
    eos_id = 1
    unk_id = 2

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns one id a byte; there are no special tokens to read."""
        return [byte + 3 for byte in text.encode("utf-8", errors="replace")]

    def decode_all(self, ids: list[int]) -> str:
        """Returns the text; ids that are no byte and broken UTF-8 are dropped."""
        data = bytes(i - 3 for i in ids if 3 <= i < 259)
        return data.decode("utf-8", errors="ignore")

    def token(self, token_id: int) -> str:
        """Returns ByT5's name of a special id, or the character."""
        names = {0: "<pad>", 1: "</s>", 2: "<unk>"}
        return names.get(token_id) or self.decode_all([token_id])

    def fingerprint(self) -> str:
        """Returns the digest of the layout's description."""
        return digest(b"bytes: pad 0, eos 1, unk 2, bytes 3..258, size 384")


class TokenizerVocabulary(Vocabulary):
    """A tokenizer of the `tokenizers` library, from tokenizer.json or a GGUF file.

    Args:
      spec: what names it.
      tokenizer: the library's object.
      content: the bytes that define it, for the fingerprint.
      special_ids: ids by `pad`, `eos`, `bos`, `unk`; `eos` is needed.
      chat_template: Jinja text, or None.
    """

    def __init__(
        self,
        spec: str,
        tokenizer: "tokenizers.Tokenizer",
        *,
        content: bytes,
        special_ids: dict[str, int | None],
        chat_template: str | None = None,
    ):
        self.spec = spec
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        eos = special_ids.get("eos")
        if eos is None:
            raise ConfigError(
                "no end-of-sequence token is known for this tokenizer",
                where=spec,
                fix="add eos_token to tokenizer_config.json beside it",
            )
        self.eos_id = eos
        pad = special_ids.get("pad")
        self.pad_id = eos if pad is None else pad
        self.bos_id = special_ids.get("bos")
        self.unk_id = special_ids.get("unk")
        self.size = max(tokenizer.get_vocab().values()) + 1
        self.chat_template = chat_template
        self._content = content

    @functools.cached_property
    def _plain(self) -> "tokenizers.Tokenizer":
        # The library reads special tokens in text unless told to treat them as text;
        # the setting belongs to the object, so plain encoding has a copy of its own.
        copy = type(self.tokenizer).from_str(self.tokenizer.to_str())
        copy.encode_special_tokens = True
        return copy

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Returns the ids of a text."""
        tokenizer = self.tokenizer if special else self._plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns `encode` of each text."""
        rows = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [row.ids for row in rows]

    def decode_all(self, ids: list[int]) -> str:
        """Returns the text; ids without a token are dropped."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Returns the token as the tokenizer's file writes it."""
        return self.tokenizer.id_to_token(token_id) or ""

    def fingerprint(self) -> str:
        """Returns the digest of the defining content and the special ids."""
        ids = (self.pad_id, self.eos_id, self.bos_id, self.unk_id)
        return digest(self._content + repr((ids, self.chat_template)).encode())


def load_vocabulary(spec: str) -> Vocabulary:
    """Returns the vocabulary that a spec names.

    Args:
      spec: `bytes`, `sentencepiece:PATH.model`, `tokenizer:PATH` or `gguf:PATH`; a
        `gguf:` name without a file of that name is a fetched one (`gguf:smollm2`).

    Raises:
      ConfigError: the spec or the file it names cannot be used.
      DataError: the fetched file it names is not there.
    """
    kind, _, path = spec.partition(":")
    if kind not in SPEC_KINDS or bool(path) == (kind == "bytes"):
        raise ConfigError(
            f"'{spec}' names no vocabulary.{nearest(kind, SPEC_KINDS)}",
            where="vocabulary",
            fix="use bytes, sentencepiece:PATH.model, tokenizer:PATH or gguf:PATH",
        )
    if kind == "bytes":
        return ByteVocabulary()
    if kind == "sentencepiece":
        from flanjax.data.sentencepiece_vocabulary import SentencePieceVocabulary

        return SentencePieceVocabulary(spec, existing(path, spec).read_bytes())
    if kind == "tokenizer":
        from flanjax.data.tokenizer_files import load_tokenizer_files

        return load_tokenizer_files(existing(path, spec), spec)
    from flanjax.data import gguf_tokenizer

    return gguf_tokenizer.load_tokenizer(path, spec)


def existing(path: str | Path, spec: str) -> Path:
    """Returns the path, or raises ConfigError when nothing is there."""
    path = Path(path)
    if not path.exists():
        raise ConfigError(
            f"vocabulary file not found: {path}",
            where=f"vocabulary {spec}",
            fix="correct the path; relative ones start at the working directory",
        )
    return path


def digest(content: bytes) -> str:
    """Returns the SHA-256 hex digest."""
    return hashlib.sha256(content).hexdigest()
