"""What every test shares: eight simulated CPU devices and the shared material."""

import os
from pathlib import Path

# Before JAX starts: sharding is tested on every laptop.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tests compile far more than they compute.
    + " --xla_backend_optimization_level=0"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
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
