import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.errors import ConfigError
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


@pytest.mark.parametrize(
    "axes, heads_last",
    [
        (("layers", "embed", "joined_kv"), True),
        (("layers", "joined_kv", "embed"), False),
    ],
)
def test_moments_factored_by_axes_are_those_of_four_axes(axes, heads_last):
    """T5X's scanned kernels are (embed, layers, heads, kv), (heads, layers, kv, embed);
    its rules average the embedding's axis for columns and all others for rows."""
    layers, embed, heads, kv = 3, 6, 2, 5
    rng = np.random.default_rng(0)
    scale = np.array([0.01, 10.0, 1.0])[:, None, None]
    param = (rng.normal(size=(layers, embed, heads * kv)) * scale).astype(np.float32)
    grads = rng.normal(size=(4, layers, embed, heads * kv)).astype(np.float32)
    if not heads_last:
        param, grads = param.swapaxes(1, 2), grads.swapaxes(2, 3)
    schedule = ScheduleConfig("constant", 0.1)
    config = OptimizerConfig(schedule=schedule, factor_by_axes=True)
    optimizer = make_optimizer(config, {"w": axes})
    params, state = {"w": jnp.asarray(param)}, optimizer.init({"w": jnp.asarray(param)})
    for grad in grads:
        updates, state = optimizer.update({"w": grad}, state, params)
        params = jax.tree.map(jnp.add, params, updates)

    def four(x):  # (layers, embed, heads, kv), in float64
        x = x if heads_last else x.swapaxes(1, 2)
        return x.reshape(layers, embed, heads, kv).astype(np.float64)

    def rms(x):
        return np.sqrt(np.mean(x**2, axis=(1, 2, 3), keepdims=True))

    w, row, column = four(param), 0.0, 0.0
    for t, grad in enumerate(map(four, grads)):
        decay, squared = 1 - (t + 1) ** -0.8, grad**2 + 1e-30
        row = decay * row + (1 - decay) * squared.mean((2, 3), keepdims=True)
        column = decay * column + (1 - decay) * squared.mean(1, keepdims=True)
        step = grad * (row / row.mean(1, keepdims=True)) ** -0.5 * column**-0.5
        step = step / np.maximum(1, rms(step)) * 0.1 * np.maximum(rms(w), 1e-3)
        w = w - step
    np.testing.assert_allclose(four(np.asarray(params["w"])), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.v_row["w"], row[:, :, 0, 0], rtol=1e-5)
    columns = column.reshape(layers, heads * kv)
    np.testing.assert_allclose(state.v_col["w"], columns, rtol=1e-5)


def test_axes_decide_what_is_factored_in_stacks_and_sizes_elsewhere():
    config = OptimizerConfig(factor_by_axes=True, min_dim_size_to_factor=8)
    axes = {
        "wo": ("layers", "mlp", "embed"),
        "bias": ("layers", "heads", "relpos_buckets"),
        "scale": ("layers", "embed"),
        "small": ("vocab", "embed"),
        "large": ("vocab", "embed"),
    }
    shapes = {
        "wo": (2, 3, 4),
        "bias": (2, 16, 32),
        "scale": (2, 4),
        "small": (9, 4),
        "large": (9, 8),
    }
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    optimizer = make_optimizer(config, axes)
    state, names = optimizer.init(params), optimizer.state_axes(params)
    factored = {name for name, v in state.v.items() if v.size < params[name].size}
    assert factored == {"wo", "large"}
    assert state.v_row["wo"].shape == (2, 4) and state.v_col["wo"].shape == (2, 3)
    assert names.v_row["wo"] == ("layers", "embed")
    assert names.v_col["wo"] == ("layers", "mlp")
    assert names.v["wo"] == ("layers", None)
    assert names.v["bias"] == axes["bias"]
    for slot in ("v_row", "v_col", "v", "m"):
        for name, value in getattr(state, slot).items():
            assert len(getattr(names, slot)[name]) == value.ndim


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
