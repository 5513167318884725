import dataclasses

import jax
import numpy as np
import pytest

from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.lora import LoraConfig, is_lora
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.state import init_state, merge_params
from flanjax.train.trees import flatten

pytestmark = pytest.mark.parametrize("family", ["decoder"], indirect=True)


@pytest.fixture
def given(model):
    """Weights from elsewhere, on the host."""
    rng = np.random.default_rng(0)
    shapes = abstract_params(model)[0]
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def test_given_weights_are_kept_and_adapters_they_lack_are_fresh(model, given):
    model = build_model(dataclasses.replace(model.config, lora=LoraConfig(rank=2)))
    optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
    mesh = make_mesh(MeshConfig(2, 2, 2))
    key = jax.random.PRNGKey(0)
    state = init_state(model, optimizer, key, mesh, params=given, trainable=is_lora)
    merged = flatten(jax.device_get(merge_params(state.params, state.frozen)))
    for name, value in flatten(given).items():
        np.testing.assert_array_equal(merged[name], value, err_msg=name)
    assert {name.rsplit("/")[-1] for name in flatten(state.params)} == {
        "lora_a",
        "lora_b",
    }
    assert set(flatten(state.frozen)) == set(flatten(given))


def test_given_weights_survive_the_donation_of_the_state(model, given):
    optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    on_device = jax.device_put(given, jax.devices()[0])
    for params in (given, on_device):
        key = jax.random.PRNGKey(0)
        state = init_state(model, optimizer, key, mesh, params=params)
        double = jax.jit(lambda t: jax.tree.map(lambda x: 2 * x, t), donate_argnums=0)
        jax.block_until_ready(double(state.params))
        again = flatten(jax.device_get(params))
        for name, value in flatten(given).items():
            np.testing.assert_array_equal(again[name], value)


def test_weights_of_another_size_name_the_parameter(model, given):
    optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    given["token_embedder"]["embedding"] = np.zeros((65, 16), np.float32)
    with pytest.raises(
        CheckpointError, match=r"token_embedder/embedding is \(65, 16\)"
    ):
        init_state(model, optimizer, jax.random.PRNGKey(0), mesh, params=given)
