"""Hugging Face directories of T5 (1.0 and 1.1) and Llama models, in and out.

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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.card import model_card
from flanjax.convert.names import Entry, huggingface_entries
from flanjax.convert.tokenizer import save_tokenizer
from flanjax.data.vocabulary import Vocabulary
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import stack_layers
from flanjax.models.t5 import T5Config

Tree = dict[str, Any]

_WEIGHTS = "model.safetensors"

# `feed_forward_proj` of T5 and what it means; gelu is the tanh approximation.
_T5_ACTIVATIONS = {
    "relu": ("relu",),
    "gelu_new": ("gelu",),
    "gated-relu": ("relu", "linear"),
    "gated-gelu": ("gelu", "linear"),
    "gated-silu": ("silu", "linear"),
}

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

    def __init__(
        self,
        where: str,
        config: T5Config | DecoderConfig,
        names: set[str],
        read: Callable[[str], np.ndarray],
    ):
        self.where = where
        self.config = config
        self._names = names
        self._read = read

    def entries(self) -> list[Entry]:
        """Returns every parameter and the tensors it is made of."""
        return huggingface_entries(self.config)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, its axes as the file has them."""
        return self._read(name)

    def unplaced(self) -> list[str]:
        """Returns the tensors that the model has no parameter for."""
        used = {name for entry in self.entries() for name in entry.names}
        used |= set(_IGNORED)
        # Some files keep a tied head's copy.
        used |= {"lm_head.weight"} if self.config.logits_via_embedding else set()
        left = self._names - used
        return sorted(name for name in left if not name.endswith(_IGNORED_SUFFIX))


@contextlib.contextmanager
def open_huggingface(directory: str | Path) -> Iterator[HuggingFaceSource]:
    """Opens a model.

    Args:
      directory: has config.json and model.safetensors, or its shards and their index.

    Raises:
      ConfigError: no such directory.
      CheckpointError: a model of another kind.
    """
    directory = Path(directory)
    facts = _config_json(directory)
    where = str(directory)
    with contextlib.ExitStack() as stack:
        names, read = _open_tensors(directory, stack)
        kind = facts.get("model_type")
        if kind == "t5":
            config = _t5_config(facts, names, read, where)
        elif kind == "llama":
            config = _llama_config(facts, where)
        else:
            raise CheckpointError(
                f"model_type is '{kind}'; only 't5' and 'llama' can be read",
                where=str(directory / "config.json"),
            )
        yield HuggingFaceSource(where, config, names, read)


def save_huggingface(
    directory: str | os.PathLike[str],
    config: T5Config | DecoderConfig,
    params: Tree,
    vocabulary: Vocabulary | None = None,
    *,
    run_dir: str | Path | None = None,
    context_length: int | None = None,
) -> Path:
    """Writes a model that `transformers` loads.

    Args:
      directory: is created, or replaced if it is an earlier export; complete or not
        there at all when the process is killed.
      config: the model's configuration.
      params: its parameters, adapters merged (flanjax.models.lora.merge_lora).
      vocabulary: written beside the weights; None to leave it out.
      run_dir: run directory whose results the model card shows.
      context_length: of a decoder, its `max_position_embeddings`, which other
        software takes as its limit; 2048 (transformers' default) when not known.

    Returns:
      The directory.

    Raises:
      ConfigError: adapters are not merged, the model has no Hugging Face counterpart,
        or the directory holds something else.
    """
    from safetensors.numpy import save_file

    directory = Path(directory)
    _check_replaceable(directory)
    if not config.scan_layers:
        params = stack_layers(params)
    _check_merged(params)
    facts = _facts(config, vocabulary, context_length)
    scratch = directory.parent / f".{directory.name}.writing"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _write_json(scratch / "config.json", facts)
    _write_json(scratch / "generation_config.json", _generation(facts))
    tensors = _scatter(huggingface_entries(config), params)
    # transformers 4 refuses a file that does not say which framework it is for.
    save_file(tensors, scratch / _WEIGHTS, metadata={"format": "pt"})
    # It makes the file readable by its owner alone.
    (scratch / _WEIGHTS).chmod((scratch / "config.json").stat().st_mode)
    if vocabulary is not None:
        save_tokenizer(scratch, vocabulary)
    card = model_card(config, vocabulary, run_dir)
    (scratch / "README.md").write_text(card, encoding="utf-8")
    if directory.exists():
        shutil.rmtree(directory)
    scratch.replace(directory)
    return directory


def _scatter(entries: Iterable[Entry], params: Tree) -> dict[str, np.ndarray]:
    """Returns float32 tensors by their names in the file."""
    tensors = {}
    for entry in entries:
        leaf: Any = params
        for name in entry.path:
            leaf = leaf[name]
        array = np.asarray(leaf, np.float32)
        rows = array if entry.stacked else array[None]
        for row, name in zip(rows, entry.names, strict=True):
            tensors[name] = np.ascontiguousarray(row.T if entry.transposed else row)
    return tensors


def _config_json(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(
            "no config.json: not a Hugging Face model directory",
            where=str(directory),
            fix="give the directory that holds config.json and model.safetensors",
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"not JSON: {error}", where=str(path)) from error


def _open_tensors(
    directory: Path, stack: contextlib.ExitStack
) -> tuple[set[str], Callable[[str], np.ndarray]]:
    """Returns the tensors' names, and a function that reads one as float32."""
    from safetensors import SafetensorError, safe_open

    index = directory / f"{_WEIGHTS}.index.json"
    files = [_WEIGHTS]
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weight_map.values()))
    shards = {}
    for name in files:
        path = directory / name
        if not path.is_file():
            raise CheckpointError(
                f"weights are missing: no {name}",
                where=str(directory),
                fix="only safetensors are read; save PyTorch's .bin files anew with "
                "transformers' save_pretrained",
            )
        try:
            shard = stack.enter_context(safe_open(path, framework="numpy"))
        except SafetensorError as error:
            raise CheckpointError(f"cannot read: {error}", where=str(path)) from error
        shards |= dict.fromkeys(shard.keys(), shard)

    def read(name: str) -> np.ndarray:
        if name not in shards:
            raise CheckpointError(f"tensor '{name}' is missing", where=str(directory))
        return shards[name].get_tensor(name).astype(np.float32)

    return set(shards), read


def _t5_config(
    facts: dict[str, Any],
    names: set[str],
    read: Callable[[str], np.ndarray],
    where: str,
) -> T5Config:
    activation = facts.get("feed_forward_proj", "relu")
    if activation not in _T5_ACTIVATIONS:
        raise CheckpointError(
            f"feed_forward_proj is '{activation}'", where=f"{where}/config.json"
        )
    # Version 5 ties unless the file has a head of its own, and scales the output
    # unless the configuration says false.
    tied = "lm_head.weight" not in names or np.array_equal(
        read("lm_head.weight"), read("shared.weight")
    )
    scaled = facts.get("tie_word_embeddings", True)
    scaled = facts.get("scale_decoder_outputs", scaled)
    if tied != scaled:
        raise CheckpointError(
            "the output head is tied without scaling, or scaled without being tied; "
            "T5 1.0 has both and T5 1.1 neither",
            where=f"{where}/config.json",
            fix="correct tie_word_embeddings, or add lm_head.weight to the weights",
        )
    return T5Config(
        vocab_size=facts["vocab_size"],
        emb_dim=facts["d_model"],
        num_heads=facts["num_heads"],
        head_dim=facts["d_kv"],
        mlp_dim=facts["d_ff"],
        num_encoder_layers=facts["num_layers"],
        num_decoder_layers=facts.get("num_decoder_layers") or facts["num_layers"],
        mlp_activations=_T5_ACTIVATIONS[activation],
        logits_via_embedding=tied,
        dropout_rate=facts.get("dropout_rate", 0.1),
        relpos_buckets=facts.get("relative_attention_num_buckets", 32),
        relpos_max_distance=facts.get("relative_attention_max_distance", 128),
        norm_epsilon=facts.get("layer_norm_epsilon", 1e-6),
    )


def _llama_config(facts: dict[str, Any], where: str) -> DecoderConfig:
    # Version 5 keeps base and scaling together; version 4 has two keys.
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    refused = {
        "biases in attention": facts.get("attention_bias", False),
        "biases in the feed-forward block": facts.get("mlp_bias", False),
        f"rotary positions of type '{rope_type}'": rope_type != "default",
        f"activation '{facts.get('hidden_act')}'": (
            facts.get("hidden_act", "silu") != "silu"
        ),
    }
    for feature, present in refused.items():
        if present:
            raise CheckpointError(
                f"the model uses {feature}, which flanjax's decoder has not",
                where=f"{where}/config.json",
            )
    num_heads = facts["num_attention_heads"]
    return DecoderConfig(
        vocab_size=facts["vocab_size"],
        emb_dim=facts["hidden_size"],
        num_heads=num_heads,
        num_kv_heads=facts.get("num_key_value_heads") or num_heads,
        head_dim=facts.get("head_dim") or facts["hidden_size"] // num_heads,
        mlp_dim=facts["intermediate_size"],
        num_layers=facts["num_hidden_layers"],
        rope_base=rope.get("rope_theta") or facts.get("rope_theta") or 10_000.0,
        norm_epsilon=facts.get("rms_norm_eps", 1e-6),
        logits_via_embedding=facts.get("tie_word_embeddings", False),
    )


def _facts(
    config: T5Config | DecoderConfig,
    vocabulary: Vocabulary | None,
    context_length: int | None,
) -> dict[str, Any]:
    """Returns config.json; keys of both versions where they differ."""
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    if isinstance(config, DecoderConfig):
        ids = dict.fromkeys(ids)
    if vocabulary is not None:
        ids["pad_token_id"] = vocabulary.pad_id
        ids["eos_token_id"] = vocabulary.eos_id
        ids["bos_token_id"] = vocabulary.bos_id
    facts = _t5_facts(config) if isinstance(config, T5Config) else _llama_facts(config)
    if isinstance(config, DecoderConfig):
        facts["max_position_embeddings"] = context_length or 2048
    return facts | {
        "vocab_size": config.vocab_size,
        "torch_dtype": "float32",  # Version 4; version 5 calls it dtype.
        "dtype": "float32",
        "use_cache": True,
        **ids,
    }


def _t5_facts(config: T5Config) -> dict[str, Any]:
    kinds = {activations: kind for kind, activations in _T5_ACTIVATIONS.items()}
    if config.mlp_activations not in kinds:
        raise ConfigError(
            f"Hugging Face's T5 has no feed-forward block {config.mlp_activations}",
            where="T5Config.mlp_activations",
        )
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "d_model": config.emb_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "feed_forward_proj": kinds[config.mlp_activations],
        "relative_attention_num_buckets": config.relpos_buckets,
        "relative_attention_max_distance": config.relpos_max_distance,
        "layer_norm_epsilon": config.norm_epsilon,
        "dropout_rate": config.dropout_rate,
        # Version 4 reads it as tying and scaling, version 5 as scaling only: it ties
        # unless the weights have a head, which `scatter` writes just when untied.
        "tie_word_embeddings": config.logits_via_embedding,
    }


def _llama_facts(config: DecoderConfig) -> dict[str, Any]:
    if config.mlp_activations != ("silu", "linear") or config.prefix_lm:
        raise ConfigError(
            "Hugging Face's Llama is causal with a SwiGLU block; this model is not",
            where=f"mlp_activations={config.mlp_activations}, "
            f"prefix_lm={config.prefix_lm}",
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.logits_via_embedding,
    }


def _generation(facts: dict[str, Any]) -> dict[str, Any]:
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return {key: facts[key] for key in keys if facts.get(key) is not None}


def _check_replaceable(directory: Path) -> None:
    """Refuses to replace a directory that is not an export."""
    if not directory.exists():
        return
    found = {path.name for path in directory.iterdir()}
    if found and not {"config.json", _WEIGHTS} <= found:
        raise ConfigError(
            "the directory to write holds something else",
            where=str(directory),
            fix="give a new directory",
        )


def _check_merged(params: Tree) -> None:
    for name, value in params.items():
        if name == "lora_a":
            raise ConfigError(
                "the model still has adapters",
                fix="merge them first: flanjax.models.lora.merge_lora",
            )
        if isinstance(value, dict):
            _check_merged(value)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
