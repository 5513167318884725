"""A vocabulary as the tokenizer files of a Hugging Face directory.

    save_tokenizer(Path("export"), load_vocabulary("gguf:smollm2"))
    load_vocabulary("tokenizer:export")     # the same ids

Bytes become ByT5's tokenizer, which needs no vocabulary file.
"""

import json
from pathlib import Path
from typing import Any

from flanjax.data.sentencepiece_vocabulary import SentencePieceVocabulary
from flanjax.data.vocabulary import (
    ByteVocabulary,
    TokenizerVocabulary,
    Vocabulary,
)
from flanjax.errors import ConfigError


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
        vocabulary.tokenizer.save(str(directory / "tokenizer.json"))
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
    else:
        (directory / "tokenizer.model").write_bytes(vocabulary.model)
        settings["tokenizer_class"] = "LlamaTokenizer"
        settings["add_bos_token"] = vocabulary.bos_id is not None
        settings["legacy"] = True  # A prefix always, as in the library itself.
