"""Recorded T5X numbers as the model tests need them."""

import jax
import numpy as np
import pytest

from flanjax.models.build import abstract_params, build_model
from flanjax.models.layers import stack_layers
from flanjax.models.t5 import T5Config


def nested(path):
    tree = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            *parents, leaf = name.split("/")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[leaf] = arrays[name]
    return tree


class Golden:
    """Reads the recorded files of one directory."""

    config = T5Config(
        vocab_size=384,
        emb_dim=32,
        num_heads=2,
        head_dim=16,
        mlp_dim=64,
        num_encoder_layers=2,
        num_decoder_layers=2,
    )

    def __init__(self, directory):
        self.directory = directory

    def arrays(self, name):
        with np.load(self.directory / f"{name}.npz") as arrays:
            return dict(arrays)

    def params(self, name):
        return stack_layers(nested(self.directory / f"{name}.npz"))


@pytest.fixture(scope="session")
def golden(shared):
    return Golden(shared / "golden" / "t5x")


@pytest.fixture(scope="session")
def forward():
    """Jitted forward pass: (config, params, batch, method) -> array."""

    def run(config, params, batch, method=None):
        model = build_model(config)
        return jax.jit(lambda p, b: model.apply({"params": p}, b, method=method))(
            params, batch
        )

    return run


@pytest.fixture(scope="session")
def draw():
    """Random parameters without a compilation: config -> params."""

    def run(config):
        rng = np.random.default_rng(0)
        shapes, _ = abstract_params(build_model(config))
        return jax.tree.map(
            lambda s: rng.normal(0.0, 0.2, s.shape).astype(np.float32), shapes
        )

    return run
