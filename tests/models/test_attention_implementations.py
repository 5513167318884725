"""Every implementation of attention against the plain formula, values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.attention import segment_mask
from flanjax.models.attention_blockwise import blockwise_attention
from flanjax.models.attention_choice import (
    Packing,
    Site,
    attention_lines,
    attention_of,
    chosen_attention,
)
from flanjax.models.attention_dense import dense_attention
from flanjax.models.attention_kernels import flash_attention, splash_attention
from flanjax.models.build import build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config


def plain(query, key, value, mask, bias=None, keep=None):
    """Attention as the papers write it, differentiated by JAX."""
    shared = query.shape[2] // key.shape[1]
    key, value = (jnp.repeat(x, shared, axis=1) for x in (key, value))
    logits = jnp.einsum("bqhd,bhkd->bhqk", query, key)
    logits = jnp.where(mask, logits + (0 if bias is None else bias), -1e10)
    weights = jax.nn.softmax(logits)
    return jnp.einsum(
        "bhqk,bhkd->bqhd", weights if keep is None else weights * keep, value
    )


def draw(lengths, heads=4, kv_heads=2, head_dim=16, bias_axes=0, seed=0):
    """Arrays of attention and segments with padding; the gradient is 0 on padding."""
    random, (queries, keys) = np.random.default_rng(seed), lengths
    normal = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    batch = 2
    arrays = [
        normal(batch, queries, heads, head_dim) * head_dim**-0.5,
        normal(batch, kv_heads, keys, head_dim),
        normal(batch, kv_heads, keys, head_dim),
    ]
    if bias_axes:
        arrays.append(normal(*((batch,) * (bias_axes == 4)), heads, queries, keys))
    else:
        arrays.append(None)

    def segments(length):
        return jnp.asarray(
            [[1 + 3 * i // length for i in range(length - 3)] + [0] * 3] * batch
        )

    rows = segments(queries)
    cotangent = normal(batch, queries, heads, head_dim) * (rows > 0)[..., None, None]
    return arrays, rows, segments(keys), cotangent


def values_and_gradients(function, arrays, cotangent):
    def run(arrays):
        result, pull = jax.vjp(function, *arrays)
        return result, pull(cotangent)

    return jax.jit(run)(arrays)


def assert_same(function, reference, arrays, cotangent, tolerance):
    mine = values_and_gradients(function, arrays, cotangent)
    theirs = values_and_gradients(reference, arrays, cotangent)
    seen = np.any(np.asarray(cotangent) != 0, axis=(2, 3))[..., None, None]
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True)
    for i, (a, b) in enumerate(pairs):
        # The result (the first pair) counts where somebody reads it.
        a, b = (np.where(seen, x, 0) if i == 0 else np.asarray(x) for x in (a, b))
        assert np.max(np.abs(a - b)) <= tolerance * max(1.0, np.max(np.abs(b)))


@pytest.mark.parametrize("bias_axes", [0, 3, 4])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("lengths", [(24, 24), (8, 24)])
def test_own_gradients_equal_those_jax_derives(bias_axes, kv_heads, lengths):
    arrays, rows, columns, cotangent = draw(lengths, 4, kv_heads, 16, bias_axes)
    mask = segment_mask(rows, columns, causal=lengths[0] == lengths[1])
    # A query that sees nothing although it has a gradient.
    mask = mask.at[:, :, 2].set(False)

    def dense(q, k, v, b):
        return dense_attention(q, k, v, mask, b, None)

    def blocks(q, k, v, b):
        return blockwise_attention(q, k, v, mask, b, 8)

    def reference(q, k, v, b):
        return plain(q, k, v, mask, b)

    assert_same(dense, reference, arrays, cotangent, 3e-6)
    assert_same(blocks, reference, arrays, cotangent, 3e-6)


def test_dropout_of_probabilities_has_the_gradient_jax_derives():
    arrays, rows, columns, cotangent = draw((16, 16), bias_axes=3)
    mask = segment_mask(rows, columns)
    keep = 2.0 * jax.random.bernoulli(jax.random.key(0), 0.5, (2, 4, 1, 16))
    assert_same(
        lambda q, k, v, b: dense_attention(q, k, v, mask, b, keep),
        lambda q, k, v, b: plain(q, k, v, mask, b, keep),
        arrays,
        cotangent,
        3e-6,
    )


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("kv_heads", [2, 1])
def test_splash_equals_the_plain_formula(interpreted, window, kv_heads):
    arrays, rows, columns, cotangent = draw((256, 256), 2, kv_heads, 64)
    mask = segment_mask(rows, columns, causal=True)
    if window:
        back = np.arange(256)[:, None] - np.arange(256)[None]
        mask &= jnp.asarray(back < window)
    packing = Packing(rows, columns, "causal", window)
    assert_same(
        lambda q, k, v, _: splash_attention(q, k, v, packing),
        lambda q, k, v, _: plain(q, k, v, mask),
        arrays,
        cotangent,
        1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lengths", "order", "bias_axes", "kv_heads"),
    [
        ((256, 256), "any", 3, 2),
        ((128, 128), "causal", 3, 2),
        ((128, 256), "any", 0, 2),
        ((128, 128), "causal", 0, 1),
    ],
)
def test_flash_equals_the_plain_formula(
    interpreted, lengths, order, bias_axes, kv_heads
):
    arrays, rows, columns, cotangent = draw(lengths, 2, kv_heads, 64, bias_axes)
    mask = segment_mask(rows, columns, causal=order == "causal")
    packing = Packing(rows, columns, order)
    assert_same(
        lambda q, k, v, b: flash_attention(q, k, v, packing, b),
        lambda q, k, v, b: plain(q, k, v, mask, b),
        arrays,
        cotangent,
        1e-5,
    )


@pytest.fixture
def interpreted(monkeypatch):
    """TPU kernels on any machine; JAX's own switch does not know vmap."""
    from jax.experimental import pallas

    compiled = pallas.pallas_call

    def interpreted_call(*args, **kwargs):
        return compiled(*args, **(kwargs | {"interpret": True}))

    monkeypatch.setattr(pallas, "pallas_call", interpreted_call)


SITE = Site("tpu", "bfloat16", 1024, 1024, 64, "causal")


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        ({}, "splash", ""),
        ({"window": 512}, "splash", ""),
        ({"bias": True}, "flash", ""),
        ({"order": "any", "keys": 512}, "flash", ""),
        ({"order": "prefix"}, "xla", "no prefix"),
        ({"queries": 100}, "xla", "no multiples of 128"),
        ({"dropout": True}, "xla", "no dropout"),
        ({"platform": "gpu"}, "cudnn", ""),
        ({"platform": "gpu", "order": "prefix"}, "cudnn", ""),
        ({"platform": "gpu", "dtype": "float32"}, "xla", "bfloat16, not float32"),
        ({"platform": "gpu", "bias": True}, "xla", "for every row"),
        ({"platform": "cpu"}, "xla", ""),
        ({"platform": "cpu", "keys": 4096}, "blockwise", ""),
        ({"platform": "cpu", "keys": 4099}, "xla", "do not divide"),
    ],
)
def test_auto_takes_what_the_platform_can_do_and_says_why_not(change, name, why):
    choice = chosen_attention("auto", dataclasses.replace(SITE, **change))
    assert choice.name == name
    assert why in choice.why and bool(why) == bool(choice.why)


@pytest.mark.parametrize(
    ("wanted", "change", "why"),
    [
        ("splash", {"platform": "cpu"}, "for TPUs, this is a CPU"),
        ("cudnn", {}, "for GPUs, this is a TPU"),
        ("splash", {"bias": True}, "no bias"),
        ("splash", {"order": "any"}, "causal self-attention"),
        ("flash", {"window": 3}, "no sliding window"),
        ("blockwise", {"dropout": True}, "no dropout"),
        ("cudnn", {"platform": "gpu", "head_dim": 100}, "heads of 100"),
    ],
)
def test_an_implementation_that_cannot_do_it_is_refused_with_the_reason(
    wanted, change, why
):
    with pytest.raises(ConfigError, match=why) as refused:
        chosen_attention(wanted, dataclasses.replace(SITE, **change))
    assert "auto" in str(refused.value)
    assert refused.value.exit_code == 2


def test_setup_can_say_what_computes_each_attention_and_refuse_before_compiling():
    lengths = {"decoder_length": 256, "encoder_length": 1024}
    chosen = attention_of(T5, "tpu", **lengths)
    assert {place: choice.name for place, choice in chosen.items()} == {
        "decoder": "flash",
        "encoder": "flash",
        "encoder to decoder": "flash",
    }
    assert attention_of(LLAMA, "tpu", decoder_length=1024)["decoder"].name == "splash"
    prefix = dataclasses.replace(LLAMA, prefix_lm=True)
    choice = attention_of(prefix, "tpu", decoder_length=1024)["decoder"]
    assert choice.name == "xla" and "no prefix" in choice.why
    (line,) = attention_lines(prefix, "tpu", decoder_length=1024)
    assert line.startswith("attention of the decoder: xla (splash: it has no prefix")
    assert attention_lines(prefix, "cpu", decoder_length=1024) == []
    with pytest.raises(ConfigError, match="it has no bias"):
        wanted = dataclasses.replace(T5, attention="splash")
        attention_of(wanted, "tpu", **lengths)


SIZES = {"vocab_size": 64, "emb_dim": 32, "num_heads": 4, "head_dim": 8, "mlp_dim": 32}
T5 = T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)
LLAMA = DecoderConfig(**SIZES, num_kv_heads=2, num_layers=1, sliding_window=5)


@pytest.mark.parametrize("config", [T5, LLAMA], ids=["T5", "decoder"])
def test_a_model_computes_the_same_whatever_its_attention(config):
    tokens = jnp.asarray(np.random.default_rng(0).integers(1, 64, (2, 16)))
    segments = jnp.asarray([[1] * 7 + [2] * 7 + [0] * 2] * 2)
    batch = {
        f"{stack}_{name}": value
        for stack in ("encoder", "decoder")
        for name, value in (
            ("input_tokens", tokens),
            ("target_tokens", tokens),
            ("segment_ids", segments),
            ("positions", jnp.tile(jnp.arange(16), (2, 1))),
        )
    }

    def loss(params, attention):
        model = build_model(dataclasses.replace(config, attention=attention))
        hidden = model.apply({"params": params}, batch, method="hidden")
        return jnp.sum(jnp.square(hidden * (segments > 0)[..., None]))

    params = init_params(build_model(config), jax.random.key(0))[0]
    gradients = [jax.grad(loss)(params, name) for name in ("xla", "blockwise")]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients
    )


def test_a_model_refuses_an_attention_that_does_not_exist_or_run_here():
    with pytest.raises(ConfigError, match="blockwise"):
        dataclasses.replace(LLAMA, attention="blockwize")
    model = build_model(dataclasses.replace(LLAMA, attention="cudnn"))
    params = init_params(model, jax.random.key(0))[0]
    tokens = {"decoder_input_tokens": jnp.ones((1, 8), int)}
    with pytest.raises(ConfigError, match="for GPUs, this is a CPU"):
        model.apply({"params": params}, tokens)
