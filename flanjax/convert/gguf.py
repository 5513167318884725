"""Models in GGUF files: llama and qwen2, in any quantisation that `gguf` can expand.

    with open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf") as source:
        source.config.num_layers     # 30

Converters to GGUF reorder the rows of llama's query and key matrices so that rotary
pairs lie side by side; here they go back to Hugging Face's order, two halves of a head,
as flanjax's decoder expects. Mistral's files say llama.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.names import Entry, gguf_entries
from flanjax.data.gguf_tokenizer import Header, TensorInfo, gguf_path, read_header
from flanjax.errors import CheckpointError, nearest
from flanjax.models.decoder import DecoderConfig
from flanjax.models.rotary import RopeScaling

ARCHITECTURES = ("llama", "qwen2")
_ROPE_FACTORS = "rope_freqs.weight"
_CHUNK = 2**22  # Numbers expanded at a time; expanding takes several times their size.


class GgufSource:
    """A model in a GGUF file, as `flanjax.convert.weights.WeightSource` says."""

    def __init__(self, header: Header, data: np.ndarray):
        self.where = str(header.path)
        self.config = read_config(header, data)
        self._header = header
        self._data = data

    def entries(self) -> list[Entry]:
        """Returns every parameter and the tensors it is made of."""
        return gguf_entries(self.config)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, query and key rows in Hugging Face's order."""
        tensor = _dequantise(self._header, self._data, name)
        if self._header.metadata["general.architecture"] != "llama":
            return tensor
        heads = {"attn_q": self.config.num_heads, "attn_k": self.config.num_kv_heads}
        for part, count in heads.items():
            if f".{part}." in name:
                return unpermute(tensor, count)
        return tensor

    def unplaced(self) -> list[str]:
        """Returns the tensors that the model has no parameter for."""
        used = {name for entry in self.entries() for name in entry.names}
        return sorted(self._header.tensors.keys() - used - {_ROPE_FACTORS})


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
    data = np.memmap(header.path, np.uint8, mode="r")
    _check_whole(header, data.size)
    yield GgufSource(header, data)


def read_config(header: Header, data: np.ndarray) -> DecoderConfig:
    """Returns the configuration that a GGUF file states.

    Args:
      header: of the file.
      data: its bytes.

    Raises:
      CheckpointError: a model that flanjax's decoder does not compute.
    """
    where = str(header.path)
    arch = header.require("general.architecture")
    if arch not in ARCHITECTURES:
        raise CheckpointError(
            f"the GGUF file holds a model of architecture '{arch}'."
            f"{nearest(str(arch), ARCHITECTURES)}",
            where=where,
            fix=f"only {' and '.join(ARCHITECTURES)} can be read",
        )
    facts = header.metadata
    emb_dim = header.require(f"{arch}.embedding_length")
    num_heads = header.require(f"{arch}.attention.head_count")
    for key in ("attention.head_count", "attention.head_count_kv"):
        if isinstance(facts.get(f"{arch}.{key}"), list):
            raise _refused(f"{arch}.{key}", "another number in each layer", where)
    head_dim = facts.get(f"{arch}.attention.key_length", emb_dim // num_heads)
    for key, only in {
        "rope.dimension_count": head_dim,
        "attention.value_length": head_dim,
        "expert_count": 0,
    }.items():
        if facts.get(f"{arch}.{key}", only) != only:
            raise _refused(f"{arch}.{key}", facts[f"{arch}.{key}"], where)
    return DecoderConfig(
        vocab_size=_info(header, "token_embd.weight").shape[0],
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_kv_heads=facts.get(f"{arch}.attention.head_count_kv", num_heads),
        head_dim=head_dim,
        mlp_dim=header.require(f"{arch}.feed_forward_length"),
        num_layers=header.require(f"{arch}.block_count"),
        rope_base=_short(facts.get(f"{arch}.rope.freq_base", 10_000.0)),
        rope_scaling=_rope_scaling(header, data, arch),
        norm_epsilon=_short(header.require(f"{arch}.attention.layer_norm_rms_epsilon")),
        logits_via_embedding="output.weight" not in header.tensors,
        qkv_bias="blk.0.attn_q.bias" in header.tensors,
        sliding_window=facts.get(f"{arch}.attention.sliding_window") or None,
    )


def _rope_scaling(header: Header, data: np.ndarray, arch: str) -> RopeScaling | None:
    """Llama 3's scaling is a tensor of divisors here, one for every frequency."""
    where, facts = str(header.path), header.metadata
    kind = facts.get(f"{arch}.rope.scaling.type", "none")
    if kind == "linear":
        factor = header.require(f"{arch}.rope.scaling.factor")
        return RopeScaling("linear", _short(factor))
    if kind != "none":
        raise _refused(f"{arch}.rope.scaling.type", kind, where)
    if _ROPE_FACTORS not in header.tensors:
        return None
    divisors = _dequantise(header, data, _ROPE_FACTORS)
    # Converters write what these numbers give; the factor is that of long waves.
    scaling = RopeScaling("llama3", float(divisors.max()))
    base = facts.get(f"{arch}.rope.freq_base", 10_000.0)
    frequencies = base ** -(np.arange(divisors.size) / divisors.size)
    if not np.allclose(frequencies / scaling.apply(frequencies), divisors, rtol=1e-3):
        raise _refused(_ROPE_FACTORS, "not Llama 3's", where)
    return scaling


def _refused(field: str, value: Any, where: str) -> CheckpointError:
    return CheckpointError(
        f"{field} is {value}, which flanjax's decoder has not",
        where=where,
        fix="only plain models of the llama and qwen2 architectures can be read",
    )


def unpermute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns query or key rows [heads * head_dim, ...] in Hugging Face's order.

    Within a head GGUF has rows 0, d/2, 1, d/2 + 1, ... of the original; see `permute`
    in llama.cpp's convert_hf_to_gguf.py.
    """
    pairs = rows.reshape(num_heads, len(rows) // num_heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _short(value: float) -> float:
    # Stored as float32: 9.9999997e-06 was written as 1e-05.
    return float(str(np.float32(value)))


def _info(header: Header, name: str) -> TensorInfo:
    if name not in header.tensors:
        raise CheckpointError(
            f"tensor '{name}' is missing.{nearest(name, header.tensors)}",
            where=str(header.path),
            fix="the file is not a whole model; fetch or convert it again",
        )
    return header.tensors[name]


def _check_whole(header: Header, size: int) -> None:
    where = str(header.path)
    if header.metadata.get("split.count", 1) > 1:
        raise CheckpointError(
            f"the file is one of {header.metadata['split.count']} parts of a model",
            where=where,
            fix="join them first: llama-gguf-split --merge FIRST_PART WHOLE",
        )
    for name, info in header.tensors.items():
        end = info.start + int(np.prod(_stored_shape(header, name)))
        if end > size:
            raise CheckpointError(
                f"cannot read tensor '{name}': it ends at byte {end} and the file at "
                f"{size}",
                where=where,
                fix="the file is cut short; fetch or convert it again",
            )


def _stored_shape(header: Header, name: str) -> tuple[int, ...]:
    """Shape of a tensor's bytes: rows of whole blocks."""
    import gguf

    info = _info(header, name)
    try:
        kind = gguf.GGMLQuantizationType(info.type)
        return tuple(gguf.quant_shape_to_byte_shape(info.shape, kind))
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"cannot read tensor '{name}': {error}",
            where=str(header.path),
            fix="the file is damaged, or of a newer kind than the gguf package knows",
        ) from error


def _dequantise(header: Header, data: np.ndarray, name: str) -> np.ndarray:
    """Returns one tensor as float32, rows first."""
    import gguf

    info, shape = _info(header, name), _stored_shape(header, name)
    stored = data[info.start : info.start + int(np.prod(shape))].reshape(shape)
    kind = gguf.GGMLQuantizationType(info.type)
    plain = {"F32": np.float32, "F16": np.float16}
    if kind.name in plain:
        return stored.view(plain[kind.name]).astype(np.float32)
    result = np.empty(info.shape, np.float32)
    rows = max(1, _CHUNK // info.shape[-1])
    try:
        for i in range(0, len(result), rows):
            result[i : i + rows] = gguf.dequantize(stored[i : i + rows], kind)
    except NotImplementedError as error:
        raise CheckpointError(
            f"tensor '{name}' is of type {kind.name}, which cannot be expanded",
            where=str(header.path),
            fix="use a file of F16, BF16, Q8_0, Q6_K or Q4_K",
        ) from error
    return result
