import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.loss import NORMALIZERS, LossConfig, loss_and_metrics, normalizer

RECORDED_NAMES = {
    "none": None,
    "const233": 233.0,
    "num_real": "num_real_target_tokens",
    "num_total": "num_total_target_tokens",
    "avg_per_seq": "average_per_sequence",
}

TINY = DecoderConfig(32, 16, 2, 1, 8, 24, 1)


def normalized(model, params, batch, config):
    loss, sums = loss_and_metrics(model, params, batch, config)
    return loss / normalizer(config, sums), sums["z_loss"] / normalizer(config, sums)


@pytest.mark.slow  # `verify golden` has its own fast test.
def test_every_normalization_and_smoothing_equals_t5x(golden):
    model, params = build_model(golden.config), golden.params("params")
    batch, recorded = golden.arrays("batch"), golden.arrays("forward")
    custom = batch | {"decoder_loss_weights": recorded["custom_loss_weights"]}
    unpacked = {k: v for k, v in batch.items() if not k.endswith(("ids", "positions"))}

    @jax.jit
    def everything():
        results = {}
        for name, value in RECORDED_NAMES.items():
            for smoothing in (0.0, 0.1):
                config = LossConfig(label_smoothing=smoothing, normalizer=value)
                pair = normalized(model, params, batch, config)
                results[f"loss/ls{smoothing}/{name}"] = pair[0]
                results[f"z_loss/ls{smoothing}/{name}"] = pair[1]
        for name in ("none", "num_real"):
            config = LossConfig(normalizer=RECORDED_NAMES[name])
            pair = normalized(model, params, custom, config)
            results[f"loss/custom_weights/{name}"] = pair[0]
        no_z_loss = LossConfig(z_loss=0.0)
        results["loss/ls0.0/noz"] = normalized(model, params, batch, no_z_loss)[0]
        plain = LossConfig()
        results["loss_unpacked_view"] = normalized(model, params, unpacked, plain)[0]
        return results

    for name, value in everything().items():
        np.testing.assert_allclose(value, recorded[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow  # `verify golden` has its own fast test.
def test_gradients_equal_t5x(golden):
    model, batch = build_model(golden.config), golden.arrays("batch")
    smoothed = LossConfig(label_smoothing=0.1, normalizer=NORMALIZERS[0])
    configs = {"grads": LossConfig(chunk_tokens=5), "grads_ls0.1_num_real": smoothed}
    gradients = jax.jit(
        lambda params: {
            name: jax.grad(lambda p: normalized(model, p, batch, config)[0])(params)  # noqa: B023
            for name, config in configs.items()
        }
    )(golden.params("params"))
    for name, gradient in gradients.items():
        jax.tree.map(
            lambda value, recorded: np.testing.assert_allclose(
                value, recorded, rtol=1e-3, atol=1e-5 * np.abs(recorded).max()
            ),
            gradient,
            golden.params(name),
        )


def decoder_batch():
    rng = np.random.default_rng(0)
    weights = np.zeros((3, 10), np.float32)
    weights[0, 3:6], weights[1, 9], weights[2, ::2] = 1, 1, 0.5
    return {
        "decoder_input_tokens": rng.integers(0, 32, (3, 10)),
        "decoder_target_tokens": rng.integers(0, 32, (3, 10)),
        "decoder_loss_weights": weights,
    }


def plain_loss(model, params, batch):
    logits = model.apply({"params": params}, batch)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    targets = jnp.asarray(batch["decoder_target_tokens"])
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    right = jnp.argmax(logits, axis=-1) == targets
    weights = batch["decoder_loss_weights"]
    loss = jnp.sum((log_z - chosen + 1e-4 * log_z**2) * weights)
    return loss, jnp.sum(right * weights)


@pytest.fixture(scope="module")
def scored(draw):
    """Batch -> ((loss, sums), gradient) in chunks of 4, compiled once."""
    model, params = build_model(TINY), draw(TINY)
    config = LossConfig(chunk_tokens=4)
    return jax.jit(
        lambda batch: jax.value_and_grad(
            lambda p: loss_and_metrics(model, p, batch, config), has_aux=True
        )(params)
    )


def test_chunks_change_neither_loss_nor_gradient_nor_accuracy(draw, scored):
    model, batch = build_model(TINY), decoder_batch()
    (expected, correct), expected_gradient = jax.jit(
        jax.value_and_grad(lambda p: plain_loss(model, p, batch), has_aux=True)
    )(draw(TINY))
    (loss, sums), gradient = scored(batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert sums["correct"] == correct
    assert sums["weight_sum"] == 6.5
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        gradient,
        expected_gradient,
    )


def test_sums_over_parts_of_a_batch_add_up_to_its_sum(scored):
    batch = decoder_batch()
    total = 0.0
    for row in range(3):
        weights = np.zeros_like(batch["decoder_loss_weights"])
        weights[row] = batch["decoder_loss_weights"][row]
        total += scored(batch | {"decoder_loss_weights": weights})[0][0]
    np.testing.assert_allclose(total, scored(batch)[0][0], rtol=1e-6)


def test_a_batch_without_loss_weight_has_no_loss_and_no_gradient(scored):
    weights = np.zeros((3, 10), np.float32)
    (loss, _), gradient = scored(decoder_batch() | {"decoder_loss_weights": weights})
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_logits_of_all_positions_are_never_in_memory():
    model = build_model(DecoderConfig(4096, 16, 2, 1, 8, 24, 1))
    params, _ = abstract_params(model)
    batch = {
        name: np.ones((2, 256), np.int32)
        for name in ("decoder_input_tokens", "decoder_target_tokens")
    }
    loss = lambda p: loss_and_metrics(model, p, batch, LossConfig(chunk_tokens=16))[0]  # noqa: E731
    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    all_logits = 2 * 256 * 4096 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < all_logits


def test_an_unknown_normalizer_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="average_per_sequence"):
        LossConfig(normalizer="average_per_sequences")
