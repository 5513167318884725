"""Tiny models of both families, and a packed batch for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.schedules import ScheduleConfig
from flanjax.train.state import init_state

T5 = T5Config(64, 16, 2, 8, 32, 2, 2)
DECODER = DecoderConfig(64, 16, 2, 2, 8, 32, 2)
BATCH, LENGTH = 16, 12


def _packed(rng: np.random.Generator, prefix: str) -> dict[str, np.ndarray]:
    """Rows of two segments and some padding."""
    segments = np.zeros((BATCH, LENGTH), np.int32)
    for row in segments:
        first, second = rng.integers(2, 5), rng.integers(6, LENGTH)
        row[:second] = 2
        row[:first] = 1
    starts = (segments == 2).argmax(axis=1)[:, None] * (segments == 2)
    positions = (np.arange(LENGTH) - starts) * (segments > 0)
    return {f"{prefix}_segment_ids": segments, f"{prefix}_positions": positions}


def _tokens(rng: np.random.Generator, segments: np.ndarray) -> np.ndarray:
    return (rng.integers(2, 64, segments.shape) * (segments > 0)).astype(np.int32)


@pytest.fixture(params=["t5", "decoder"])
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family: str):
    return build_model(T5 if family == "t5" else DECODER)


@pytest.fixture
def batch(family: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    batch = _packed(rng, "decoder")
    segments = batch["decoder_segment_ids"]
    batch["decoder_target_tokens"] = _tokens(rng, segments)
    batch["decoder_input_tokens"] = _tokens(rng, segments)
    # Weights differ much between rows: a mean of means would be another number.
    batch["decoder_loss_weights"] = (
        (segments > 0)
        * (rng.random(segments.shape) < np.linspace(0.1, 1, BATCH)[:, None])
    ).astype(np.int32)
    if family == "t5":
        batch |= _packed(rng, "encoder")
        batch["encoder_input_tokens"] = _tokens(rng, batch["encoder_segment_ids"])
    else:
        batch["decoder_causal_attention"] = np.zeros_like(segments)
    return batch


@functools.cache
def _state(model, mesh, trainable, settings):
    optimizer = make_optimizer(
        OptimizerConfig(**dict(settings)), abstract_params(model)[1]
    )
    rng = jax.random.PRNGKey(0)
    return optimizer, init_state(model, optimizer, rng, mesh, trainable=trainable)


@pytest.fixture
def make_state(model):
    """(mesh, trainable, model, **optimiser settings) -> (optimiser, fresh state)."""

    def make(mesh=None, trainable=None, model=model, **settings):
        mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
        settings.setdefault("schedule", ScheduleConfig("constant", 0.01))
        # Compiled once for each model; steps donate what they get, hence the copy.
        args = (model, mesh, trainable, tuple(settings.items()))
        optimizer, state = _state(*args)
        return optimizer, jax.tree.map(jnp.copy, state)

    return make
