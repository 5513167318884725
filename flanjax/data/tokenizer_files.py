"""The tokenizer files of a Hugging Face directory: tokenizer.json or tokenizer.model.

    load_tokenizer_files(Path("llama3"), "tokenizer:llama3")

tokenizer_config.json beside them names special tokens and the chat template; where it
does not, config.json is asked.
"""

import json
from collections.abc import Callable
from pathlib import Path

from flanjax.data.sentencepiece_vocabulary import SentencePieceVocabulary
from flanjax.data.vocabulary import TokenizerVocabulary, Vocabulary, existing
from flanjax.errors import ConfigError

FAST, PIECES = "tokenizer.json", "tokenizer.model"
_EOS = ("</s>", "<|endoftext|>", "<eos>")


def load_tokenizer_files(path: Path, spec: str) -> Vocabulary:
    """Reads a tokenizer and what lies beside it about special tokens and chat.

    Args:
      path: tokenizer.json, tokenizer.model, or a directory with either; tokenizer.json
        goes first.
      spec: the vocabulary's spec.

    Raises:
      ConfigError: there is none, or it cannot be read.
    """
    file = path
    if path.is_dir():
        pieces = (path / PIECES).is_file() and not (path / FAST).is_file()
        file = existing(path / (PIECES if pieces else FAST), spec)
    if file.suffix == ".model":
        return _load_pieces(file, spec)
    return _load_fast(file, spec)


def _load_fast(file: Path, spec: str) -> TokenizerVocabulary:
    import tokenizers

    content = file.read_bytes()
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # The library raises bare Exception.
        raise ConfigError(f"not a tokenizer.json: {error}", where=str(file)) from error
    settings = _read_json(file.parent / "tokenizer_config.json")
    special_ids = _special_ids(file.parent, settings, tokenizer.token_to_id)
    if special_ids["eos"] is None:
        known = (tokenizer.token_to_id(token) for token in _EOS)
        special_ids["eos"] = next((i for i in known if i is not None), None)
    for name in ("pad", "unk"):
        if special_ids[name] is None:
            special_ids[name] = tokenizer.token_to_id(f"<{name}>")
    return TokenizerVocabulary(
        spec,
        tokenizer,
        content=content,
        special_ids=special_ids,
        chat_template=_chat_template(file.parent, settings),
    )


def _load_pieces(file: Path, spec: str) -> SentencePieceVocabulary:
    settings = _read_json(file.parent / "tokenizer_config.json")
    plain = SentencePieceVocabulary(spec, file.read_bytes(), extra_ids=0)
    added = {int(i) for i in settings.get("added_tokens_decoder", {})}
    added |= set(_read_json(file.parent / "added_tokens.json").values())
    if max(added, default=0) >= plain.size:
        raise ConfigError(
            f"the tokenizer has tokens beyond its {plain.size} pieces, which only a "
            "tokenizer.json says all of",
            where=str(file),
            fix="write one: AutoTokenizer.from_pretrained(DIRECTORY)"
            ".save_pretrained(DIRECTORY) of transformers",
        )
    ids = {plain.token(i): i for i in range(plain.size)}
    return SentencePieceVocabulary(
        spec,
        plain.model,
        extra_ids=0,
        special_ids=_special_ids(file.parent, settings, ids.get),
        chat_template=_chat_template(file.parent, settings),
    )


def _special_ids(
    directory: Path, settings: dict, find: Callable[[str], int | None]
) -> dict[str, int | None]:
    model = _read_json(directory / "config.json")
    special_ids: dict[str, int | None] = {}
    for name in ("pad", "eos", "bos", "unk"):
        token = settings.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        token_id = None if token is None else find(token)
        # Qwen2's tokenizer says that nothing begins its texts; its model names an id.
        says_none = name == "bos" and settings.get("bos_token", "") is None
        if token_id is None and not says_none:
            token_id = model.get(f"{name}_token_id")
        # Models may end on several tokens; the first is the one to train with.
        special_ids[name] = token_id[0] if isinstance(token_id, list) else token_id
    return special_ids


def _chat_template(directory: Path, settings: dict) -> str | None:
    file = directory / "chat_template.jinja"  # Where transformers 5 writes it.
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # Several named ones.
        template = {t["name"]: t["template"] for t in template}.get("default")
    return template


def _read_json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(path)) from error
