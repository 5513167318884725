"""Every gin file parses, every recipe says what it needs, and mistakes are named."""

from pathlib import Path

import pytest

from flanjax.config import load_config
from flanjax.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "gin/recipes").rglob("*.gin"))
TINY = "gin/recipes/tiny.gin"


def _load(*bindings, files=(TINY,)):
    return load_config(files, ["MODEL_DIR=unused", *bindings], [str(ROOT)])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_and_states_command_hardware_time_and_result(path):
    config, text = _load(files=[str(path)])
    assert config.train_steps > 0
    head = path.read_text().split("\ninclude")[0]
    for word in ("command:", "hardware:", "time:", "expect:"):
        assert word in head


def test_the_resolved_text_parses_to_the_same_configuration(tmp_path):
    config, text = _load("BATCH_SIZE=24", "OptimizerConfig.name=adafactor")
    (tmp_path / "config.gin").write_text(text)
    again, _ = load_config([str(tmp_path / "config.gin")])
    assert again == config and config.data.batch_size == 24


def test_a_later_binding_wins():
    assert _load("TRAIN_STEPS=5", "TRAIN_STEPS=7")[0].train_steps == 7


def test_a_value_without_quotes_is_a_string():
    assert _load("STORE_DIR=gs-like/path")[0].prepare.store_dir == "gs-like/path"


@pytest.mark.parametrize(
    ("binding", "nearest"),
    [
        ("TRAIN_STEP=5", "TRAIN_STEPS"),
        ("OptimizerConfig.nam='adamw'", "name"),
        ("OptimiserConfig.name='adamw'", "OptimizerConfig"),
        ("LossConfig.label_smoothin=0.1", "label_smoothing"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(binding, nearest):
    with pytest.raises(ConfigError, match=f"Did you mean '{nearest}'"):
        _load(binding)


def test_an_unknown_key_in_a_file_names_file_and_line(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(f'include "{TINY}"\n\nDataConfig.batch_sze = 3\n')
    with pytest.raises(ConfigError, match=r"mine\.gin:3"):
        _load(files=[str(path)])


def test_a_required_macro_left_unset_is_named():
    with pytest.raises(ConfigError, match="MODEL_DIR"):
        load_config([TINY], [], [str(ROOT)])


def test_a_missing_file_is_a_configuration_error():
    with pytest.raises(ConfigError, match="no_such"):
        _load(files=["gin/recipes/no_such.gin"])


def test_a_wrong_macro_in_an_included_file_is_refused(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(f'include "{TINY}"\nBATCHSIZE = 3\n')
    with pytest.raises(ConfigError, match="BATCH_SIZE"):
        _load(files=[str(path)])
