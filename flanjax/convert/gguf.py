"""Models in GGUF files: llama architecture, any quantisation `gguf` can expand.

    with open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf") as source:
        source.config.num_layers     # 30

Converters to GGUF reorder the rows of query and key matrices so that rotary pairs lie
side by side; here they go back to Hugging Face's order, two halves of a head, as
flanjax's decoder expects.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flanjax.convert.names import Entry, gguf_entries
from flanjax.data.gguf_tokenizer import Header, gguf_path, read_header
from flanjax.errors import CheckpointError, nearest
from flanjax.models.decoder import DecoderConfig


class GgufSource:
    """A model in a GGUF file, as `flanjax.convert.weights.WeightSource` says."""

    def __init__(self, header: Header, data: np.ndarray):
        self.where = str(header.path)
        self.config = read_config(header)
        self._header = header
        self._data = data

    def entries(self) -> list[Entry]:
        """Returns every parameter and the tensors it is made of."""
        return gguf_entries(self.config)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, query and key rows in Hugging Face's order."""
        tensor = _dequantise(self._header, self._data, name)
        heads = {"attn_q": self.config.num_heads, "attn_k": self.config.num_kv_heads}
        for part, count in heads.items():
            if name.endswith(f".{part}.weight"):
                return unpermute(tensor, count)
        return tensor

    def unplaced(self) -> list[str]:
        """Returns the tensors that the model has no parameter for."""
        used = {name for entry in self.entries() for name in entry.names}
        return sorted(self._header.tensors.keys() - used)


@contextlib.contextmanager
def open_gguf(path: str | Path) -> Iterator[GgufSource]:
    """Opens a model.

    Args:
      path: a GGUF file, or the name of a fetched one ("smollm2").

    Raises:
      CheckpointError: not a whole GGUF file, or another architecture.
      ConfigError: no such file.
      DataError: the fetched file it names is not there.
    """
    header = read_header(gguf_path(path))
    yield GgufSource(header, np.memmap(header.path, np.uint8, mode="r"))


def read_config(header: Header) -> DecoderConfig:
    """Returns the configuration that a GGUF header states.

    Raises:
      CheckpointError: a model that flanjax's decoder does not compute.
    """
    where = str(header.path)
    architecture = header.require("general.architecture")
    if architecture != "llama":
        raise CheckpointError(
            f"the GGUF file holds a model of architecture '{architecture}'; only "
            "'llama' can be read",
            where=where,
        )
    facts = header.metadata
    emb_dim = header.require("llama.embedding_length")
    num_heads = header.require("llama.attention.head_count")
    head_dim = facts.get("llama.attention.key_length", emb_dim // num_heads)
    refused = {
        "rope scaling": facts.get("llama.rope.scaling.type", "none") != "none",
        "long-context rope factors": "rope_freqs.weight" in header.tensors,
        "partial rotation of heads": (
            facts.get("llama.rope.dimension_count", head_dim) != head_dim
        ),
        "mixture of experts": facts.get("llama.expert_count", 0) > 0,
        "biases in attention": "blk.0.attn_q.bias" in header.tensors,
    }
    for feature, present in refused.items():
        if present:
            raise CheckpointError(
                f"the model uses {feature}, which flanjax's decoder has not",
                where=where,
            )
    return DecoderConfig(
        vocab_size=_info(header, "token_embd.weight").shape[0],
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_kv_heads=facts.get("llama.attention.head_count_kv", num_heads),
        head_dim=head_dim,
        mlp_dim=header.require("llama.feed_forward_length"),
        num_layers=header.require("llama.block_count"),
        rope_base=_short(facts.get("llama.rope.freq_base", 10_000.0)),
        norm_epsilon=_short(header.require("llama.attention.layer_norm_rms_epsilon")),
        logits_via_embedding="output.weight" not in header.tensors,
    )


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns a query or key matrix [heads * head_dim, in] in Hugging Face's order.

    Within a head GGUF has rows 0, d/2, 1, d/2 + 1, ... of the original; see `permute`
    in llama.cpp's convert_hf_to_gguf.py.
    """
    rows, width = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def _short(value: float) -> float:
    # Stored as float32: 9.9999997e-06 was written as 1e-05.
    return float(str(np.float32(value)))


def _info(header: Header, name: str):
    if name not in header.tensors:
        raise CheckpointError(
            f"tensor '{name}' is missing.{nearest(name, header.tensors)}",
            where=str(header.path),
            fix="the file is not a whole llama model; fetch or convert it again",
        )
    return header.tensors[name]


def _dequantise(header: Header, data: np.ndarray, name: str) -> np.ndarray:
    """Returns one tensor as float32, rows first."""
    import gguf

    info = _info(header, name)
    try:
        kind = gguf.GGMLQuantizationType(info.type)
        rows_bytes = gguf.quant_shape_to_byte_shape(info.shape, kind)
        stored = data[info.start : info.start + int(np.prod(rows_bytes))]
        if kind == gguf.GGMLQuantizationType.F32:
            return stored.view(np.float32).reshape(info.shape)
        if kind == gguf.GGMLQuantizationType.F16:
            return stored.view(np.float16).reshape(info.shape).astype(np.float32)
        return gguf.dequantize(stored.reshape(rows_bytes), kind).reshape(info.shape)
    except (ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"cannot read tensor '{name}': {error}",
            where=str(header.path),
            fix="the file may be cut short; fetch or convert it again",
        ) from error
