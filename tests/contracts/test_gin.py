"""Every gin file parses, every recipe says what it needs, and mistakes are named."""

import itertools
import math
import re
from pathlib import Path

import pytest

from flanjax.config import load_config
from flanjax.errors import ConfigError
from flanjax.train.flops import run_cost
from flanjax.train.paper_runs import PAPER_RUNS
from flanjax.train.peak import PEAKS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "gin/recipes").rglob("*.gin"))
PARTS = sorted(
    p for kind in ("runs", "models") for p in (ROOT / "gin" / kind).glob("*")
)
TINY = "gin/recipes/tiny.gin"
# Table 22 of https://arxiv.org/abs/2210.11416: dropout and learning rate.
PUBLISHED = {
    **{f"flan_t5_{size}": (0.05, 5e-4) for size in "small base large xl xxl".split()},
    "flan_palm_8b": (0.05, 3e-3),
    "flan_palm_62b": (0.05, 3e-3),
    "flan_palm_540b": (0.1, 1e-3),
    "flan_cont_palm_62b": (0.05, 3e-3),
    "flan_u_palm_540b": (0.1, 1e-3),
}


def _load(*bindings, files=(TINY,)):
    return load_config(files, ["MODEL_DIR=unused", *bindings], [str(ROOT)])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_and_states_command_hardware_time_and_result(path):
    config, text = _load(files=[str(path)])
    assert config.train_steps > 0
    head = path.read_text().split("\ninclude")[0]
    for word in ("command:", "hardware:", "time:", "expect:"):
        assert word in head


def test_every_other_file_is_part_of_one_that_is_loaded_here_or_with_the_sizes():
    texts = [path.read_text() for path in (*RECIPES, *PARTS)]
    for path in PARTS:
        name = path.relative_to(ROOT).as_posix()
        included = any(f'include "{name}"' in text for text in texts)
        assert included or " parameters" in path.read_text().splitlines()[0], name


@pytest.mark.parametrize("run", PAPER_RUNS, ids=lambda run: run.recipe)
def test_a_recipe_of_the_paper_has_its_settings(run):
    config, _ = _load(files=[f"gin/recipes/{run.recipe}.gin"])
    assert (config.train_steps, config.data.batch_size) == (run.steps, run.batch)
    rate = config.optimizer.schedule
    assert (config.model.dropout_rate, rate.base_learning_rate) == PUBLISHED[run.recipe]
    assert (config.optimizer.name, rate.factors) == ("adafactor", "constant")
    assert config.data.packing and config.prepare.mixture == "flan2022"
    assert sum(config.data.feature_lengths.values()) == 2560
    start = config.initial_checkpoint
    assert start.startswith("t5x:") and start.split("/")[1].startswith(
        run.recipe.removeprefix("flan_").replace("t5_", "t5_1_1_lm100k_")
    )


@pytest.mark.parametrize("run", PAPER_RUNS, ids=lambda run: run.recipe)
def test_hours_tokens_and_flops_of_a_recipe_are_computed(run):
    path = ROOT / f"gin/recipes/{run.recipe}.gin"
    head, cost = path.read_text(), run_cost(_load(files=[str(path)])[0])
    hardware = re.search(r"hardware: (\d+) x (TPU v4) as", head)
    assert hardware
    peak = int(hardware[1]) * dict(PEAKS)[hardware[2]]
    for line in (
        f"time:     {cost.hours(peak, 0.4):.1f} h at 40 % of their peak (assumed)",
        f"tokens:   {cost.tokens / 1e9:.2f} B in {cost.rows / 1e6:.2f} M packed rows",
        f"flops:    {cost.flops:.2e} in matrix products; "
        f"by the paper's count {run.finetune_flops:.2e},",
        f"printed there as {run.finetune_printed:.1e}",
        "Not run here",
    ):
        assert line in head
    if run.recipe == "flan_palm_540b":  # The one whose hours the paper gives.
        assert f"{cost.hours(peak, 1.0) / 37:.0%}" == "30%"


@pytest.mark.parametrize("run", PAPER_RUNS, ids=lambda run: run.recipe)
def test_the_mesh_of_a_recipe_suits_its_batch_its_heads_and_its_hardware(run):
    path = ROOT / f"gin/recipes/{run.recipe}.gin"
    config, _ = _load(files=[str(path)])
    mesh = config.mesh
    hardware = re.search(r"hardware: (\d+) x TPU v4 as (\S+)", path.read_text())
    assert hardware
    chips, shape = int(hardware[1]), [int(size) for size in hardware[2].split("x")]
    copies = chips // (mesh.fsdp * mesh.tensor)
    assert config.data.batch_size % (copies * mesh.fsdp) == 0
    assert config.model.num_heads % mesh.tensor == 0
    # On TPUs an axis of the mesh is made of whole axes of the machine.
    found = []
    for owners in itertools.product(range(3), repeat=3):
        pairs = list(zip(owners, shape, strict=True))
        found.append([math.prod(s for o, s in pairs if o == i) for i in range(3)])
    assert [copies, mesh.fsdp, mesh.tensor] in found


@pytest.mark.slow
def test_every_recipe_s_mixture_and_evaluations_exist():
    import importlib

    import seqio

    from flanjax.eval.suites import resolve_evals

    for path in RECIPES:
        prepare = _load(files=[str(path)])[0].prepare
        for module in prepare.mixture_modules:
            importlib.import_module(module)
        assert seqio.get_mixture_or_task(prepare.mixture)
        assert resolve_evals(prepare.evals)


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
