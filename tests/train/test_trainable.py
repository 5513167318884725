"""Freezing by name and by LoRA: what is trained, stored and computed."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.config import RunConfig
from flanjax.convert.huggingface import save_huggingface
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.models.loss import LossConfig
from flanjax.models.t5 import T5Config
from flanjax.train.checkpoint import Checkpointer, read_arrays
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.setup import _state
from flanjax.train.state import abstract_state, merge_params, state_shardings
from flanjax.train.step import make_train_step
from flanjax.train.trainable import trainable
from flanjax.train.trees import flatten

T5 = T5Config(64, 16, 2, 8, 32, 2, 2)
DECODER = DecoderConfig(64, 16, 2, 2, 8, 32, 2)
LORA = LoraConfig(rank=2)
TOKENS = np.arange(2, 14, dtype=np.int32).reshape(2, 6)


def run_config(model, **fields):
    names = [f.name for f in dataclasses.fields(RunConfig)]
    required = dict.fromkeys(names[: names.index("initial_checkpoint")])
    optimizer = OptimizerConfig(name="adamw")
    return RunConfig(**required | {"model": model, "optimizer": optimizer} | fields)


def split(config):
    """Paths of the trained parameters, and of the others."""
    names = set(flatten(abstract_params(build_model(config.model))[0]))
    trained = trainable(config)
    chosen = {name for name in names if trained(tuple(name.split("/")))}
    return chosen, names - chosen


def test_without_adapters_and_patterns_everything_is_trained():
    assert trainable(run_config(T5)) is None


def test_patterns_name_the_ends_of_paths():
    _, frozen = split(run_config(T5, freeze=["encoder/.*", "token_embedder/embedding"]))
    assert all(n.startswith(("encoder/", "token_embedder/")) for n in frozen)
    assert "encoder/layers/mlp/wo/kernel" in frozen
    # It has "encoder" in its name, and is in the decoder.
    trained, frozen = split(run_config(T5, freeze=["encoder/.*"]))
    assert any("encoder_decoder_attention" in name for name in trained)
    assert not any("encoder_decoder_attention" in name for name in frozen)
    _, frozen = split(run_config(DECODER, freeze=["scale", "mlp/wi_[01]/kernel"]))
    ends = {"scale", "wi_0/kernel", "wi_1/kernel"}
    assert {name.split("mlp/")[-1].split("norm/")[-1] for name in frozen} == ends


def test_adapters_alone_are_trained_less_those_frozen_by_name():
    config = dataclasses.replace(T5, lora=LORA)
    trained, _ = split(run_config(config))
    assert {name.rsplit("/")[-1] for name in trained} == {"lora_a", "lora_b"}
    fewer, _ = split(run_config(config, freeze=["encoder/.*"]))
    assert fewer == {name for name in trained if name.startswith("decoder/")}


BAD = {
    "misspelt": (T5, ["encodr/.*"], r"no parameter\. Did you mean 'encoder/\.\*'"),
    "one of two": (T5, ["encoder/.*", "token_embeder/embedding"], "token_embedder/emb"),
    "everything": (T5, [".*"], "nothing to train"),
    "all adapters": (
        dataclasses.replace(T5, lora=LORA),
        ["lora_[ab]"],
        "nothing to train",
    ),
    "pattern": (DECODER, ["mlp/(wo"], "no regular expression"),
    "one text": (DECODER, "encoder/.*", "one text"),
    "target": (
        dataclasses.replace(DECODER, lora=LoraConfig(2, targets=["qury"])),
        [],
        "Did you mean 'query'",
    ),
}


@pytest.mark.parametrize(("model", "freeze", "message"), BAD.values(), ids=BAD)
def test_what_matches_nothing_or_leaves_nothing_is_refused(model, freeze, message):
    with pytest.raises(ConfigError, match=message) as error:
        trainable(run_config(model, freeze=freeze))
    assert error.value.exit_code == 2


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def compiled(config):
    """The step of a run, compiled, and the state it takes."""
    model, mesh = build_model(config.model), one_device()
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    abstract = abstract_state(model, optimizer, mesh, trainable(config))
    step = make_train_step(
        model, optimizer, LossConfig(), mesh, state_shardings(abstract)
    )
    return step, abstract


def batch(model):
    names = ["decoder_input_tokens", "decoder_target_tokens"]
    names += ["encoder_input_tokens"] * isinstance(model, T5Config)
    return {name: jnp.asarray(TOKENS) for name in names}


def test_frozen_parameters_have_no_state_and_cost_no_gradients():
    def cost(config):
        step, abstract = compiled(config)
        return step.lower(abstract, batch(T5)).cost_analysis()["flops"], abstract

    everything, _ = cost(run_config(T5))
    without, abstract = cost(run_config(T5, freeze=["encoder/.*", ".*/embedding"]))
    assert without < 0.75 * everything
    assert not any("encoder/" in name for name in flatten(abstract.params))
    assert not any("encoder/" in name for name in state_names(abstract.opt_state))
    assert any("decoder/" in name for name in state_names(abstract.opt_state))


def state_names(tree):
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return ["/".join(str(getattr(k, "key", k)) for k in path) for path, _ in paths]


class Quiet:
    """A progress that says nothing."""

    def task(self, _):
        return contextlib.nullcontext()

    def line(self, _):
        pass


def started(config, directory):
    """What a run with this directory starts from: (state, extra)."""
    model, mesh = build_model(config.model), one_device()
    trained = trainable(config)
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    checkpointer = Checkpointer(directory)
    with contextlib.closing(checkpointer):
        state, extra, *_ = _state(
            config, model, optimizer, mesh, trained, checkpointer, Quiet()
        )
    return state, extra


def saved(config, state, directory, step):
    """Saves as the loop does."""
    with contextlib.closing(Checkpointer(directory)) as checkpointer:
        extra = {"initial_checkpoint": config.initial_checkpoint}
        checkpointer.save(step, state.replace(frozen={}), extra, wait=True)


MODELS = {
    "frozen": (DECODER, ["token_embedder/.*", "decoder/layers/self_attention/.*"]),
    "adapters": (dataclasses.replace(DECODER, lora=LORA), []),
    "frozen adapters": (dataclasses.replace(DECODER, lora=LORA), ["mlp/.*", "lora_a"]),
}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("frozen adapters", "weights"),
        pytest.param("frozen", "seed", marks=pytest.mark.slow),
        pytest.param("frozen", "weights", marks=pytest.mark.slow),
        pytest.param("adapters", "seed", marks=pytest.mark.slow),
        pytest.param("adapters", "weights", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_the_frozen_parameters_it_began_with(name, source, tmp_path):
    model, freeze = MODELS[name]
    config = run_config(model, freeze=freeze, seed=3, model_dir=str(tmp_path))
    if source == "weights":
        rng = np.random.default_rng(0)
        base = jax.tree.map(
            lambda x: rng.normal(size=x.shape).astype(np.float32),
            abstract_params(build_model(DECODER))[0],
        )
        save_huggingface(tmp_path / "base", DECODER, base)
        path = str(tmp_path / "base")
        config = dataclasses.replace(config, initial_checkpoint=path)
    state, _ = started(config, tmp_path / "run")
    before = {k: np.array(x) for k, x in flatten(state.frozen).items()}
    step, _ = compiled(config)
    for _ in range(2):
        state, metrics = step(state, batch(model))
    assert metrics["skipped"] == 0
    saved(config, state, tmp_path / "run", 2)
    again, _ = started(config, tmp_path / "run")
    assert int(again.step) == 2
    wanted = flatten(merge_params(state.params, state.frozen))
    got = flatten(merge_params(again.params, again.frozen))
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for name, value in before.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    stored = read_arrays(tmp_path / "run", 2)
    assert not any(f"/{name}" in key for key in stored for name in before)
    assert sum(key.startswith("params/") for key in stored) == len(wanted) - len(before)


def test_a_checkpoint_of_other_frozen_parameters_is_not_taken_for_ones_own(tmp_path):
    config = run_config(DECODER, freeze=["token_embedder/.*"])
    state, _ = started(config, tmp_path)
    saved(config, state, tmp_path, 1)
    other = dataclasses.replace(config, freeze=())
    with pytest.raises(CheckpointError, match="token_embedder/embedding is absent"):
        started(other, tmp_path)
    record = json.loads((tmp_path / "1" / "extra.json").read_text())
    assert not any("token_embedder" in name for name in record["arrays"])
