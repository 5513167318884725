"""Small models in files, made by the tests: a GGUF file needs nothing fetched."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flanjax.models.decoder import DecoderConfig

LLAMA = DecoderConfig(
    vocab_size=300,
    emb_dim=256,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    mlp_dim=256,
    num_layers=2,
    rope_base=5e4,
    logits_via_embedding=False,
)

# A byte-level BPE: 256 bytes, special tokens and two merges.
SPECIAL = ("<end>", "<turn>")
MERGES = ("o n", "on e")


def byte_alphabet() -> list[str]:
    """GPT-2's character for every byte value."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def huggingface_tensors(config: DecoderConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors by the names and in the order of a Hugging Face Llama."""
    draw = np.random.default_rng(seed)
    q, kv = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
    d, mlp = config.emb_dim, config.mlp_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, d),
        "model.norm.weight": (d,),
        "lm_head.weight": (config.vocab_size, d),
    }
    for i in range(config.num_layers):
        shapes |= {
            f"model.layers.{i}.input_layernorm.weight": (d,),
            f"model.layers.{i}.self_attn.q_proj.weight": (q, d),
            f"model.layers.{i}.self_attn.k_proj.weight": (kv, d),
            f"model.layers.{i}.self_attn.v_proj.weight": (kv, d),
            f"model.layers.{i}.self_attn.o_proj.weight": (d, q),
            f"model.layers.{i}.post_attention_layernorm.weight": (d,),
            f"model.layers.{i}.mlp.gate_proj.weight": (mlp, d),
            f"model.layers.{i}.mlp.up_proj.weight": (mlp, d),
            f"model.layers.{i}.mlp.down_proj.weight": (d, mlp),
        }
    return {
        name: draw.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def gguf_name(name: str) -> str:
    """GGUF's name of a Hugging Face tensor."""
    for theirs, ours in {
        "model.embed_tokens": "token_embd",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "_proj": "",
        "model.norm": "output_norm",
    }.items():
        name = name.replace(theirs, ours)
    return name


def permuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """The order of rows GGUF files have: pairs of a head side by side.

    Row by row: row 2 i + h of a head is the original's row h d/2 + i.
    """
    head_dim = weight.shape[0] // num_heads
    order = [
        head * head_dim + half * (head_dim // 2) + i
        for head in range(num_heads)
        for i in range(head_dim // 2)
        for half in range(2)
    ]
    return weight[order]


@pytest.fixture
def write_gguf(tmp_path) -> Callable[..., Path]:
    """Returns a function that writes a GGUF file of a small model."""
    return lambda tensors, **changes: _write(
        tmp_path / "model.gguf", tensors, **changes
    )


def _write(
    path: Path,
    tensors: dict[str, np.ndarray],
    *,
    config: DecoderConfig = LLAMA,
    architecture: str = "llama",
    pre: str = "smollm",
    quantised: dict[str, tuple[np.ndarray, Any]] | None = None,
    facts: dict[str, str | int | float] | None = None,
) -> Path:
    """Writes Hugging Face tensors, llama's permuted, and a tokenizer.

    `quantised` gives the stored bytes and the ggml type of some tensors, by GGUF name,
    `facts` more metadata.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.emb_dim)
    writer.add_feed_forward_length(config.mlp_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    tokens = [*SPECIAL, *byte_alphabet(), *(m.replace(" ", "") for m in MERGES)]
    tokens += [f"<spare_{i}>" for i in range(config.vocab_size - len(tokens))]
    kinds = [3 if t in SPECIAL or t.startswith("<spare") else 1 for t in tokens]
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(MERGES))
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}<turn>{{ m.content }}{% endfor %}")
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for key, value in (facts or {}).items():
        add[type(value)](key, value)
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    heads = heads if architecture == "llama" else {}
    for name, tensor in tensors.items():
        for part, count in heads.items():
            tensor = permuted(tensor, count) if part in name else tensor
        name = gguf_name(name)
        if name in (quantised or {}):
            stored, kind = quantised[name]
            writer.add_tensor(name, stored, raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def llama_config() -> DecoderConfig:
    return dataclasses.replace(LLAMA)


@pytest.fixture
def llama_tensors() -> dict[str, np.ndarray]:
    return huggingface_tensors(LLAMA)
