"""Weights in, from wherever they come, one tensor at a time.

with open_weights("gguf:smollm2") as source:     # or a Hugging Face directory
    source.config                                # DecoderConfig(vocab_size=49152, ...)
    source.read("output_norm.weight")            # one tensor
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from flanjax.convert.names import Entry
from flanjax.data.gguf_tokenizer import gguf_path, read_header
from flanjax.data.tokenizer_files import FAST, PIECES
from flanjax.data.vocabulary import Vocabulary, load_vocabulary
from flanjax.errors import CheckpointError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config

# What a run may choose without changing which function the weights compute.
_FREE_FIELDS = ("dropout_rate", "dtype", "scan_layers", "remat_policy", "lora")
_FREE_FIELDS += ("prefix_lm", "attention")


class WeightSource(Protocol):
    """A model's weights in a file; `place.py` reads parameters from it."""

    @property
    def where(self) -> str:
        """The file or directory, for messages."""
        ...

    @property
    def config(self) -> T5Config | DecoderConfig:
        """The model's configuration, layers scanned, without adapters."""
        ...

    def entries(self) -> list[Entry]:
        """Returns every parameter and the tensors it is made of."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, its axes as the file has them.

        Raises:
          CheckpointError: it is missing or cannot be read.
        """
        ...

    def unplaced(self) -> list[str]:
        """Returns the tensors that the model has no parameter for."""
        ...


@contextlib.contextmanager
def open_weights(
    source: str,
    config: T5Config | DecoderConfig | None = None,
    *,
    whole: bool = True,
) -> Iterator[WeightSource]:
    """Opens a model's weights; reads no tensor yet.

    Args:
      source: "gguf:FILE", "gguf:smollm2" (the fetched file), "t5x:DIRECTORY" or a
        Hugging Face directory.
      config: the run's model, which the weights must be of; its training choices
        (dropout, dtype, adapters, ...) are its own.
      whole: the weights are all that `config` is and no more. False leaves that to
        `flanjax.convert.restore`.

    Raises:
      CheckpointError: the weights cannot be read, or are of another model than
        `config`; names every field that differs, or tensors left over.
      ConfigError: there is no such file.
      DataError: the fetched file has not been fetched.
    """
    from flanjax.convert.gguf import open_gguf
    from flanjax.convert.huggingface import open_huggingface
    from flanjax.convert.t5x import open_t5x

    kind, _, path = source.partition(":")
    if kind == "gguf":
        opened = open_gguf(path)
    elif kind == "t5x":
        opened = open_t5x(path, config)
    else:
        opened = open_huggingface(source)
    with opened as weights:
        if whole and config is not None:
            _check_same_model(weights.config, config, source)
        if whole and (left := weights.unplaced()):
            raise CheckpointError(
                f"{len(left)} tensors have no place in the model, such as '{left[0]}'",
                where=weights.where,
                fix="check that the configuration beside them belongs to the weights",
            )
        yield weights


def import_vocabulary(source: str) -> Vocabulary | None:
    """Returns the vocabulary that lies with the weights; None where there is none.

    Raises:
      ConfigError: its files cannot be used.
    """
    if source.startswith("gguf:"):
        return load_vocabulary(source)
    if source.startswith("t5x:"):
        return None
    directory = Path(source)
    if any((directory / name).is_file() for name in (FAST, PIECES)):
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
        facts = read_header(gguf_path(source.removeprefix("gguf:"))).metadata
        return facts.get(f"{facts.get('general.architecture')}.context_length")
    if source.startswith("t5x:"):
        return None
    text = (Path(source) / "config.json").read_text(encoding="utf-8")
    return json.loads(text).get("max_position_embeddings")


def differences(
    config: T5Config | DecoderConfig, expected: T5Config | DecoderConfig
) -> list[str]:
    """Returns how the function of weights of `config` differs from `expected`'s."""
    if type(config) is not type(expected):
        ours, theirs = type(expected).__name__, type(config).__name__
        return [f"the weights are for a {theirs}, the run's model is a {ours}"]
    names = [f.name for f in dataclasses.fields(config) if f.name not in _FREE_FIELDS]
    pairs = [(n, getattr(config, n), getattr(expected, n)) for n in names]
    return [f"{n} is {a}, the run has {b}" for n, a, b in pairs if a != b]


def _check_same_model(config, expected, source: str) -> None:
    if lines := differences(config, expected):
        raise CheckpointError(
            "the weights are of another model: " + "; ".join(lines),
            where=source,
            fix="set these fields of the run's model to the weights' values",
        )
