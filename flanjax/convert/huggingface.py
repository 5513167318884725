"""Hugging Face directories of T5, Llama, Mistral and Qwen2 models, in and out.

    with open_huggingface("flan_t5_small") as source:
        source.config.num_heads     # 6
    save_huggingface("export", config, params, vocabulary)

Nothing of `transformers` is imported: config.json and safetensors are read and written
as its versions 4 and 5 do. Loading what was saved gives the same numbers, bit for bit.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.card import model_card
from flanjax.convert.hf_config import (
    DECODERS,
    FAMILIES,
    config_facts,
    decoder_config,
    t5_config,
    t5_output_is_scaled,
)
from flanjax.convert.hf_tensors import (
    INDEX,
    SHARD_BYTES,
    WEIGHTS,
    TensorFiles,
    open_tensors,
    write_tensors,
)
from flanjax.convert.names import Entry, huggingface_entries
from flanjax.convert.place import parameter_reader, parameter_shapes
from flanjax.convert.tokenizer import save_tokenizer
from flanjax.convert.weights import WeightSource
from flanjax.data.vocabulary import Vocabulary
from flanjax.errors import CheckpointError, ConfigError, nearest
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config
from flanjax.train.trees import flatten

Tree = dict[str, Any]

# Tensors that old files have beside the ones that count: copies of the embedding,
# tables of constants, and a bias of T5 1.0 that its code never reads.
_IGNORED = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
_IGNORED_SUFFIX = ".rotary_emb.inv_freq"


class HuggingFaceSource:
    """A model's directory, as `flanjax.convert.weights.WeightSource` says."""

    def __init__(self, config: T5Config | DecoderConfig, tensors: TensorFiles):
        self.where = tensors.where
        self.config = config
        self._tensors = tensors

    def entries(self) -> list[Entry]:
        """Returns every parameter and the tensors it is made of."""
        return huggingface_entries(self.config)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, its axes as the file has them."""
        return self._tensors.read(name)

    def unplaced(self) -> list[str]:
        """Returns the tensors that the model has no parameter for."""
        used = {name for entry in self.entries() for name in entry.names}
        used |= set(_IGNORED)
        # Some files keep a tied head's copy.
        used |= {"lm_head.weight"} if self.config.logits_via_embedding else set()
        left = self._tensors.names - used
        return sorted(name for name in left if not name.endswith(_IGNORED_SUFFIX))


@contextlib.contextmanager
def open_huggingface(directory: str | Path) -> Iterator[HuggingFaceSource]:
    """Opens a model.

    Args:
      directory: has config.json and model.safetensors, or its shards and their index.

    Raises:
      ConfigError: no such directory.
      CheckpointError: a model of another kind, or files that cannot be read.
    """
    directory = Path(directory)
    path = directory / "config.json"
    facts = _config_json(path)
    kind = facts.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"model_type is '{kind}', a model that cannot be read."
            f"{nearest(str(kind), FAMILIES)}",
            where=str(path),
            fix=f"models of these types can: {', '.join(FAMILIES)}",
        )
    if facts.get("quantization_config"):
        raise CheckpointError(
            "quantization_config: the weights are quantised",
            where=str(path),
            fix="use the weights that were not quantised, or a GGUF file",
        )
    with open_tensors(directory) as tensors:
        if kind in DECODERS:
            config = decoder_config(facts, str(path))
        else:
            config = t5_config(facts, _t5_head_is_tied(facts, tensors), str(path))
        yield HuggingFaceSource(config, tensors)


def _t5_head_is_tied(facts: Mapping[str, Any], tensors: TensorFiles) -> bool:
    """Tied heads are scaled, and only they; version 5 ties unless there is a head."""
    scaled = t5_output_is_scaled(facts)
    own = "lm_head.weight" in tensors.names
    if own and scaled:
        own = not tensors.equal("lm_head.weight", "shared.weight")
    if own == scaled:
        raise CheckpointError(
            "the output head is tied without scaling, or scaled without being tied; "
            "T5 1.0 has both and T5 1.1 neither",
            where=f"{tensors.where}/config.json",
            fix="correct tie_word_embeddings, or add lm_head.weight to the weights",
        )
    return not own


def save_huggingface(
    directory: str | os.PathLike[str],
    config: T5Config | DecoderConfig,
    weights: Tree | WeightSource,
    vocabulary: Vocabulary | None = None,
    *,
    run_dir: str | Path | None = None,
    context_length: int | None = None,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes a model that `transformers` loads.

    Args:
      directory: is created, or replaced if it is an earlier export; complete or not
        there at all when the process is killed.
      config: the model's configuration.
      weights: its parameters, adapters merged (flanjax.models.lora.merge_lora), or an
        open source, of which one tensor at a time is in memory.
      vocabulary: written beside the weights; None to leave it out.
      run_dir: run directory whose results the model card shows.
      context_length: of a decoder, its `max_position_embeddings`, which other
        software takes as its limit; 2048 (transformers' default) when not known.
      dtype: of the weights, "float32" or "bfloat16".
      shard_bytes: how large a file of weights may become before another is begun.

    Returns:
      The directory.

    Raises:
      ConfigError: adapters are not merged, the model has no Hugging Face counterpart,
        or the directory holds something else.
    """
    directory = Path(directory)
    _check_replaceable(directory)
    if isinstance(weights, Mapping):
        _check_merged(weights)
    facts = _facts(config, vocabulary, context_length, dtype)
    with _appears_whole(directory) as scratch:
        _write_json(scratch / "config.json", facts)
        _write_json(scratch / "generation_config.json", _generation(facts))
        _write_weights(scratch, config, weights, dtype, shard_bytes)
        if vocabulary is not None:
            save_tokenizer(scratch, vocabulary)
        card = model_card(config, vocabulary, run_dir)
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return directory


@contextlib.contextmanager
def _appears_whole(directory: Path) -> Iterator[Path]:
    """Gives a directory to write, which then takes the other's place, or vanishes."""
    scratch = directory.parent / f".{directory.name}.writing"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch)
        raise
    if directory.exists():
        shutil.rmtree(directory)
    scratch.replace(directory)


def _write_weights(
    directory: Path,
    config: T5Config | DecoderConfig,
    weights: Tree | WeightSource,
    dtype: str,
    shard_bytes: int,
) -> None:
    read, shapes = parameter_reader(weights), parameter_shapes(config)
    listed: dict[str, tuple[int, ...]] = {}
    made_of: dict[str, tuple[Entry, int]] = {}
    for entry in huggingface_entries(config):
        shape = shapes["/".join(entry.path)][entry.stacked :]
        shape = shape[::-1] if entry.transposed else shape
        listed |= dict.fromkeys(entry.names, shape)
        made_of |= {name: (entry, layer) for layer, name in enumerate(entry.names)}

    def produce(name: str) -> np.ndarray:
        entry, layer = made_of[name]
        value = read("/".join(entry.path), layer if entry.stacked else None)
        return value.T if entry.transposed else value

    write_tensors(directory, listed.items(), produce, dtype, shard_bytes)


def _config_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            "no config.json: not a Hugging Face model directory",
            where=str(path.parent),
            fix="give the directory that holds config.json and model.safetensors",
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(facts, dict):
        raise CheckpointError("not a JSON object", where=str(path))
    return facts


def _facts(
    config: T5Config | DecoderConfig,
    vocabulary: Vocabulary | None,
    context_length: int | None,
    dtype: str,
) -> dict[str, Any]:
    """Returns config.json; keys of both versions where they differ."""
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    if isinstance(config, DecoderConfig):
        ids = dict.fromkeys(ids)
    if vocabulary is not None:
        ids["pad_token_id"] = vocabulary.pad_id
        ids["eos_token_id"] = vocabulary.eos_id
        ids["bos_token_id"] = vocabulary.bos_id
    facts = config_facts(config)
    if isinstance(config, DecoderConfig):
        facts["max_position_embeddings"] = context_length or 2048
    return facts | {
        "vocab_size": config.vocab_size,
        "torch_dtype": dtype,  # Version 4; version 5 calls it dtype.
        "dtype": dtype,
        "use_cache": True,
        **ids,
    }


def _generation(facts: dict[str, Any]) -> dict[str, Any]:
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return {key: facts[key] for key in keys if facts.get(key) is not None}


def _check_replaceable(directory: Path) -> None:
    """Refuses to replace a directory that is not an export."""
    if not directory.exists():
        return
    found = {path.name for path in directory.iterdir()}
    if found and not ("config.json" in found and found & {WEIGHTS, INDEX}):
        raise ConfigError(
            "the directory to write holds something else",
            where=str(directory),
            fix="give a new directory",
        )


def _check_merged(params: Tree) -> None:
    if any(path.endswith("/lora_a") for path in flatten(params)):
        raise ConfigError(
            "the model still has adapters",
            fix="merge them first: flanjax.models.lora.merge_lora",
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
