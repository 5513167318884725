"""config.json of Hugging Face's T5, Llama, Mistral and Qwen2, as configurations.

    config = decoder_config(facts, where="model/config.json")
    facts = config_facts(config)     # back again

Written as transformers 4.57 and 5 both read it; what either wrote is read. A choice
that flanjax's models do not have is refused by the name of its field.
"""

from collections.abc import Mapping
from typing import Any

from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.rotary import RopeScaling
from flanjax.models.t5 import T5Config

# `feed_forward_proj` of T5 and what it means; gelu is the tanh approximation.
_T5_ACTIVATIONS = {
    "relu": ("relu",),
    "gelu_new": ("gelu",),
    "gated-relu": ("relu", "linear"),
    "gated-gelu": ("gelu", "linear"),
    "gated-silu": ("silu", "linear"),
}

DECODERS = ("llama", "mistral", "qwen2")
FAMILIES = ("t5", *DECODERS)

# What transformers takes for granted where config.json says nothing.
_DEFAULT_KV_HEADS = {"mistral": 8, "qwen2": 32}
_DEFAULT_WINDOW = 4096


def t5_config(facts: Mapping[str, Any], tied: bool, where: str) -> T5Config:
    """Reads the facts of a T5.

    Args:
      facts: config.json.
      tied: the output head is the embedding, as `t5_head_is_tied` found.
      where: config.json's path, for messages.

    Raises:
      CheckpointError: a T5 that flanjax's does not compute, or a field is missing.
    """
    activation = facts.get("feed_forward_proj", "relu")
    if activation not in _T5_ACTIVATIONS:
        raise _refused("feed_forward_proj", activation, tuple(_T5_ACTIVATIONS), where)
    layers = _field(facts, "num_layers", where)
    return T5Config(
        vocab_size=_field(facts, "vocab_size", where),
        emb_dim=_field(facts, "d_model", where),
        num_heads=_field(facts, "num_heads", where),
        head_dim=_field(facts, "d_kv", where),
        mlp_dim=_field(facts, "d_ff", where),
        num_encoder_layers=layers,
        num_decoder_layers=facts.get("num_decoder_layers") or layers,
        mlp_activations=_T5_ACTIVATIONS[activation],
        logits_via_embedding=tied,
        dropout_rate=facts.get("dropout_rate", 0.1),
        relpos_buckets=facts.get("relative_attention_num_buckets", 32),
        relpos_max_distance=facts.get("relative_attention_max_distance", 128),
        norm_epsilon=facts.get("layer_norm_epsilon", 1e-6),
    )


def t5_output_is_scaled(facts: Mapping[str, Any]) -> bool:
    """Whether logits are divided by sqrt(d_model), as those of T5 1.0 are."""
    tied = facts.get("tie_word_embeddings", True)
    return facts.get("scale_decoder_outputs", tied)


def decoder_config(facts: Mapping[str, Any], where: str) -> DecoderConfig:
    """Reads the facts of a Llama, Mistral or Qwen2.

    Args:
      facts: config.json.
      where: its path, for messages.

    Raises:
      CheckpointError: a variant that flanjax's decoder does not compute, or a field is
        missing.
    """
    kind = facts["model_type"]
    for field, only in {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "partial_rotary_factor": (1.0,),
    }.items():
        if facts.get(field, only[0]) not in (*only, None):
            raise _refused(field, facts[field], only, where)
    base, scaling = _rotary(facts, where)
    num_heads = _field(facts, "num_attention_heads", where)
    emb_dim = _field(facts, "hidden_size", where)
    kv_heads = facts.get("num_key_value_heads", _DEFAULT_KV_HEADS.get(kind))
    return DecoderConfig(
        vocab_size=_field(facts, "vocab_size", where),
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_kv_heads=kv_heads or num_heads,
        head_dim=facts.get("head_dim") or emb_dim // num_heads,
        mlp_dim=_field(facts, "intermediate_size", where),
        num_layers=_field(facts, "num_hidden_layers", where),
        rope_base=base,
        rope_scaling=scaling,
        norm_epsilon=facts.get("rms_norm_eps", 1e-6),
        logits_via_embedding=facts.get("tie_word_embeddings", False),
        qkv_bias=kind == "qwen2",
        sliding_window=_window(facts, where),
    )


def config_facts(config: T5Config | DecoderConfig) -> dict[str, Any]:
    """Returns config.json without the vocabulary's and the file's fields.

    Raises:
      ConfigError: Hugging Face has no such model.
    """
    if isinstance(config, T5Config):
        return _t5_facts(config)
    return _decoder_facts(config)


def _field(facts: Mapping[str, Any], name: str, where: str) -> Any:
    if facts.get(name) is None:
        raise CheckpointError(
            f"config.json has no '{name}'",
            where=where,
            fix="use the config.json that belongs to the weights",
        )
    return facts[name]


def _refused(field: str, value: Any, known: tuple, where: str) -> CheckpointError:
    return CheckpointError(
        f"{field} is {value!r}, which flanjax's models have not",
        where=where,
        fix=f"only models with {field} of {', '.join(map(repr, known))} can be read",
    )


def _rotary(facts: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    # Version 5 keeps base and scaling together; version 4 has two keys. Where both
    # are there, version 5 too goes by the old ones.
    new = facts.get("rope_parameters") or {}
    rope = facts.get("rope_scaling") or new
    bases = (rope.get("rope_theta"), facts.get("rope_theta"), new.get("rope_theta"))
    base = float(next((base for base in bases if base), 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if any(isinstance(value, dict) for value in rope.values()):
        raise _refused("rope_parameters", rope, ("the same in all layers",), where)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        value = rope["partial_rotary_factor"]
        raise _refused("partial_rotary_factor", value, (1.0,), where)
    if kind == "default":
        return base, None
    if kind == "linear":
        return base, RopeScaling("linear", float(_field(rope, "factor", where)))
    if kind != "llama3":
        raise _refused("rope_type", kind, ("default", "linear", "llama3"), where)
    names = ("factor", "low_freq_factor", "high_freq_factor")
    factors = [float(_field(rope, name, where)) for name in names]
    length = int(_field(rope, "original_max_position_embeddings", where))
    return base, RopeScaling("llama3", *factors, original_length=length)


def _window(facts: Mapping[str, Any], where: str) -> int | None:
    kind, layers = facts["model_type"], facts["num_hidden_layers"]
    if kind == "llama":
        return None
    window = facts.get("sliding_window", _DEFAULT_WINDOW)
    if kind == "mistral" or window is None:
        return window
    if not facts.get("use_sliding_window", False):
        return None
    first = facts.get("max_window_layers", 28)
    slides = [i >= first for i in range(layers)]
    if facts.get("layer_types"):
        slides = [name == "sliding_attention" for name in facts["layer_types"]]
    if any(slides) and not all(slides):
        name = "layer_types" if facts.get("layer_types") else "max_window_layers"
        raise _refused(name, facts[name], ("a window in all layers or none",), where)
    return window if all(slides) else None


def _t5_facts(config: T5Config) -> dict[str, Any]:
    kinds = {activations: kind for kind, activations in _T5_ACTIVATIONS.items()}
    if config.mlp_activations not in kinds:
        raise ConfigError(
            f"Hugging Face's T5 has no feed-forward block {config.mlp_activations}",
            where="T5Config.mlp_activations",
        )
    if config.relpos_per_layer:
        raise ConfigError(
            "Hugging Face's T5 has one relative-position bias for all layers",
            where="T5Config.relpos_per_layer",
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
        # unless the weights have a head, which they have just when untied.
        "tie_word_embeddings": config.logits_via_embedding,
    }


def _decoder_facts(config: DecoderConfig) -> dict[str, Any]:
    plain = {
        "mlp_activations": ("silu", "linear"),
        "positions": "rotary",
        "prefix_lm": False,
        "parallel_block": False,
        "scale_attention": True,
        "scale_tied_logits": False,
    }
    for field, only in plain.items():
        if getattr(config, field) != only:
            raise ConfigError(
                "Hugging Face's Llama, Mistral and Qwen2 are causal, with rotary "
                f"positions and a SwiGLU block; {field} is {getattr(config, field)}",
                where=f"DecoderConfig.{field}",
                fix="the T5X format holds any model: --format t5x",
            )
    kind, name = "llama", "LlamaForCausalLM"
    extra: dict[str, Any] = {"attention_bias": False, "mlp_bias": False}
    if config.qkv_bias:
        kind, name, extra = "qwen2", "Qwen2ForCausalLM", _qwen2_window(config)
    elif config.sliding_window is not None:
        kind, name = "mistral", "MistralForCausalLM"
        extra = {"sliding_window": config.sliding_window}
    return {
        "architectures": [name],
        "model_type": kind,
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        **_rotary_facts(config),
        **extra,
        "tie_word_embeddings": config.logits_via_embedding,
    }


def _qwen2_window(config: DecoderConfig) -> dict[str, Any]:
    window = config.sliding_window
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": 0 if window is not None else config.num_layers,
    }


def _rotary_facts(config: DecoderConfig) -> dict[str, Any]:
    """Base and scaling under the names of both versions."""
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        rope = {"rope_type": scaling.kind, "factor": float(scaling.factor)}
    if scaling is not None and scaling.kind == "llama3":
        rope |= {
            "low_freq_factor": float(scaling.low_freq_factor),
            "high_freq_factor": float(scaling.high_freq_factor),
            "original_max_position_embeddings": scaling.original_length,
        }
    return {
        "rope_theta": config.rope_base,
        "rope_scaling": None if scaling is None else rope,
        "rope_parameters": rope | {"rope_theta": config.rope_base},
    }
