"""What every test shares: eight simulated CPU devices and the shared material."""

import os
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX starts: sharding is tested on every laptop.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tests compile far more than they compute.
    + " --xla_backend_optimization_level=0"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Runs of the tests leave nothing in the user's cache.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded numbers and real data; absent in a fresh clone."""
    path = Path(os.environ.get("FLANJAX_SHARED", "../shared"))
    path = path if path.is_absolute() else ROOT / path
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}: set FLANJAX_SHARED to its folder")
    return path


class Family(NamedTuple):
    """A tiny model of one of the families that Hugging Face files are of.

    Attributes:
      name: as FAMILIES has it.
      config: T5Config or DecoderConfig.
      params: nested dict of random float32 arrays, none of them constant.
    """

    name: str
    config: Any
    params: Any


FAMILIES = (
    "t5_1_0",  # Tied head, scaled.
    "t5_1_1",
    "llama2",
    "llama3",  # Grouped queries, scaled rotary positions, a tied head.
    "llama_linear",
    "mistral",  # A window shorter than most texts.
    "qwen2",
    "qwen2_untied",
)


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    """Each family in turn."""
    import jax
    import numpy as np

    from flanjax.models.build import abstract_params, build_model

    config = family_config(request.param)
    draw = np.random.default_rng(0)

    def leaf(path, shape):
        noise = draw.normal(0, 0.3, shape.shape).astype(np.float32)
        return noise + (path[-1].key == "scale")

    shapes, _ = abstract_params(build_model(config))
    return Family(request.param, config, jax.tree_util.tree_map_with_path(leaf, shapes))


def family_config(name: str) -> Any:
    """The configuration of a tiny model of one family."""
    import dataclasses

    from flanjax.models.decoder import DecoderConfig
    from flanjax.models.rotary import RopeScaling
    from flanjax.models.t5 import T5Config

    if name.startswith("t5"):
        t5 = T5Config(
            vocab_size=64,
            emb_dim=32,
            num_heads=4,
            head_dim=8,
            mlp_dim=48,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dropout_rate=0.1,
        )
        old = {"mlp_activations": ("relu",), "logits_via_embedding": True}
        return dataclasses.replace(t5, **(old if name == "t5_1_0" else {}))
    llama2 = DecoderConfig(
        vocab_size=64,
        emb_dim=32,
        num_heads=4,
        num_kv_heads=4,
        head_dim=8,
        mlp_dim=48,
        num_layers=2,
        logits_via_embedding=False,
    )
    # Short wavelengths, a blend and long ones, among a head's eight.
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, original_length=64)
    changes: dict[str, dict[str, Any]] = {
        "llama2": {},
        "llama3": {
            "num_kv_heads": 2,
            "head_dim": 16,
            "rope_base": 5e5,
            "rope_scaling": scaling,
            "logits_via_embedding": True,
        },
        "llama_linear": {"rope_scaling": RopeScaling("linear", 4.0)},
        "mistral": {"num_kv_heads": 2, "sliding_window": 5, "rope_base": 1e6},
        "qwen2": {
            "num_kv_heads": 2,
            "qkv_bias": True,
            "rope_base": 1e6,
            "norm_epsilon": 1e-6,
            "logits_via_embedding": True,
        },
        "qwen2_untied": {"num_kv_heads": 2, "qkv_bias": True},
    }
    return dataclasses.replace(llama2, **changes[name])
