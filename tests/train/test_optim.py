import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flanjax.errors import ConfigError
from flanjax.models.loss import LossConfig
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.schedules import ScheduleConfig

SETTINGS = {
    "plain": {},
    "momentum": {"beta1": 0.9, "weight_decay_rate": 1e-3},
    "factored": {"min_dim_size_to_factor": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stack_of_layers_is_updated_as_separate_matrices(name):
    """Nothing is averaged over layers, however different their sizes are."""
    rng = np.random.default_rng(0)
    # Layer 1 has large weights and gradients: shared statistics would show.
    stack = rng.normal(size=(3, 4, 8)) * np.array([0.01, 10, 1])[:, None, None]
    grads = rng.normal(size=(5, 3, 4, 8)) * np.array([100, 1, 1e-3])[:, None, None]
    stack, grads = stack.astype(np.float32), grads.astype(np.float32)
    config = OptimizerConfig(schedule=ScheduleConfig("constant", 0.1), **SETTINGS[name])
    scanned = make_optimizer(config, {"w": ("layers", "embed", "mlp")})
    single = make_optimizer(config, {"w": ("embed", "mlp")})

    def train(optimizer, params, grads):
        state = optimizer.init(params)
        for grad in grads:
            updates, state = optimizer.update({"w": grad}, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return params["w"]

    together = train(scanned, {"w": jnp.asarray(stack)}, grads)
    for i in range(3):
        alone = train(single, {"w": jnp.asarray(stack[i])}, grads[:, i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)


def test_factored_moments_hold_one_number_for_each_row_and_column():
    config = OptimizerConfig(min_dim_size_to_factor=4)
    axes = {"w": ("layers", "mlp", "embed"), "small": ("embed", "heads")}
    params = {"w": jnp.ones((2, 8, 5)), "small": jnp.ones((5, 3))}
    optimizer = make_optimizer(config, axes)
    state = optimizer.init(params)
    shapes = {
        slot: {k: v.shape for k, v in getattr(state, slot).items()}
        for slot in ("v_row", "v_col", "v", "m")
    }
    # Row is the smaller dimension and column the larger, as in T5X.
    assert shapes["v_row"] == {"w": (2, 5), "small": (1,)}
    assert shapes["v_col"] == {"w": (2, 8), "small": (1,)}
    assert shapes["v"] == {"w": (2, 1), "small": (5, 3)}
    names = optimizer.state_axes(params)
    assert names.v_row["w"] == ("layers", "embed")
    assert names.v_col["w"] == ("layers", "mlp")
    assert names.v["small"] == ("embed", "heads")


def test_adamw_decays_matrices_and_spares_norm_scales():
    config = OptimizerConfig(
        name="adamw", schedule=ScheduleConfig("constant", 0.1), weight_decay_rate=0.5
    )
    axes = {"kernel": ("layers", "embed", "mlp"), "scale": ("layers", "embed")}
    params = {"kernel": jnp.ones((2, 3, 4)), "scale": jnp.ones((2, 3))}
    optimizer = make_optimizer(config, axes)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["scale"], 0.0)


def test_global_norm_clip_scales_all_gradients_alike():
    config = OptimizerConfig(name="adamw", global_norm_clip_threshold=1.0)
    optimizer = make_optimizer(config, {"a": ("embed",), "b": ("embed",)})
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    grads = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(state.mu["a"], 0.1 * 0.6, rtol=1e-5)
    np.testing.assert_allclose(state.mu["b"], 0.1 * 0.8, rtol=1e-5)


def test_unknown_optimizer_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'adafactor'"):
        make_optimizer(OptimizerConfig(name="adafacto"), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["traj_momentum_wd", "traj_noparamscale"])
def test_t5x_runs_with_other_settings_are_reproduced(shared, name):
    """Momentum, weight decay, norm clipping, smoothing; no parameter scale."""
    from flanjax.models.build import abstract_params, build_model
    from flanjax.models.layers import stack_layers, unstack_layers
    from flanjax.models.t5 import T5Config
    from flanjax.train.mesh import MeshConfig, make_mesh
    from flanjax.train.state import init_state, state_shardings
    from flanjax.train.step import make_train_step

    golden = shared / "golden" / "t5x"
    load = lambda file: dict(np.load(golden / f"{file}.npz").items())  # noqa: E731
    if name == "traj_momentum_wd":
        rate = ScheduleConfig(
            "constant * linear_warmup * rsqrt_normalized_decay", 1e-3, warmup_steps=5
        )
        config = OptimizerConfig(
            schedule=rate,
            beta1=0.9,
            weight_decay_rate=1e-3,
            global_norm_clip_threshold=1.0,
            clipping_threshold=0.5,
        )
        loss = LossConfig(label_smoothing=0.1, normalizer="num_real_target_tokens")
        key = "loss"
    else:
        config, loss = OptimizerConfig(multiply_by_parameter_scale=False), LossConfig()
        key = "loss_sum"
    from flax.traverse_util import unflatten_dict

    model = build_model(T5Config(384, 32, 2, 16, 64, 2, 2))
    optimizer = make_optimizer(config, abstract_params(model)[1])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = stack_layers(unflatten_dict(load("params"), sep="/"))
    state = init_state(model, optimizer, jax.random.PRNGKey(0), mesh, params=params)
    step = make_train_step(model, optimizer, loss, mesh, state_shardings(state))
    batches, expected = load("train_batches"), load(name)
    losses, rates = [], []
    for i in range(20):
        state, metrics = step(state, {k: v[i] for k, v in batches.items()})
        losses.append(metrics[key])
        rates.append(metrics["learning_rate"])
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(rates, expected["lr"], rtol=1e-6)
    final = flatten_dict(unstack_layers(state.params), sep="/")
    for path, value in load(f"{name}_final_params").items():
        np.testing.assert_allclose(final[path], value, rtol=0, atol=2e-6, err_msg=path)
