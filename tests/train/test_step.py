import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.models.build import build_model
from flanjax.models.lora import LoraConfig, is_lora
from flanjax.models.loss import LossConfig
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.state import abstract_state, merge_params, state_shardings
from flanjax.train.step import make_train_step

MEAN = LossConfig(normalizer="num_real_target_tokens")


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@functools.cache
def compiled(model, optimizer, mesh, microbatches=1, trainable=None):
    """One compilation for all tests that take the same step."""
    shardings = state_shardings(abstract_state(model, optimizer, mesh, trainable))
    return make_train_step(
        model, optimizer, MEAN, mesh, shardings, microbatches=microbatches
    )


def train(model, optimizer, state, batch, mesh, steps=5, **kwargs):
    step = compiled(model, optimizer, mesh, **kwargs)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


def assert_same_params(got, want, atol):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
        jax.device_get(got.params),
        jax.device_get(want.params),
    )


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_microbatches_equal_one_batch_token_for_token(model, batch, make_state):
    """Though the parts have different numbers of weighted tokens."""
    optimizer, state = make_state()
    _, again = make_state()
    whole, losses = train(model, optimizer, state, batch, one_device())
    parts, part_losses = train(
        model, optimizer, again, batch, one_device(), microbatches=4
    )
    np.testing.assert_allclose(part_losses, losses, rtol=1e-6)
    assert_same_params(parts, whole, 2e-6)


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_a_sharded_start_has_the_values_of_one_device(make_state):
    _, alone = make_state()
    _, many = make_state(make_mesh(MeshConfig(2, 2, 2)))
    kernel = many.params["decoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 8, 16)
    assert_same_params(many, alone, 0)


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_a_step_that_is_not_finite_changes_only_the_step(model, batch, make_state):
    optimizer, state = make_state()
    scale = state.params["decoder"]["decoder_norm"]["scale"]
    state.params["decoder"]["decoder_norm"]["scale"] = scale.at[0].set(np.nan)
    before = jax.device_get(state)
    step = compiled(model, optimizer, one_device())
    state, metrics = step(state, batch)
    assert float(metrics["skipped"]) == 1.0 and not np.isfinite(metrics["loss"])
    after = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, after, before.replace(step=np.int32(1)))
    # Mended, the same state trains on.
    state.params["decoder"]["decoder_norm"]["scale"] = jnp.ones(16)
    state, metrics = step(state, batch)
    assert float(metrics["skipped"]) == 0.0 and int(state.step) == 2


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_lora_trains_adapters_and_leaves_the_frozen_weights_in_place(
    model, batch, make_state
):
    config = dataclasses.replace(model.config, lora=LoraConfig(rank=2))
    model = build_model(config)
    optimizer, state = make_state(model=model, trainable=is_lora)
    frozen = jax.tree.leaves(state.frozen)
    adapters = jax.device_get(state.params)
    trained, losses = train(
        model, optimizer, state, batch, one_device(), steps=3, trainable=is_lora
    )
    assert losses[-1] < losses[0]
    # The very same buffers, not copies, and no moments for them.
    assert all(
        a is b for a, b in zip(frozen, jax.tree.leaves(trained.frozen), strict=True)
    )
    assert len(jax.tree.leaves(trained.opt_state.v)) == len(jax.tree.leaves(adapters))
    assert len(jax.tree.leaves(merge_params(trained.params, trained.frozen))) == len(
        frozen
    ) + len(jax.tree.leaves(adapters))


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_dropout_depends_on_the_step(model, batch, make_state):
    model = build_model(dataclasses.replace(model.config, dropout_rate=0.3))
    optimizer, _ = make_state(model=model)
    step = compiled(model, optimizer, one_device())
    losses = set()
    for number in (0, 1, 0):
        _, fresh = make_state(model=model)
        fresh = fresh.replace(step=jnp.int32(number))
        losses.add(float(step(fresh, batch)[1]["loss"]))
    assert len(losses) == 2
