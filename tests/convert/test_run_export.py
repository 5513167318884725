"""What `flanjax convert export` writes of runs that train only a part of the model."""

import contextlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from flanjax.cli import main
from flanjax.config import load_config
from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import open_weights
from flanjax.models.build import abstract_params, build_model
from flanjax.models.lora import LoraConfig, merge_lora
from flanjax.models.t5 import T5Config
from flanjax.train.checkpoint import Checkpointer
from flanjax.train.initial import initial_params
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import make_optimizer
from flanjax.train.state import abstract_state, init_state, merge_params
from flanjax.train.trainable import trainable
from flanjax.train.trees import flatten

RECIPE = str(Path(__file__).resolve().parents[2] / "gin/recipes/tiny.gin")
BASE = T5Config(384, 16, 2, 8, 24, 2, 2)
SIZES = ["emb_dim=16", "num_heads=2", "head_dim=8", "mlp_dim=24"]


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), tree)


@pytest.fixture
def configured(tmp_path):
    """(gin bindings) -> a run directory with a configuration alone, and that."""

    def make(*bindings, source=tmp_path / "base"):
        run = tmp_path / "run"
        where = [f"MODEL_DIR={run}", f"INITIAL_CHECKPOINT_PATH={source}"]
        sizes = [f"T5Config.{size}" for size in SIZES]
        config, text = load_config([RECIPE], [*where, *sizes, *bindings])
        run.mkdir()
        (run / "config.gin").write_text(text)
        return run, config

    return make


@pytest.fixture
def make_run(configured, tmp_path):
    """(gin bindings) -> run directory, its configuration, all its parameters."""
    base = random_like(abstract_params(build_model(BASE))[0], 0)
    save_huggingface(tmp_path / "base", BASE, base)

    def make(*bindings, **source):
        run, config = configured(*bindings, **source)
        model = build_model(config.model)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        trained = trainable(config)
        optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
        abstract = abstract_state(model, optimizer, mesh, trained)
        wanted = merge_params(abstract.params, abstract.frozen)
        params = initial_params(config, model, wanted)
        state = init_state(
            model,
            optimizer,
            jax.random.PRNGKey(config.seed),
            mesh,
            params=params,
            trainable=trained,
        )
        # As if training had changed what it may.
        state = state.replace(params=random_like(state.params, 1))
        with contextlib.closing(Checkpointer(run / "checkpoints")) as checkpointer:
            checkpointer.save(5, state.replace(frozen={}), {}, wait=True)
        return run, config, merge_params(state.params, state.frozen)

    return make


def assert_same(got, want, **tolerance):
    got, want = flatten(got), flatten(want)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, err_msg=name, **tolerance)


@pytest.mark.parametrize(
    "source",
    [{}, pytest.param({"source": "None"}, marks=pytest.mark.slow)],
    ids=["base", "seed"],
)
def test_frozen_parameters_are_in_the_export(make_run, source, tmp_path):
    freeze = 'RunConfig.freeze=["encoder/.*", "embedding"]'
    run, _, params = make_run(freeze, **source)
    assert main(["convert", "export", str(run), str(tmp_path / "out")]) == 0
    with open_weights(str(tmp_path / "out")) as exported:
        assert_same(load_params(exported), params)


LORA = [
    "T5Config.lora=@LoraConfig()",
    "LoraConfig.rank=3",
    "LoraConfig.dropout=0.25",
]


def test_adapters_alone_and_merged_are_the_same_model(make_run, tmp_path, capsys):
    freeze = 'RunConfig.freeze=["encoder/.*/lora_[ab]"]'
    run, config, params = make_run(*LORA, freeze)
    for flags in (["adapter", "--adapter"], ["merged"]):
        out = str(tmp_path / flags[0])
        assert main(["convert", "export", str(run), out, *flags[1:]]) == 0
    assert "restored step 5" in capsys.readouterr().out
    facts = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(tmp_path / "base")
    assert facts["r"] == 3 and facts["lora_dropout"] == 0.25
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    # Those of the encoder were never trained, and add nothing.
    for name, tensor in tensors.items():
        assert np.any(tensor) != (".encoder." in name and "lora_B" in name), name
    with open_weights(str(tmp_path / "merged")) as merged:
        assert merged.config.lora == LoraConfig()
        assert_same(load_params(merged), merge_lora(params, config.model), atol=1e-5)


def test_what_cannot_be_an_adapter_is_refused(make_run, tmp_path, capsys):
    run, _, _ = make_run('RunConfig.freeze=["encoder/.*"]')
    out = tmp_path / "out"
    assert main(["convert", "export", str(run), str(out), "--adapter"]) == 2
    assert "has no adapters" in capsys.readouterr().err
    assert not out.exists()


def test_adapters_of_a_base_that_only_the_seed_makes_are_refused(
    configured, tmp_path, capsys
):
    run, _ = configured(*LORA, source="None")
    out = tmp_path / "out"
    assert main(["convert", "export", str(run), str(out), "--adapter"]) == 2
    assert "drawn from the seed" in capsys.readouterr().err
    assert not out.exists()
