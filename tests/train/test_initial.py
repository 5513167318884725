"""Parameters, moments and step count that a run starts with."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.config import RunConfig
from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.restore import RestoreConfig
from flanjax.convert.t5x_write import save_t5x
from flanjax.errors import CheckpointError, ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.layers import stack_layers
from flanjax.models.lora import LoraConfig, is_lora
from flanjax.models.t5 import T5Config
from flanjax.train.initial import check_report, initial_optimizer, initial_params
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.schedules import ScheduleConfig
from flanjax.train.state import abstract_state, draw_params, init_state, merge_params
from flanjax.train.trees import flatten, unflatten

T5 = T5Config(24, 16, 2, 8, 32, 2, 2)
# Some matrices factored, some not.
ADAFACTOR = OptimizerConfig(
    schedule=ScheduleConfig("constant * rsqrt_decay", 0.5, warmup_steps=1),
    min_dim_size_to_factor=16,
)
STEP = 3
RUN = tempfile.TemporaryDirectory()


def run_config(source=None, model=T5, optimizer=ADAFACTOR, **restore) -> RunConfig:
    others = dict.fromkeys(f.name for f in dataclasses.fields(RunConfig))
    given = {
        "model": model,
        "model_dir": RUN.name,
        "initial_checkpoint": source,
        "optimizer": optimizer,
        "seed": 5,
        "restore": RestoreConfig(**restore),
    }
    return RunConfig(**(others | given))


@functools.cache
def _optimizer(config, model_config):
    return make_optimizer(config, abstract_params(build_model(model_config))[1])


def started(config, devices=1, trained=None):
    """A state as a run begins with it, and the line about it."""
    model = build_model(config.model)
    optimizer = _optimizer(config.optimizer, config.model)
    mesh = make_mesh(MeshConfig(data=-1, fsdp=devices), jax.devices()[:devices])
    abstract = abstract_state(model, optimizer, mesh, trained)
    wanted = merge_params(abstract.params, abstract.frozen)
    state = init_state(
        model,
        optimizer,
        jax.random.PRNGKey(config.seed),
        mesh,
        params=initial_params(config, model, wanted),
        take_params=True,
        trainable=trained,
    )
    opt_state, line = initial_optimizer(config, state.opt_state)
    return state.replace(opt_state=opt_state), line


def grads_of(params, seed):
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(seed)
    values = [jnp.asarray(draw.normal(size=x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(tree, values)


def random_params(config):
    return grads_of(abstract_params(build_model(config))[0], seed=99)


@functools.cache
def _update(config, model_config):
    return jax.jit(_optimizer(config, model_config).update)


def stepped(params, opt_state, seeds, model=T5, optimizer=ADAFACTOR):
    update = _update(optimizer, model)
    for seed in seeds:
        steps, opt_state = update(grads_of(params, seed), opt_state, params)
        params = jax.tree.map(jnp.add, params, steps)
    return params, opt_state


@pytest.fixture(scope="module")
def trained():
    """A model after some steps."""
    params = random_params(T5)
    return stepped(params, _optimizer(ADAFACTOR, T5).init(params), range(STEP))


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    params, state = trained
    path = tmp_path_factory.mktemp("t5x")
    save_t5x(path, T5, params, step=STEP, optimizer=state)
    return f"t5x:{path}"


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize("devices", [1, 4])
def test_a_run_that_takes_over_everything_goes_on_as_if_never_stopped(
    trained, checkpoint, devices
):
    config = run_config(checkpoint, optimizer_state=True, step="checkpoint")
    state, line = started(config, devices)
    assert int(state.step) == 0 and int(state.opt_state.count) == STEP
    assert_same((state.params, state.opt_state), trained)
    state = jax.device_get(state)
    got = stepped(state.params, state.opt_state, [7, 8])
    assert_same(got, stepped(*trained, [7, 8]))
    assert "its count goes on at 3 (t = 3: second moments remember about 3" in line


def test_layers_that_are_not_scanned_get_their_own_slots(trained, checkpoint):
    model = dataclasses.replace(T5, scan_layers=False)
    config = run_config(checkpoint, model, optimizer_state=True, step="checkpoint")
    state, _ = started(config)
    assert_same(stack_layers(state.params), trained[0])
    for slot in ("v_row", "v_col", "v", "m"):
        got = stack_layers(getattr(state.opt_state, slot))
        assert_same(got, getattr(trained[1], slot))


def test_counted_from_zero_the_first_update_forgets_restored_moments(
    trained, checkpoint
):
    restored, line = started(run_config(checkpoint, optimizer_state=True))
    fresh, _ = started(run_config(checkpoint))
    assert "replaces the second moments" in line
    assert_same(restored.opt_state.replace(count=STEP), trained[1].replace(count=STEP))
    after = [stepped(s.params, s.opt_state, [7]) for s in (restored, fresh)]
    assert_same(*after)


def test_counted_on_a_gradient_has_the_weight_of_the_checkpoints_step(
    trained, checkpoint
):
    config = run_config(checkpoint, optimizer_state=True, step="checkpoint")
    state, _ = started(config)
    _, after = stepped(state.params, state.opt_state, [7])
    name = "decoder/decoder_norm/scale"
    old, new = (flatten(s.v)[name] for s in (trained[1], after))
    grad = flatten(grads_of(state.params, 7))[name]
    weight = (STEP + 1) ** -0.8
    expected = (1 - weight) * old + weight * (grad**2 + 1e-30)
    np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_a_step_offset_of_the_checkpoints_step_starts_t_at_zero(checkpoint):
    optimizer = dataclasses.replace(ADAFACTOR, step_offset=STEP)
    config = run_config(checkpoint, optimizer=optimizer, step="checkpoint")
    state, line = started(config)
    assert int(state.opt_state.count) == STEP and "(t = 0:" in line
    _, after = stepped(state.params, state.opt_state, [7], optimizer=optimizer)
    name = "decoder/decoder_norm/scale"
    grad = flatten(grads_of(state.params, 7))[name]
    np.testing.assert_allclose(flatten(after.v)[name], grad**2, rtol=1e-6)


@pytest.mark.slow
def test_frozen_parameters_come_back_the_same_when_asked_for_alone(checkpoint):
    model = dataclasses.replace(T5, lora=LoraConfig(rank=2))
    config = run_config(checkpoint, model, unexpected="ignore")
    state, line = started(config, trained=is_lora)
    assert "adapters drawn fresh" in line
    built = build_model(model)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = _optimizer(ADAFACTOR, model)
    abstract = abstract_state(built, optimizer, mesh, is_lora)
    assert_same(initial_params(config, built, abstract.frozen), state.frozen)


def test_fresh_parameters_are_those_of_a_new_model(tmp_path):
    tied = dataclasses.replace(T5, logits_via_embedding=True)
    params, head = random_params(tied), "decoder/logits_dense/kernel"
    save_t5x(tmp_path, tied, params, step=1)
    state, line = started(run_config(f"t5x:{tmp_path}", fresh=[head]))
    got, model = flatten(state.params), build_model(T5)
    drawn = draw_params(model, jax.random.PRNGKey(5), {head: got[head]})
    np.testing.assert_array_equal(got.pop(head), drawn[head])
    assert_same(unflatten(got), params)
    report = Path(RUN.name, "restore_report.txt").read_text()
    assert "1 drawn fresh" in line and f"Drawn fresh (1):\n{head}" in report


def test_a_run_that_goes_on_notices_that_its_frozen_weights_moved(trained, tmp_path):
    save_t5x(tmp_path, T5, trained[0], step=1)
    config = run_config(f"t5x:{tmp_path}")
    started(config)
    check_report(config)
    save_t5x(tmp_path, T5, trained[0], step=2)
    with pytest.raises(CheckpointError, match="Weights: .*checkpoint_2"):
        check_report(config)
    norms = {"decoder/decoder_norm/scale": "encoder/encoder_norm/scale"}
    moved = {"assign": norms, "unexpected": "ignore"}
    with pytest.raises(CheckpointError, match="frozen parameters came from elsewhere"):
        check_report(run_config(f"t5x:{tmp_path}/checkpoint_1", **moved))


@pytest.mark.parametrize(
    ("settings", "optimizer", "message"),
    [
        ({"step": "checkpoint"}, ADAFACTOR, "moments of zero"),
        ({"optimizer_state": True}, OptimizerConfig(name="adamw"), "has adamw"),
        (
            {"optimizer_state": True, "step": "checkpoint"},
            dataclasses.replace(ADAFACTOR, step_offset=4),
            "3 - 4 = -1",
        ),
    ],
)
def test_counts_and_moments_that_make_no_sense_are_refused(
    checkpoint, settings, optimizer, message
):
    with pytest.raises(ConfigError, match=message):
        started(run_config(checkpoint, optimizer=optimizer, **settings))


def test_only_t5x_checkpoints_have_an_optimizers_state(trained, tmp_path):
    save_huggingface(tmp_path / "hf", T5, jax.device_get(trained[0]))
    with pytest.raises(ConfigError, match="holds no optimiser state"):
        started(run_config(str(tmp_path / "hf"), optimizer_state=True))


def test_state_factored_otherwise_is_refused(checkpoint):
    optimizer = dataclasses.replace(ADAFACTOR, min_dim_size_to_factor=128)
    with pytest.raises(CheckpointError, match="min_dim_size_to_factor"):
        started(run_config(checkpoint, optimizer=optimizer, optimizer_state=True))


def test_settings_for_weights_without_weights_are_refused():
    with pytest.raises(ConfigError, match="INITIAL_CHECKPOINT_PATH"):
        initial_optimizer(run_config(unexpected="ignore"), None)
