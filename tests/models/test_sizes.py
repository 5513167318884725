"""Every published size has its published number of parameters, and says it."""

import math
import re
from pathlib import Path

import jax
import pytest

from flanjax.config import load_config
from flanjax.models.build import abstract_params, build_model

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "gin/models"
TINY = "gin/recipes/tiny.gin"
# Shared by sizes, and one that has none outside flanjax.
NO_SIZE = ("decoder", "t5_1_1", "palm", "t5_tiny")
PUBLISHED = {
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "palm_8b": 8_630_000_000,
    "palm_62b": 62_500_000_000,
    "palm_540b": 540_350_000_000,
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_1_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "mistral_7b": 7_241_732_096,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_7b": 7_615_616_512,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
}


def test_every_size_is_in_the_table():
    files = {path.stem for path in MODELS.glob("*.gin")}
    assert files == {*PUBLISHED, *NO_SIZE}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_size_has_the_published_number_of_parameters(name):
    path = MODELS / f"{name}.gin"
    # A model's file is one of a run's: here of a run that needs nothing.
    config, _ = load_config([TINY, str(path)], ["MODEL_DIR=unused"], [str(ROOT)])
    shapes, _ = abstract_params(build_model(config.model))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    # PaLM's paper gives three to five digits: 8.63, 62.50 and 540.35 billion.
    rounding = 0.0003 if name.startswith("palm") else 0.0
    assert count == pytest.approx(PUBLISHED[name], rel=rounding, abs=0)
    said = re.search(r"([\d,]{9,}) parameters", path.read_text())
    assert said and int(said[1].replace(",", "")) == count
