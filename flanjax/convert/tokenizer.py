"""A vocabulary as the tokenizer files of a Hugging Face directory.

    save_tokenizer(Path("export"), load_vocabulary("gguf:smollm2"))
    load_vocabulary("tokenizer:export")     # the same ids

Bytes become ByT5's tokenizer, which needs no vocabulary file.
"""

import json
import typing
from pathlib import Path
from typing import Any

from flanjax.data.sentencepiece_vocabulary import SentencePieceVocabulary, parse_model
from flanjax.data.tokenizer_files import FAST, PIECES
from flanjax.data.vocabulary import (
    ByteVocabulary,
    TokenizerVocabulary,
    Vocabulary,
)
from flanjax.errors import ConfigError

if typing.TYPE_CHECKING:
    import tokenizers

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # Kinds of pieces.


def save_tokenizer(directory: Path, vocabulary: Vocabulary) -> None:
    """Writes tokenizer_config.json and the files it speaks of.

    Args:
      directory: exists.
      vocabulary: of any kind that `load_vocabulary` gives.
    """
    names = ("bos", "eos", "pad", "unk")
    ids = {name: getattr(vocabulary, f"{name}_id") for name in names}
    settings: dict[str, Any] = {
        f"{name}_token": vocabulary.token(i) for name, i in ids.items() if i is not None
    }
    # Cleaning up would join "do n't" in what the model wrote.
    settings["clean_up_tokenization_spaces"] = False
    if vocabulary.chat_template is not None:
        settings["chat_template"] = vocabulary.chat_template
    if isinstance(vocabulary, TokenizerVocabulary):
        vocabulary.tokenizer.save(str(directory / FAST))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    elif isinstance(vocabulary, SentencePieceVocabulary):
        _save_pieces(directory, vocabulary, settings)
    elif isinstance(vocabulary, ByteVocabulary):
        settings["tokenizer_class"] = "ByT5Tokenizer"
        settings["extra_ids"] = vocabulary.extra_ids
    else:
        raise ConfigError(
            f"no Hugging Face tokenizer for a {type(vocabulary).__name__}",
            where=f"vocabulary {vocabulary.spec}",
        )
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _save_pieces(
    directory: Path, vocabulary: SentencePieceVocabulary, settings: dict[str, Any]
) -> None:
    if vocabulary.extra_ids:
        (directory / "spiece.model").write_bytes(vocabulary.model)
        settings["tokenizer_class"] = "T5Tokenizer"
        settings["extra_ids"] = vocabulary.extra_ids
        return
    (directory / PIECES).write_bytes(vocabulary.model)
    settings["tokenizer_class"] = "LlamaTokenizer"
    settings["add_bos_token"] = vocabulary.bos_id is not None
    settings["legacy"] = True  # A prefix always, as in the library itself.
    fast = _fast(vocabulary)
    if fast is not None:
        # transformers 5 heeds no `legacy`; the quick file says all that it means.
        fast.save(str(directory / FAST))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"


def _fast(vocabulary: SentencePieceVocabulary) -> "tokenizers.Tokenizer | None":
    """The same ids by the `tokenizers` library; None where it has no such rules."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors

    model = parse_model(vocabulary.model)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != trainer.BPE or normalizer.precompiled_charsmap:
        return None
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    ids = {text: i for i, (text, _, _) in enumerate(pieces)}
    normal = [(text, score) for text, score, kind in pieces if kind == _NORMAL]
    merges = [
        (text[:cut], text[cut:])
        for text, _ in sorted(normal, key=lambda piece: -piece[1])
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
    unk = vocabulary.token(vocabulary.unk_id) if vocabulary.unk_id is not None else None
    fast = tokenizers.Tokenizer(
        models.BPE(
            vocab=ids,
            merges=merges,
            unk_token=unk,
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
        )
    )
    prefix = [normalizers.Prepend("▁")] if normalizer.add_dummy_prefix else []
    fast.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    fast.decoder = decoders.Sequence([*steps, *strip])
    special = [text for text, _, kind in pieces if kind in (_UNKNOWN, _CONTROL)]
    fast.add_special_tokens(special)
    whole = [text for text, _, kind in pieces if kind == _USER_DEFINED]
    fast.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in whole])
    if vocabulary.bos_id is not None:
        bos = vocabulary.token(vocabulary.bos_id)
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, vocabulary.bos_id)],
        )
    return fast
