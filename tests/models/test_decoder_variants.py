"""Every form of decoder: packed or cached, the logits stay; T5X's numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.decode import cache
from flanjax.errors import ConfigError
from flanjax.models.build import build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import unstack_layers
from flanjax.models.rotary import RopeScaling, rotary_tables

TINY = DecoderConfig(32, 16, 4, 2, 8, 24, 2)
T5X = dict(
    positions="relative",
    scale_attention=False,
    scale_tied_logits=True,
    relpos_buckets=8,
    relpos_max_distance=8,
)
VARIANTS = {
    "t5x": T5X,
    "t5x_prefix_window": dict(T5X, prefix_lm=True, sliding_window=3),
    "palm_llama3": dict(
        parallel_block=True,
        num_kv_heads=1,
        scale_tied_logits=True,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16),
    ),
    "qwen2_mistral": dict(qkv_bias=True, logits_via_embedding=False, sliding_window=3),
}
PROMPTS = np.array([[5, 6, 7, 0, 0, 0], [8, 9, 10, 11, 12, 13], [14, 3, 3, 3, 15, 0]])
LENGTHS = np.array([3, 6, 5])
NEW = np.array([[16, 17, 18, 19], [20, 21, 22, 23], [24, 25, 26, 27]])


@pytest.fixture(params=VARIANTS)
def config(request):
    return dataclasses.replace(TINY, **VARIANTS[request.param])


def test_decoding_step_by_step_gives_the_logits_of_the_whole_text(config, draw):
    model, params = build_model(config), draw(config)

    @jax.jit
    def stepwise(params):
        prompts = {"decoder_input_tokens": jnp.array(PROMPTS), "lengths": LENGTHS}
        state, logits = cache.start(model, params, prompts, NEW.shape[1])
        # As `decode.sample` does: a scanned prefill, then steps over single layers.
        plain, loose = cache.unstacked_model(model), unstack_layers(params)

        def step(state, token):
            return cache.step(plain, loose, state, token)

        _, after = jax.lax.scan(step, cache.unstack_state(state), jnp.array(NEW.T))
        return jnp.concatenate([logits[None], after]).swapaxes(0, 1)

    texts = np.zeros((3, 10), np.int32)
    for row, length in enumerate(LENGTHS):
        texts[row, : length + 4] = [*PROMPTS[row, :length], *NEW[row]]
    given = np.arange(10) < LENGTHS[:, None]
    batch = {"decoder_input_tokens": texts, "decoder_causal_attention": given * 1}
    whole = jax.jit(lambda p: model.apply({"params": p}, batch))(params)
    expected = [row[n - 1 : n + 4] for row, n in zip(whole, LENGTHS, strict=True)]
    np.testing.assert_allclose(stepwise(params), expected, rtol=1e-4, atol=2e-5)


def test_a_packed_row_gives_each_example_its_own_logits(config, draw):
    model, params = build_model(config), draw(config)
    first, second = [5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15]
    packed = {
        "decoder_input_tokens": np.array([first + second]),
        "decoder_segment_ids": np.array([[1] * 6 + [2] * 5]),
        "decoder_positions": np.array([[*range(6), *range(5)]]),
        "decoder_causal_attention": np.array([[1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]]),
    }
    alone = {
        "decoder_input_tokens": np.array([first, [*second, 0]]),
        "decoder_causal_attention": np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]),
    }

    @jax.jit
    def both(params):
        plain, loose = cache.unstacked_model(model), unstack_layers(params)
        return (
            model.apply({"params": params}, packed)[0],
            plain.apply({"params": loose}, alone),  # And scanned equals unscanned.
        )

    together, apart = both(params)
    apart = np.concatenate([apart[0], apart[1, :5]])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", ["causal", "prefixlm"])
def test_logits_equal_t5x_s_decoder_only_example(golden, forward, mode):
    config = DecoderConfig(
        vocab_size=384,
        emb_dim=32,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        mlp_dim=64,
        num_layers=2,
        mlp_activations=("gelu", "linear"),
        norm_epsilon=1e-6,
        positions="relative",
        scale_attention=False,
        scale_tied_logits=True,
        prefix_lm=mode == "prefixlm",
    )
    params = golden.params("deconly_params")
    params["token_embedder"] = params["decoder"].pop("token_embedder")
    batch = golden.arrays("deconly_batch")
    expected = golden.arrays(f"deconly_{mode}_forward")["logits"]
    real = batch["decoder_segment_ids"] != 0
    logits = np.asarray(forward(config, params, batch))
    np.testing.assert_allclose(logits[real], expected[real], rtol=1e-4, atol=2e-5)


def test_a_window_hides_what_is_further_back(draw, forward):
    config = dataclasses.replace(TINY, sliding_window=2, num_layers=1)
    batch = {"decoder_input_tokens": np.array([[5, 6, 7, 8, 9], [4, 6, 7, 8, 9]])}
    one, other = forward(config, draw(config), batch)
    changed = np.abs(one - other).max(-1) > 0
    assert changed.tolist() == [True, True, False, False, False]


def test_llama_3_1_s_frequencies_are_the_published_ones():
    """Base 500,000, heads of 128, factor 8 over 8,192 positions; radians a position.

    Wavelengths below 2,048 stay, above 8,192 are divided by 8, between: a blend.
    """
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    plain = 500_000.0 ** -(np.arange(0, 128, 2) / 128)
    scaled = scaling.apply(plain)
    wavelength = 2 * np.pi / plain
    short, long = wavelength < 2048, wavelength > 8192
    assert np.allclose(scaled[short], plain[short])
    assert np.allclose(scaled[long], plain[long] / 8)
    between = ~short & ~long
    smooth = (8192 / wavelength[between] - 1.0) / (4.0 - 1.0)
    blend = (1 - smooth) * plain[between] / 8 + smooth * plain[between]
    assert between.any() and np.allclose(scaled[between], blend)


def test_linear_scaling_is_the_same_as_positions_divided():
    positions = jnp.arange(8)[None]
    scaled = rotary_tables(positions, 8, 1e4, RopeScaling("linear", 4.0))
    divided = rotary_tables(positions / 4.0, 8, 1e4)
    np.testing.assert_allclose(scaled, divided, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        (dict(positions="relativ"), "positions", "Did you mean 'relative'"),
        (dict(head_dim=7), "head_dim", "turn pairs"),
        (dict(sliding_window=0), "sliding_window", "sliding_window is 0"),
        (dict(relpos_buckets=2), "relpos_buckets", "2 distance buckets"),
        (dict(relpos_max_distance=16), "relpos_buckets", "distances up to 16"),
        (
            dict(positions="relative", rope_scaling=RopeScaling("linear", 2.0)),
            "rope_scaling",
            "says nothing",
        ),
        (
            dict(scale_tied_logits=True, logits_via_embedding=False),
            "scale_tied_logits",
            "not tied",
        ),
    ],
)
def test_choices_that_contradict_each_other_are_refused(changes, field, says):
    with pytest.raises(ConfigError, match=says) as refused:
        dataclasses.replace(TINY, **changes)
    assert f"DecoderConfig.{field}" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("llama", 8.0), "Did you mean 'llama3'"),
        (("linear", 0.5), "factor is 0.5"),
        (("llama3", 8.0, 4.0, 1.0), "low_freq_factor"),
    ],
)
def test_a_scaling_of_positions_that_means_nothing_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        RopeScaling(*settings)
