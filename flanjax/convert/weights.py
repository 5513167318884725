"""Weights in, from wherever they come.

config, params = import_weights("gguf:smollm2")
config, params = import_weights("flan_t5_small")    # a Hugging Face directory
"""

import dataclasses
import json
from pathlib import Path

from flanjax.convert.gguf import load_gguf
from flanjax.convert.huggingface import load_huggingface
from flanjax.convert.names import Tree
from flanjax.data.gguf_tokenizer import gguf_path, read_header
from flanjax.data.vocabulary import Vocabulary, load_vocabulary
from flanjax.errors import CheckpointError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import unstack_layers
from flanjax.models.t5 import T5Config

# What a run may choose without changing which function the weights compute.
_FREE_FIELDS = ("dropout_rate", "dtype", "scan_layers", "remat_policy", "lora")
_FREE_FIELDS += ("prefix_lm",)


def import_weights(
    source: str, expected: T5Config | DecoderConfig | None = None
) -> tuple[T5Config | DecoderConfig, Tree]:
    """Reads a model's weights.

    Args:
      source: "gguf:FILE", "gguf:smollm2" (the fetched file) or a Hugging Face
        directory.
      expected: configuration the weights are for; its layers decide whether the
        result is stacked, and its training choices (dropout, dtype, adapters, ...)
        are kept.

    Returns:
      The configuration and float32 numpy parameters, without adapters.

    Raises:
      CheckpointError: the weights cannot be read, or are of another model than
        expected; names every field that differs.
      ConfigError: there is no such file.
      DataError: the fetched file has not been fetched.
    """
    if source.startswith("gguf:"):
        config, params, _ = load_gguf(source.removeprefix("gguf:"))
    else:
        config, params = load_huggingface(source)
    if expected is None:
        return config, params
    _check_same_model(config, expected, source)
    if not expected.scan_layers:
        params = unstack_layers(params)
    return expected, params


def import_vocabulary(source: str) -> Vocabulary | None:
    """Returns the vocabulary that lies with the weights; None where there is none.

    Raises:
      ConfigError: its files cannot be used.
    """
    if source.startswith("gguf:"):
        return load_vocabulary(source)
    directory = Path(source)
    if (directory / "tokenizer.json").is_file():
        return load_vocabulary(f"tokenizer:{directory}")
    if (directory / "spiece.model").is_file():
        return load_vocabulary(f"sentencepiece:{directory / 'spiece.model'}")
    settings = directory / "tokenizer_config.json"
    if settings.is_file() and "ByT5Tokenizer" in settings.read_text(encoding="utf-8"):
        return load_vocabulary("bytes")
    return None


def import_context_length(source: str) -> int | None:
    """Returns how many tokens a decoder's weights were made for, where that is said."""
    if source.startswith("gguf:"):
        header = read_header(gguf_path(source.removeprefix("gguf:")))
        return header.metadata.get("llama.context_length")
    text = (Path(source) / "config.json").read_text(encoding="utf-8")
    return json.loads(text).get("max_position_embeddings")


def _check_same_model(config, expected, source: str) -> None:
    if type(config) is not type(expected):
        raise CheckpointError(
            f"the weights are for a {type(config).__name__}, the run's model is a "
            f"{type(expected).__name__}",
            where=source,
        )
    names = [f.name for f in dataclasses.fields(config) if f.name not in _FREE_FIELDS]
    pairs = [(n, getattr(config, n), getattr(expected, n)) for n in names]
    lines = [f"{n} is {a}, the run has {b}" for n, a, b in pairs if a != b]
    if lines:
        raise CheckpointError(
            "the weights are of another model: " + "; ".join(lines),
            where=source,
            fix="set these fields of the run's model to the weights' values",
        )
