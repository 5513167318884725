"""GGUF files give the model they were made from."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from flanjax.convert.gguf import unpermute
from flanjax.convert.place import load_params
from flanjax.convert.weights import import_context_length, open_weights
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.rotary import RopeScaling


def load(path):
    with open_weights(f"gguf:{path}") as weights:
        return weights.config, load_params(weights)


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_gguf_file_and_a_hugging_face_directory_of_one_model_are_equal(
    write_gguf, llama_config, llama_tensors, tmp_path
):
    from safetensors.numpy import save_file

    facts = {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "rope_theta": 5e4,
        "rms_norm_eps": 1e-5,
    }
    (tmp_path / "config.json").write_text(json.dumps(facts))
    save_file(llama_tensors, tmp_path / "model.safetensors")
    config, params = load(write_gguf(llama_tensors))
    assert config == llama_config
    with open_weights(str(tmp_path)) as weights:
        expected_config, expected = weights.config, load_params(weights)
    assert config == expected_config
    assert_same(params, expected)
    query = llama_tensors["model.layers.1.self_attn.q_proj.weight"]
    kernel = params["decoder"]["layers"]["self_attention"]["query"]["kernel"]
    np.testing.assert_array_equal(kernel[1], query.T)


def test_without_an_output_matrix_the_head_is_tied(write_gguf, llama_tensors):
    del llama_tensors["lm_head.weight"]
    config, params = load(write_gguf(llama_tensors))
    assert config.logits_via_embedding
    assert "logits_dense" not in params["decoder"]


def test_unpermuting_keeps_rotary_attention_the_same(llama_config):
    # A pair (2i, 2i + 1) rotated together must become the pair (i, i + d/2).
    rows = np.arange(llama_config.head_dim * 2)[:, None]
    order = unpermute(rows, 2)[:, 0]
    half = llama_config.head_dim // 2
    for head in (0, 2 * half):
        np.testing.assert_array_equal(
            order[head + half : head + 2 * half], order[head : head + half] + 1
        )


def with_biases(tensors, config):
    draw = np.random.default_rng(5)
    heads = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
    biases = {
        f"model.layers.{i}.self_attn.{part}_proj.bias": draw.normal(
            size=count * config.head_dim
        ).astype(np.float32)
        for i in range(config.num_layers)
        for part, count in heads.items()
    }
    return tensors | biases


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_biases_are_read_and_only_llama_has_permuted_rows(
    architecture, write_gguf, llama_config, llama_tensors
):
    tensors = with_biases(llama_tensors, llama_config)
    config, params = load(write_gguf(tensors, architecture=architecture))
    assert config == dataclasses.replace(llama_config, qkv_bias=True)
    attention = params["decoder"]["layers"]["self_attention"]
    for ours, theirs in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
        name = f"model.layers.1.self_attn.{theirs}"
        kernel, bias = attention[ours]["kernel"][1], attention[ours]["bias"][1]
        np.testing.assert_array_equal(kernel, tensors[f"{name}.weight"].T)
        np.testing.assert_array_equal(bias, tensors[f"{name}.bias"])


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_divisors_become_its_scaling(
    factor, write_gguf, llama_config, llama_tensors
):
    config = dataclasses.replace(
        llama_config, rope_base=5e5, rope_scaling=RopeScaling("llama3", factor)
    )
    # As https://arxiv.org/abs/2407.21783's code has them, frequency by frequency.
    divisors = []
    for i in range(config.head_dim // 2):
        wave = 2 * np.pi * config.rope_base ** (2 * i / config.head_dim)
        smooth = (8192 / wave - 1) / 3
        divisors.append(
            factor
            if wave > 8192
            else 1.0
            if wave < 2048
            else 1 / ((1 - smooth) / factor + smooth)
        )
    tensors = llama_tensors | {"rope_freqs.weight": np.array(divisors, np.float32)}
    path = write_gguf(tensors, config=config)
    assert load(path)[0] == config
    tensors["rope_freqs.weight"][5] *= 1.5
    with pytest.raises(CheckpointError, match="rope_freqs.weight"):
        load(write_gguf(tensors, config=config))


def test_linear_scaling_and_a_window_are_read(write_gguf, llama_config, llama_tensors):
    facts = {
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 2.5,
        "llama.attention.sliding_window": 7,
        "llama.context_length": 640,
    }
    path = write_gguf(llama_tensors, facts=facts)
    scaling = RopeScaling("linear", 2.5)
    assert load(path)[0] == dataclasses.replace(
        llama_config, rope_scaling=scaling, sliding_window=7
    )
    assert import_context_length(f"gguf:{path}") == 640


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.rope.scaling.type", "yarn"),
        ("llama.rope.dimension_count", 32),
        ("llama.expert_count", 8),
        ("llama.attention.value_length", 32),
    ],
)
def test_variants_are_refused_by_the_name_of_their_field(
    key, value, write_gguf, llama_tensors
):
    with pytest.raises(CheckpointError, match=f"{key} is {value}"):
        load(write_gguf(llama_tensors, facts={key: value}))


def test_one_part_of_a_split_model_is_refused(write_gguf, llama_tensors):
    path = write_gguf(llama_tensors, facts={"split.count": 3})
    with pytest.raises(CheckpointError, match="one of 3 parts"):
        load(path)


def half_floats(draw, shape):
    return draw.normal(0, 0.02, shape).astype(np.float16)


def q4_1(draw, rows, width):
    """Stored bytes of random Q4_1 rows, and the numbers they stand for, one by one."""
    blocks = width // 32
    scale, low = half_floats(draw, (2, rows, blocks))
    quants = draw.integers(0, 256, (rows, blocks, 16), np.uint8)
    stored = [x.view(np.uint8).reshape(rows, blocks, 2) for x in (scale, low)]
    values = np.zeros((rows, blocks, 32), np.float32)
    for j in range(16):
        for k, nibble in ((j, quants[..., j] & 15), (j + 16, quants[..., j] >> 4)):
            values[..., k] = nibble * scale.astype(np.float32) + low
    stored = np.concatenate([*stored, quants], -1).reshape(rows, -1)
    return stored, values.reshape(rows, width)


def q8_0(draw, rows, width):
    blocks = width // 32
    scale = half_floats(draw, (rows, blocks, 1))
    quants = draw.integers(-128, 128, (rows, blocks, 32), np.int8)
    stored = np.concatenate([scale.view(np.uint8), quants.view(np.uint8)], -1)
    values = quants * scale.astype(np.float32)
    return stored.reshape(rows, -1), values.reshape(rows, width)


def q4_0(draw, rows, width):
    blocks = width // 32
    scale = half_floats(draw, (rows, blocks, 1))
    quants = draw.integers(0, 256, (rows, blocks, 16), np.uint8)
    both = np.concatenate([quants & 15, quants >> 4], -1).astype(np.float32) - 8
    stored = np.concatenate([scale.view(np.uint8), quants], -1)
    return stored.reshape(rows, -1), (both * scale).reshape(rows, width)


def q4_k(draw, rows, width):
    """256 numbers: two scales, 8 pairs of 6-bit factors in 12 bytes, 128 nibbles."""
    blocks = width // 256
    scale, low = half_floats(draw, (2, rows, blocks))
    factors = draw.integers(0, 256, (rows, blocks, 12), np.uint8)
    quants = draw.integers(0, 256, (rows, blocks, 128), np.uint8)
    values = np.zeros((rows, blocks, 256), np.float32)
    for j in range(8):
        f = factors
        if j < 4:
            factor, offset = f[..., j] & 63, f[..., j + 4] & 63
        else:
            factor = (f[..., j + 4] & 15) | (f[..., j - 4] >> 6 << 4)
            offset = (f[..., j + 4] >> 4) | (f[..., j] >> 6 << 4)
        chunk = quants[..., 32 * (j // 2) : 32 * (j // 2) + 32]
        nibbles = chunk >> 4 if j % 2 else chunk & 15
        values[..., 32 * j : 32 * j + 32] = (scale.astype(np.float32) * factor)[
            ..., None
        ] * nibbles - (low.astype(np.float32) * offset)[..., None]
    parts = [x.view(np.uint8).reshape(rows, blocks, 2) for x in (scale, low)]
    stored = np.concatenate([*parts, factors, quants], -1)
    return stored.reshape(rows, -1), values.reshape(rows, width)


def q6_k(draw, rows, width):
    """256 numbers: 128 low nibbles, 64 bytes of high bits, 16 factors, a scale."""
    blocks = width // 256
    low = draw.integers(0, 256, (rows, blocks, 128), np.uint8)
    high = draw.integers(0, 256, (rows, blocks, 64), np.uint8)
    factors = draw.integers(-128, 128, (rows, blocks, 16), np.int8)
    scale = half_floats(draw, (rows, blocks, 1))
    values = np.zeros((rows, blocks, 256), np.float32)
    for i in range(256):
        part, l32 = divmod(i % 128, 32)
        byte = low[..., i // 128 * 64 + i % 64]
        nibble = byte >> 4 if part >= 2 else byte & 15
        bits = high[..., i // 128 * 32 + l32] >> (2 * part) & 3
        number = (nibble | bits << 4).astype(np.float32) - 32
        values[..., i] = (
            scale[..., 0].astype(np.float32) * factors[..., i // 16] * number
        )
    stored = np.concatenate(
        [low, high, factors.view(np.uint8), scale.view(np.uint8)], -1
    )
    return stored.reshape(rows, -1), values.reshape(rows, width)


def plain(draw, rows, width, kind):
    values = draw.normal(0, 1, (rows, width)).astype(np.float32)
    if kind == "F16":
        return values.astype(np.float16), values.astype(np.float16).astype(np.float32)
    cut = values.view(np.uint32) & 0xFFFF0000
    return (cut >> 16).astype(np.uint16).view(np.uint8), cut.view(np.float32)


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
)
def test_stored_types_give_the_numbers_their_definition_says(
    kind, write_gguf, llama_tensors
):
    import gguf

    draw = np.random.default_rng(3)
    makers = {"Q8_0": q8_0, "Q4_0": q4_0, "Q4_1": q4_1, "Q4_K": q4_k, "Q6_K": q6_k}
    if kind in makers:
        stored, values = makers[kind](draw, 256, 256)
    else:
        stored, values = plain(draw, 256, 256, kind)
    quantised = {"blk.1.ffn_up.weight": (stored, gguf.GGMLQuantizationType[kind])}
    _, params = load(write_gguf(llama_tensors, quantised=quantised))
    kernel = params["decoder"]["layers"]["mlp"]["wi_1"]["kernel"]
    np.testing.assert_allclose(kernel[1], values.T, rtol=1e-6, atol=1e-7)
    assert kernel.dtype == np.float32


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_what_gguf_quantises_is_near_what_it_was_and_expanded_in_parts(
    kind, write_gguf, llama_config, llama_tensors, monkeypatch
):
    import gguf

    monkeypatch.setattr("flanjax.convert.gguf._CHUNK", 256 * 100)
    kind = gguf.GGMLQuantizationType[kind]
    original = llama_tensors["model.layers.1.mlp.up_proj.weight"]
    stored = gguf.quantize(original, kind)
    path = write_gguf(llama_tensors, quantised={"blk.1.ffn_up.weight": (stored, kind)})
    kernel = load(path)[1]["decoder"]["layers"]["mlp"]["wi_1"]["kernel"][1]
    np.testing.assert_array_equal(kernel.T, gguf.dequantize(stored, kind))
    steps = {"BF16": 2.0**8, "Q8_0": 254, "Q4_0": 14, "Q4_1": 14}[kind.name]
    assert np.abs(kernel.T - original).max() <= 2.2 * np.abs(original).max() / steps


def test_a_kind_that_cannot_be_expanded_is_named(write_gguf, llama_tensors):
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_1
    stored = np.zeros((256, 256 // 32 * gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    quantised = {"blk.1.ffn_up.weight": (stored, kind)}
    with pytest.raises(CheckpointError, match="type Q8_1"):
        load(write_gguf(llama_tensors, quantised=quantised))


def test_the_tokenizer_merges_and_cuts_off_digits(write_gguf, llama_tensors):
    vocabulary = load_vocabulary(f"gguf:{write_gguf(llama_tensors)}")
    tokens = [vocabulary.token(i) for i in vocabulary.encode("one 12 bone")]
    assert tokens == ["one", "Ġ", "1", "2", "Ġ", "b", "one"]
    assert vocabulary.decode(vocabulary.encode("été 7 🙂")) == "été 7 🙂"
    chat = vocabulary.render_chat([{"role": "user", "content": "one"}], True)
    assert vocabulary.encode(chat, special=True) == [1, *vocabulary.encode("one")]
    assert 1 not in vocabulary.encode(chat)
    assert vocabulary.size == 300
    assert vocabulary.eos_id == vocabulary.pad_id == 0  # Padding is not named.


def test_text_is_cut_as_the_file_says(write_gguf, llama_tensors):
    vocabulary = load_vocabulary(f"gguf:{write_gguf(llama_tensors, pre='llama-bpe')}")
    cut = vocabulary.tokenizer.pre_tokenizer.pre_tokenize_str("It's 12345\n\n x")
    assert [piece for piece, _ in cut] == ["It", "'s", "Ġ", "123", "45", "ĊĊ", "Ġx"]


def test_an_unknown_way_of_cutting_text_is_refused(write_gguf, llama_tensors):
    path = write_gguf(llama_tensors, pre="smolm")
    with pytest.raises(ConfigError, match="Did you mean 'smollm'"):
        load_vocabulary(f"gguf:{path}")


def test_another_architecture_is_refused(write_gguf, llama_tensors):
    with pytest.raises(CheckpointError, match="'falcon'(.|\n)*only llama and qwen2"):
        load(write_gguf(llama_tensors, architecture="falcon"))


def test_a_missing_tensor_is_named(write_gguf, llama_tensors):
    del llama_tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight.*missing"):
        load(write_gguf(llama_tensors))


def test_a_tensor_of_another_shape_is_named(write_gguf, llama_tensors, llama_config):
    config = dataclasses.replace(llama_config, mlp_dim=128)
    with pytest.raises(CheckpointError, match=r"ffn_gate.*\(256, 256\).*\(128, 256\)"):
        load(write_gguf(llama_tensors, config=config))


@pytest.mark.parametrize("kept", [0.0, 0.002, 0.5, 0.99])
def test_a_file_cut_short_is_refused(kept, write_gguf, llama_tensors):
    path = write_gguf(llama_tensors)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match="cannot read"):
        load(path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(CheckpointError, match="starts with"):
        load(path)
