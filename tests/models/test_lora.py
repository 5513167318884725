import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flanjax.decode.sample import greedy
from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import Dense
from flanjax.models.lora import LoraConfig, check_adapters, is_lora, merge_lora
from flanjax.models.loss import LossConfig, loss_and_metrics
from flanjax.models.t5 import T5Config

PLAIN = DecoderConfig(32, 16, 4, 2, 8, 24, 2)
LORA = LoraConfig(rank=2, alpha=6.0)
ADAPTED = dataclasses.replace(PLAIN, lora=LORA)
T5 = T5Config(32, 16, 2, 8, 24, 2, 2)
TOKENS = np.array([[5, 6, 7, 8]])
BATCH = {
    "encoder_input_tokens": TOKENS,
    "decoder_input_tokens": TOKENS,
    "decoder_target_tokens": TOKENS,
    "decoder_causal_attention": np.zeros_like(TOKENS),
}
VARIANTS = {
    "T5 1.1": T5,
    "T5 1.0": dataclasses.replace(
        T5, mlp_activations=("relu",), logits_via_embedding=True
    ),
    "Llama": PLAIN,
    "biases": dataclasses.replace(PLAIN, qkv_bias=True),
    "parallel block": dataclasses.replace(PLAIN, parallel_block=True),
    "relative positions": dataclasses.replace(PLAIN, positions="relative"),
    "unscanned": dataclasses.replace(PLAIN, scan_layers=False),
}


def names(params):
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [tuple(key.key for key in path) for path, _ in flat]


def test_a_fresh_adapter_changes_nothing():
    lora = LoraConfig(rank=2, targets=["wo"])
    config = dataclasses.replace(PLAIN, lora=lora, num_layers=1)
    fresh, _ = init_params(build_model(config), jax.random.key(0))
    merged = merge_lora(fresh, config)
    assert not any(is_lora(name) for name in names(merged))
    before, after = (tree["decoder"]["layers"]["mlp"]["wo"] for tree in (fresh, merged))
    assert np.any(before["lora_a"])
    np.testing.assert_array_equal(before["kernel"], after["kernel"])


FAST = ("T5 1.1", "biases")
FAMILIES = [
    pytest.param(config, id=name, marks=[] if name in FAST else [pytest.mark.slow])
    for name, config in VARIANTS.items()
]


@pytest.mark.parametrize("plain", FAMILIES)
def test_merged_kernels_are_the_same_function(plain, draw, forward):
    adapted = dataclasses.replace(plain, lora=LORA)
    trained = draw(adapted)
    merged = merge_lora(trained, adapted)
    shapes, _ = abstract_params(build_model(plain))
    assert names(merged) == names(shapes)
    # Every kernel inside the layers has an adapter, which does something.
    kernels = [
        n for n in names(shapes) if n[-1] == "kernel" and "logits_dense" not in n
    ]
    assert len([n for n in names(trained) if n[-1] == "lora_a"]) == len(kernels)
    logits, expected = forward(adapted, trained, BATCH), forward(plain, merged, BATCH)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    zeros = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (path[-1].key != "lora_b"), trained
    )
    assert np.abs(forward(adapted, zeros, BATCH) - logits).max() > 1e-2


def test_targets_choose_the_kernels_that_are_adapted():
    config = dataclasses.replace(
        PLAIN, lora=LoraConfig(rank=2, targets=["self_attention/(query|value)"])
    )
    params, axes = abstract_params(build_model(config))
    check_adapters(config.lora, params)
    adapted = {name[-2] for name in names(params) if is_lora(name)}
    assert adapted == {"query", "value"}
    assert params["decoder"]["layers"]["self_attention"]["query"]["lora_a"].shape == (
        2,
        16,
        2,
    )
    query = axes["decoder"]["layers"]["self_attention"]["query"]
    assert query["lora_b"] == ("layers", "lora_rank", "joined_kv")


def test_targets_that_name_the_layers_hold_when_decoding_runs_them_one_by_one(draw):
    """The cached decoder's log-probability of its text is the model's."""
    lora = dataclasses.replace(LORA, targets=["decoder/layers/mlp/.*"])
    config = dataclasses.replace(PLAIN, lora=lora)
    params, model = draw(config), build_model(config)
    tokens = np.array([[5, 6, 7, 8, 9, 10]])
    prompts = {"decoder_input_tokens": jnp.asarray(tokens), "lengths": jnp.array([6])}
    chosen, score = greedy(model, params, prompts, 4, eos_id=-1)
    text = np.concatenate([tokens, chosen], axis=1)
    batch = {"decoder_input_tokens": text, "decoder_target_tokens": text}
    logits = jax.jit(model.apply)({"params": params}, batch)
    best = jax.nn.log_softmax(logits[0, 5:-1]).max(axis=-1)
    np.testing.assert_allclose(score[0], best.sum(), atol=1e-4)


def adapted_loss(config):
    """(parameters, key of dropout or None) -> the loss of a row."""
    model = build_model(config)

    @jax.jit
    def loss(params, key=None):
        return loss_and_metrics(model, params, BATCH, LossConfig(), dropout_rng=key)[0]

    return loss


@pytest.mark.parametrize(
    ("plain", "remat"),
    [pytest.param(T5, "full", marks=pytest.mark.slow), (PLAIN, "none")],
    ids=["t5", "decoder"],
)
def test_adapter_dropout_is_drawn_in_training_steps_alone(plain, remat, draw):
    dropping = dataclasses.replace(
        plain,
        dropout_rate=0.0,
        remat_policy=remat,
        lora=dataclasses.replace(LORA, dropout=0.5),
    )
    keeping = dataclasses.replace(dropping, lora=LORA)
    params = draw(dropping)
    loss, without = adapted_loss(dropping), adapted_loss(keeping)
    one, two = jax.random.key(1), jax.random.key(2)
    evaluated = loss(params)
    assert evaluated == without(params) == without(params, one)
    assert loss(params, one) == loss(params, one)
    assert (
        len({float(x) for x in (evaluated, loss(params, one), loss(params, two))}) == 3
    )


def test_adapter_dropout_leaves_the_frozen_kernel_its_whole_input(draw):
    """With B zero the adapter adds nothing, whatever of its input is dropped."""
    config = dataclasses.replace(PLAIN, lora=dataclasses.replace(LORA, dropout=0.9))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (path[-1].key != "lora_b"), draw(config)
    )
    loss = adapted_loss(config)
    assert loss(params, jax.random.key(1)) == loss(params)


class Widening(nn.Module):
    """One product with an adapter: targets go by a module's name."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x):
        return Dense(8, ("embed", "mlp"), self.config, name="wi")(x)


def test_dropped_inputs_are_scaled_so_that_the_mean_is_the_adapter():
    """A single product: over many keys its mean is the term without dropout."""
    lora = LoraConfig(rank=2, alpha=2.0, targets=["wi"], dropout=0.25)
    config = dataclasses.replace(PLAIN, lora=lora)
    mlp = Widening(config)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (16, 8), "lora_a": (16, 2), "lora_b": (2, 8)}
    params = {
        k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()
    }
    x = jnp.asarray(rng.normal(size=(1, 16)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 20_000)

    def apply(key):
        return mlp.apply({"params": {"wi": params}}, x, rngs={"dropout": key})

    outputs = jax.jit(jax.vmap(apply))(keys)
    expected = x @ params["kernel"] + x @ params["lora_a"] @ params["lora_b"]
    error = np.std(outputs, axis=0) / np.sqrt(len(keys))
    assert (np.abs(np.mean(outputs, axis=0) - expected) < 5 * error).all()
    assert (error > 0).all()


BAD_SETTINGS = {
    "rank": ({"rank": -1}, "rank is -1"),
    "dropout": ({"dropout": 1.0}, "dropout is 1.0"),
    "pattern": ({"targets": ["mlp/(wo"]}, r"'mlp/\(wo' is no regular expression"),
    "one text": ({"targets": "mlp/wo"}, "one text, not a list"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**fields)


BAD_TARGETS = {
    "nothing": ({"targets": ["atention/query"]}, "Did you mean 'self_attention/query'"),
    "one of two": ({"targets": ["mlp/.*", "q_proj"]}, "'q_proj' matches no kernel"),
    "head": ({"targets": ["logits_dense"]}, "matches the output head"),
    "everything": ({"targets": [".*"]}, "cannot have an adapter"),
    "embedding": ({"targets": ["token_embedder/embedding"]}, "the embedding"),
    "large rank": ({"rank": 17}, "rank is 17, but .* has a kernel of 16 x"),
    "fits some": ({"rank": 17, "targets": ["query"]}, "rank of 16 or less"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_adapters_that_do_not_fit_the_model_are_refused(fields, message):
    plain = dataclasses.replace(PLAIN, logits_via_embedding=False)
    shapes, _ = abstract_params(build_model(plain))
    with pytest.raises(ConfigError, match=message) as error:
        check_adapters(LoraConfig(**{"rank": 2} | fields), shapes)
    assert error.value.exit_code == 2
