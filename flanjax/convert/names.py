"""Which tensor of a file is which parameter, for each family and file format.

    for entry in huggingface_entries(config):
        entry.path, entry.names    # ("decoder", "decoder_norm", "scale"), ...

Files keep one matrix a layer, (out, in); flanjax stacks layers and keeps (in, out).
"""

import dataclasses
from collections.abc import Iterable, Sequence

from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter and the tensors it is made of.

    Attributes:
      path: names from the root of the parameter tree.
      names: tensors in the file, one a layer where `stacked`, else one.
      stacked: the parameter has a leading layer axis.
      transposed: the file has the other axes the other way round.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    stacked: bool = False
    transposed: bool = False


def unstacked(entries: Iterable[Entry]) -> list[Entry]:
    """Returns entries for a model whose layers are `layers_0`, `layers_1`, ..."""
    flat = []
    for entry in entries:
        if not entry.stacked:
            flat.append(entry)
            continue
        for i, name in enumerate(entry.names):
            path = tuple(f"layers_{i}" if n == "layers" else n for n in entry.path)
            flat.append(Entry(path, (name,), transposed=entry.transposed))
    return flat


def gguf_entries(config: DecoderConfig) -> list[Entry]:
    """Returns the entries of a GGUF file of the llama or qwen2 architecture."""
    layer = {
        "pre_self_attention_layer_norm/scale": "attn_norm",
        "self_attention/query/kernel": "attn_q",
        "self_attention/key/kernel": "attn_k",
        "self_attention/value/kernel": "attn_v",
        "self_attention/out/kernel": "attn_output",
        "pre_mlp_layer_norm/scale": "ffn_norm",
        "mlp/wi_0/kernel": "ffn_gate",
        "mlp/wi_1/kernel": "ffn_up",
        "mlp/wo/kernel": "ffn_down",
    }
    outer = ("token_embd.weight", "output_norm.weight", "output.weight")
    return _decoder_entries(config, layer, "blk.{}.{}", outer)


def huggingface_entries(config: T5Config | DecoderConfig) -> list[Entry]:
    """Returns the entries of a Hugging Face checkpoint of any family."""
    if isinstance(config, T5Config):
        return _t5_entries(config)
    layer = {
        "pre_self_attention_layer_norm/scale": "input_layernorm",
        "self_attention/query/kernel": "self_attn.q_proj",
        "self_attention/key/kernel": "self_attn.k_proj",
        "self_attention/value/kernel": "self_attn.v_proj",
        "self_attention/out/kernel": "self_attn.o_proj",
        "pre_mlp_layer_norm/scale": "post_attention_layernorm",
        "mlp/wi_0/kernel": "mlp.gate_proj",
        "mlp/wi_1/kernel": "mlp.up_proj",
        "mlp/wo/kernel": "mlp.down_proj",
    }
    outer = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    return _decoder_entries(config, layer, "model.layers.{}.{}", outer)


def _decoder_entries(
    config: DecoderConfig,
    layer: dict[str, str],
    pattern: str,
    outer: Sequence[str],
) -> list[Entry]:
    embedding, norm, head = outer
    entries = [
        _entry("token_embedder/embedding", embedding),
        _entry("decoder/decoder_norm/scale", norm),
    ]
    if not config.logits_via_embedding:
        entries.append(_entry("decoder/logits_dense/kernel", head))
    biases = {}
    if config.qkv_bias:
        for name in ("query", "key", "value"):
            theirs = layer[f"self_attention/{name}/kernel"]
            biases[f"self_attention/{name}/bias"] = f"{theirs}.bias"
    layer = {ours: f"{theirs}.weight" for ours, theirs in layer.items()} | biases
    return entries + _layer_entries("decoder", config.num_layers, layer, pattern)


def _t5_entries(config: T5Config) -> list[Entry]:
    gated = len(config.mlp_activations) > 1
    branches = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    entries = [_entry("token_embedder/embedding", "shared.weight")]
    if not config.logits_via_embedding:
        entries.append(_entry("decoder/logits_dense/kernel", "lm_head.weight"))
    stacks = {
        "encoder": (config.num_encoder_layers, {"attention": "SelfAttention"}),
        "decoder": (
            config.num_decoder_layers,
            {
                "self_attention": "SelfAttention",
                "encoder_decoder_attention": "EncDecAttention",
            },
        ),
    }
    norms = {
        "attention": "pre_attention_layer_norm",
        "self_attention": "pre_self_attention_layer_norm",
        "encoder_decoder_attention": "pre_cross_attention_layer_norm",
    }
    for stack, (num_layers, attentions) in stacks.items():
        layer = {}
        for part, (ours, theirs) in enumerate(attentions.items()):
            layer[f"{norms[ours]}/scale"] = f"{part}.layer_norm"
            for short, name in zip(
                "qkvo", ("query", "key", "value", "out"), strict=True
            ):
                layer[f"{ours}/{name}/kernel"] = f"{part}.{theirs}.{short}"
        part = len(attentions)
        layer["pre_mlp_layer_norm/scale"] = f"{part}.layer_norm"
        for name in branches:
            layer[f"mlp/{name}/kernel"] = f"{part}.DenseReluDense.{name}"
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        norm = f"{stack}.final_layer_norm.weight"
        entries += [
            _entry(f"{stack}/relpos_bias/rel_embedding", f"{stack}.{bias}"),
            _entry(f"{stack}/{stack}_norm/scale", norm),
        ]
        pattern = stack + ".block.{}.layer.{}.weight"
        entries += _layer_entries(stack, num_layers, layer, pattern)
    return entries


def _layer_entries(
    stack: str, num_layers: int, layer: dict[str, str], pattern: str
) -> list[Entry]:
    return [
        _entry(
            f"{stack}/layers/{ours}",
            *(pattern.format(i, theirs) for i in range(num_layers)),
            stacked=True,
        )
        for ours, theirs in layer.items()
    ]


def _entry(path: str, *names: str, stacked: bool = False) -> Entry:
    parts = tuple(path.split("/"))
    transposed = parts[-1] in ("kernel", "rel_embedding")
    return Entry(parts, names, stacked, transposed)
