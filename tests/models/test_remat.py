"""What the backward pass keeps changes its memory, never its numbers."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import REMAT_POLICIES
from flanjax.models.loss import LossConfig, loss_and_metrics
from flanjax.models.t5 import T5Config

SIZES = {
    "t5": T5Config(32, 16, 2, 8, 32, 2, 2, dropout_rate=0.1),
    "decoder": DecoderConfig(32, 16, 2, 1, 8, 32, 2, dropout_rate=0.1),
}


def batch_of(family):
    tokens = np.random.default_rng(0).integers(2, 32, (2, 8), np.int32)
    batch = {"decoder_input_tokens": tokens, "decoder_target_tokens": tokens}
    return batch | ({"encoder_input_tokens": tokens} if family == "t5" else {})


@functools.cache
def gradients(family, policy):
    plain = build_model(SIZES[family])
    model = build_model(dataclasses.replace(plain.config, remat_policy=policy))
    params, _ = init_params(plain, jax.random.key(0))

    def loss(params):
        return loss_and_metrics(
            model,
            params,
            batch_of(family),
            LossConfig(),
            dropout_rng=jax.random.PRNGKey(1),
        )[0]

    return jax.device_get(jax.jit(jax.grad(loss))(params))


def assert_same(family, policy):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        gradients(family, policy),
        gradients(family, "none"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("policy", [p for p in REMAT_POLICIES if p != "none"])
def test_every_policy_gives_the_same_gradients(family, policy):
    assert_same(family, policy)


def test_an_unknown_policy_lists_those_there_are():
    with pytest.raises(ConfigError, match="Did you mean 'minimal'") as caught:
        DecoderConfig(32, 16, 2, 2, 8, 32, 2, remat_policy="minimall")
    assert "save_dot_except_mlpwi" in caught.value.fix
