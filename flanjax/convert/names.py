"""Which tensor of a file is which parameter, for each family and file format.

    entries = huggingface_entries(config)
    params = gather(config, entries, read_tensor, where="model.safetensors")
    tensors = scatter(entries, params)     # the same tensors again

Files keep one matrix a layer, (out, in); flanjax stacks layers and keeps (in, out).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter and the tensors it is made of.

    Attributes:
      path: names from the root of the parameter tree.
      names: tensors in the file, one a layer where `stacked`, else one.
      stacked: the parameter has a leading layer axis.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    stacked: bool = False

    @property
    def transposed(self) -> bool:
        """Whether the file has the axes the other way round."""
        return self.path[-1] in ("kernel", "rel_embedding")


def gather(
    config: T5Config | DecoderConfig,
    entries: Iterable[Entry],
    read: Callable[[str], np.ndarray],
    where: str,
) -> Tree:
    """Reads a model's parameters, tensor by tensor.

    Args:
      config: the model's configuration, with scanned layers and no adapters.
      entries: one for each parameter.
      read: returns a tensor by name; CheckpointError where there is none.
      where: the file, for messages.

    Returns:
      Nested dict of float32 arrays, layers stacked.

    Raises:
      CheckpointError: a tensor is missing or has another shape than the configuration
        says.
    """
    shapes, _ = abstract_params(build_model(config))
    params: Tree = {}
    for entry in entries:
        leaf: Any = shapes
        for name in entry.path:
            leaf = leaf[name]
        array = np.empty(leaf.shape, np.float32)
        rows: Any = array if entry.stacked else array[None]
        for row, name in zip(rows, entry.names, strict=True):
            tensor = read(name)
            tensor = tensor.T if entry.transposed else tensor
            if tensor.shape != row.shape:
                expected = row.shape[::-1] if entry.transposed else row.shape
                found = tensor.shape[::-1] if entry.transposed else tensor.shape
                raise CheckpointError(
                    f"tensor '{name}' has shape {found}; the configuration says "
                    f"{expected}",
                    where=where,
                )
            row[...] = tensor
        parent = params
        for name in entry.path[:-1]:
            parent = parent.setdefault(name, {})
        parent[entry.path[-1]] = array
    return params


def scatter(entries: Iterable[Entry], params: Tree) -> dict[str, np.ndarray]:
    """Returns float32 tensors by their names in the file: `gather` backwards."""
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


def gguf_entries(config: DecoderConfig) -> list[Entry]:
    """Returns the entries of a GGUF file of the llama architecture."""
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
    return _decoder_entries(config, layer, "blk.{}.{}.weight", outer)


def huggingface_entries(config: T5Config | DecoderConfig) -> list[Entry]:
    """Returns the entries of a Hugging Face T5 or Llama checkpoint."""
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
    return _decoder_entries(config, layer, "model.layers.{}.{}.weight", outer)


def _decoder_entries(
    config: DecoderConfig,
    layer: dict[str, str],
    pattern: str,
    outer: Sequence[str],
) -> list[Entry]:
    embedding, norm, head = outer
    entries = [
        Entry(("token_embedder", "embedding"), (embedding,)),
        Entry(("decoder", "decoder_norm", "scale"), (norm,)),
    ]
    if not config.logits_via_embedding:
        entries.append(Entry(("decoder", "logits_dense", "kernel"), (head,)))
    return entries + _layer_entries("decoder", config.num_layers, layer, pattern)


def _t5_entries(config: T5Config) -> list[Entry]:
    gated = len(config.mlp_activations) > 1
    branches = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    entries = [Entry(("token_embedder", "embedding"), ("shared.weight",))]
    if not config.logits_via_embedding:
        entries.append(
            Entry(("decoder", "logits_dense", "kernel"), ("lm_head.weight",))
        )
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
            Entry((stack, "relpos_bias", "rel_embedding"), (f"{stack}.{bias}",)),
            Entry((stack, f"{stack}_norm", "scale"), (norm,)),
        ]
        pattern = stack + ".block.{}.layer.{}.weight"
        entries += _layer_entries(stack, num_layers, layer, pattern)
    return entries


def _layer_entries(
    stack: str, num_layers: int, layer: dict[str, str], pattern: str
) -> list[Entry]:
    return [
        Entry(
            (stack, "layers", *ours.split("/")),
            tuple(pattern.format(i, theirs) for i in range(num_layers)),
            stacked=True,
        )
        for ours, theirs in layer.items()
    ]
