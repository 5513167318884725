"""What the tests of whole runs share."""

from pathlib import Path

import pytest

from flanjax.cli import main

RECIPE = Path(__file__).resolve().parents[2] / "gin/recipes/tiny.gin"


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The tiny mixture, prepared once: most of it is loading TensorFlow."""
    path = tmp_path_factory.mktemp("store")
    flags = [f"--gin_file={RECIPE}", f"--gin.STORE_DIR={path}"]
    assert main(["data", "prepare", *flags]) == 0
    return path
