"""GGUF files: their header, and the tokenizer in its metadata.

    header = read_header("SmolLM2-135M-Instruct.Q4_1.gguf")
    header.metadata["tokenizer.ggml.pre"]      # "smollm"
    header.tensors["output_norm.weight"].shape # (576,)

The `gguf` package's reader makes several numpy objects for each of the 100,000 strings
of a tokenizer, which takes seconds; reading the same bytes with `struct` takes 0.1 s.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import functools
import json
import mmap
import struct
import typing
from pathlib import Path

from flanjax.data.fetch import fetched_path
from flanjax.data.sentencepiece_vocabulary import SentencePieceVocabulary, bpe_model
from flanjax.data.vocabulary import TokenizerVocabulary, Vocabulary
from flanjax.errors import CheckpointError, ConfigError, nearest

if typing.TYPE_CHECKING:
    import tokenizers

_SCALARS = "BbHhIif?"  # Value types 0..7 of the format, as struct codes ...
_WIDE_SCALARS = {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9  # ... 8 and 9 are these two.
_CONTROL, _USER_DEFINED = 3, 4  # Token types that are read as a whole.

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before merging, by `tokenizer.ggml.pre`. "words" is GPT-2's rule,
# which the `tokenizers` library has built in; "digits" cuts every digit off first; a
# pattern is used as it is. The table of llama.cpp (llama-vocab.cpp) says the same.
_PRE_TOKENIZERS = {
    "gpt-2": "words",
    "olmo": "words",
    "smollm": "digits",
    "starcoder": "digits",
    "refact": "digits",
    "llama-bpe": _LLAMA3,
    "qwen2": _LLAMA3.replace("{1,3}", ""),
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in a GGUF file.

    Attributes:
      shape: rows first, as numpy has it (GGUF writes the fastest axis first).
      type: number of the ggml type.
      start: byte in the file.
    """

    shape: tuple[int, ...]
    type: int
    start: int


@dataclasses.dataclass(frozen=True)
class Header:
    """What a GGUF file says before its tensors' data."""

    path: Path
    metadata: dict[str, typing.Any]
    tensors: dict[str, TensorInfo]

    def require(self, key: str) -> typing.Any:
        """Returns a metadata value, or raises CheckpointError."""
        if key not in self.metadata:
            raise CheckpointError(
                f"GGUF metadata has no '{key}'.{nearest(key, self.metadata)}",
                where=str(self.path),
            )
        return self.metadata[key]


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.at = 0

    def values(self, code: str, count: int = 1) -> tuple:
        values = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{code}")
        return values

    def number(self, code: str) -> int:
        return self.values(code)[0]

    def string(self) -> str:
        length = self.number("Q")
        text = self.data[self.at : self.at + length]
        self.at += length
        return text.decode("utf-8", errors="replace")

    def value(self, kind: int) -> typing.Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.values(_code(kind))[0]
        kind, count = self.number("I"), self.number("Q")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(count)]
        return list(self.values(_code(kind), count))


def _code(kind: int) -> str:
    if kind < len(_SCALARS):
        return _SCALARS[kind]
    return _WIDE_SCALARS[kind]


def gguf_path(name: str | Path) -> Path:
    """Returns the path of a GGUF file, or of a fetched one by its name ("smollm2").

    Raises:
      ConfigError: there is no such file.
      DataError: it is to be fetched first.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix != ".gguf" and len(path.parts) == 1:
        return fetched_path(str(name))
    raise ConfigError(
        "GGUF file not found",
        where=str(path),
        fix="correct the path; relative ones start at the working directory",
    )


def read_header(path: str | Path) -> Header:
    """Returns a GGUF file's metadata and tensor table.

    Raises:
      CheckpointError: the file is missing, cut short or not GGUF version 2 or 3.
    """
    path = Path(path)
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _parse(path, _Cursor(data))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise CheckpointError(
            f"cannot read the GGUF file: {error}",
            where=str(path),
            fix="check that it is a whole GGUF file; fetch or convert it again",
        ) from error


def _parse(path: Path, cursor: _Cursor) -> Header:
    magic, version = cursor.data[:4], struct.unpack_from("<I", cursor.data, 4)[0]
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"starts with {magic!r}, version {version}")
    cursor.at = 8
    num_tensors, num_values = cursor.values("Q", 2)
    metadata = {}
    for _ in range(num_values):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
    infos = []
    for _ in range(num_tensors):
        name = cursor.string()
        dims = cursor.values("Q", cursor.number("I"))
        infos.append((name, dims[::-1], cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    data_start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: TensorInfo(shape, kind, data_start + offset)
        for name, shape, kind, offset in infos
    }
    return Header(path, metadata, tensors)


def load_tokenizer(path: str | Path, spec: str) -> Vocabulary:
    """Returns the vocabulary in a GGUF file: byte-level BPE, or SentencePiece's BPE.

    Args:
      path: the file, or the name of a fetched one.
      spec: the vocabulary's spec.

    Raises:
      ConfigError: the file's tokenizer is of another kind, or cuts text in a way that
        is not known here.
      CheckpointError: the file cannot be read, or has no tokenizer.
    """
    header = read_header(gguf_path(path))
    model = header.require("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise ConfigError(
            f"the GGUF file's tokenizer is of kind '{model}'; only byte-level BPE "
            "('gpt2') and SentencePiece's BPE ('llama') can be read",
            where=str(header.path),
            fix="use the model's own files: tokenizer:PATH or sentencepiece:PATH.model",
        )
    special_ids = {
        "pad": header.metadata.get("tokenizer.ggml.padding_token_id"),
        "eos": header.metadata.get("tokenizer.ggml.eos_token_id"),
        "bos": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "unk": header.metadata.get("tokenizer.ggml.unknown_token_id"),
    }
    template = header.metadata.get("tokenizer.chat_template")
    if model == "llama":
        return _build_pieces(header, spec, special_ids, template)
    keys = ("pre", "tokens", "merges", "token_type")
    defining = [header.metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return TokenizerVocabulary(
        spec,
        _build_tokenizer(header, special_ids["bos"]),
        content=json.dumps(defining).encode(),
        special_ids=special_ids,
        chat_template=template,
    )


def _build_pieces(
    header: Header,
    spec: str,
    special_ids: dict[str, int | None],
    template: str | None,
) -> Vocabulary:
    model = bpe_model(
        header.require("tokenizer.ggml.tokens"),
        header.require("tokenizer.ggml.scores"),
        header.require("tokenizer.ggml.token_type"),
        special_ids=special_ids,
        add_prefix=header.metadata.get("tokenizer.ggml.add_space_prefix", True),
    )
    return SentencePieceVocabulary(
        spec, model, extra_ids=0, special_ids=special_ids, chat_template=template
    )


def _build_tokenizer(header: Header, bos_id: int | None) -> "tokenizers.Tokenizer":
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors

    pre = header.require("tokenizer.ggml.pre")
    tokens = header.require("tokenizer.ggml.tokens")
    merges = header.require("tokenizer.ggml.merges")
    types = header.metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            # Llama 3 takes a word that is a token as it is, whatever the merges say.
            ignore_merges=pre == "llama-bpe",
        )
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(pre, str(header.path))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    added = functools.partial(tokenizers.AddedToken, normalized=False)
    named = list(zip(tokens, types, strict=True))
    tokenizer.add_special_tokens([added(t) for t, kind in named if kind == _CONTROL])
    tokenizer.add_tokens([added(t) for t, kind in named if kind == _USER_DEFINED])
    if bos_id is not None and header.metadata.get("tokenizer.ggml.add_bos_token"):
        # Of use to other software, in an export; vocabularies here add nothing.
        bos = tokens[bos_id]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, bos_id)],
        )
    return tokenizer


def _pre_tokenizer(pre: str, where: str):
    import tokenizers
    from tokenizers import pre_tokenizers

    if pre not in _PRE_TOKENIZERS:
        raise ConfigError(
            f"the GGUF file cuts text by the rule '{pre}', which is not known here."
            f"{nearest(pre, _PRE_TOKENIZERS)}",
            where=where,
            fix="use the model's own tokenizer.json: tokenizer:PATH",
        )
    rule = _PRE_TOKENIZERS[pre]
    if rule == "words":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "digits":
        cut = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([cut, words])
    split = pre_tokenizers.Split(tokenizers.Regex(rule), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, level])
