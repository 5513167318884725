import dataclasses

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model, init_params
from flanjax.models.layers import stack_layers, unstack_layers
from flanjax.models.t5 import T5Config

TINY = T5Config(32, 16, 2, 8, 24, 2, 2)


def close(value, recorded, where):
    np.testing.assert_allclose(
        np.asarray(value)[where], recorded[where], rtol=1e-4, atol=2e-5
    )


def test_packed_forward_equals_t5x(golden):
    batch, recorded = golden.arrays("batch"), golden.arrays("forward")
    params = golden.params("params")
    model = build_model(golden.config)

    @jax.jit
    def run(params, batch):
        variables = {"params": params}
        return model.apply(variables, batch), model.apply(
            variables, batch, method="encode"
        )

    logits, encoded = run(params, batch)
    close(logits, recorded["logits"], batch["decoder_segment_ids"] > 0)
    close(encoded, recorded["encoder_output"], batch["encoder_segment_ids"] > 0)


def test_unpacked_view_equals_t5x(golden, forward):
    batch, recorded = golden.arrays("batch"), golden.arrays("forward")
    real = batch["decoder_target_tokens"] > 0
    batch = {k: v for k, v in batch.items() if not k.endswith(("ids", "positions"))}
    logits = forward(golden.config, golden.params("params"), batch)
    close(logits, recorded["logits_unpacked_view"], real)


def test_version_1_0_with_tied_head_equals_t5x(golden, forward):
    batch, recorded = golden.arrays("batch"), golden.arrays("t5_1_0_forward")
    config = dataclasses.replace(
        golden.config, mlp_activations=("relu",), logits_via_embedding=True
    )
    logits = forward(config, golden.params("t5_1_0_params"), batch)
    close(logits, recorded["logits"], batch["decoder_segment_ids"] > 0)


def test_bfloat16_activations_stay_near_t5x(golden, forward):
    batch, recorded = golden.arrays("batch"), golden.arrays("forward")
    real = batch["decoder_segment_ids"] > 0
    config = dataclasses.replace(golden.config, dtype="bfloat16")
    logits = forward(config, golden.params("params"), batch)
    assert logits.dtype == np.float32
    error = np.abs(np.asarray(logits) - recorded["logits_bf16_activations"])
    assert error[real].max() < 0.1


@pytest.mark.slow
def test_scanned_and_written_out_layers_are_one_function(golden, forward):
    batch, params = golden.arrays("batch"), golden.params("params")
    scanned = forward(golden.config, params, batch)
    config = dataclasses.replace(golden.config, scan_layers=False)
    written_out = unstack_layers(params)
    np.testing.assert_allclose(
        scanned, forward(config, written_out, batch), rtol=1e-5, atol=1e-5
    )
    jax.tree.map(np.testing.assert_array_equal, stack_layers(written_out), params)


def test_a_table_in_every_layer_is_the_shared_one_where_all_are_equal(draw, forward):
    """And another function where they differ."""
    config = dataclasses.replace(TINY, num_encoder_layers=3)
    own = dataclasses.replace(config, relpos_per_layer=True)
    tokens = np.arange(1, 9, dtype=np.int32).reshape(2, 4)
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch, params = dict.fromkeys(names, tokens), draw(config)
    copied = jax.tree.map(lambda x: x, params)
    for stack, layers in (("encoder", 3), ("decoder", 2)):
        table = copied[stack].pop("relpos_bias")["rel_embedding"]
        tables = np.stack([table] * layers)
        copied[stack]["layers"]["relpos_bias"] = {"rel_embedding": tables}
    shared = forward(config, params, batch)
    np.testing.assert_allclose(forward(own, copied, batch), shared, rtol=1e-5)
    copied["encoder"]["layers"]["relpos_bias"]["rel_embedding"][1] += np.eye(2, 32)
    assert np.abs(forward(own, copied, batch) - shared).max() > 1e-3


@pytest.mark.slow
def test_remat_changes_no_gradient(draw):
    tokens = np.arange(1, 9, dtype=np.int32).reshape(2, 4)
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch, params = dict.fromkeys(names, tokens), draw(TINY)

    def gradient(config):
        model = build_model(config)
        return jax.jit(
            jax.grad(lambda p: (model.apply({"params": p}, batch) ** 2).sum())
        )(params)

    plain = gradient(TINY)
    for policy in ("minimal", "full"):
        again = gradient(dataclasses.replace(TINY, remat_policy=policy))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
            plain,
            again,
        )


@pytest.mark.slow
def test_abstract_parameters_have_shapes_and_axes_of_real_ones():
    model = build_model(TINY)
    params, axes = init_params(model, jax.random.key(0))
    shapes, abstract_axes = abstract_params(model)
    assert axes == abstract_axes
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, shapes)


def test_every_axis_of_every_parameter_has_a_name():
    shapes, axes = abstract_params(build_model(TINY))
    is_names = lambda x: isinstance(x, tuple)  # noqa: E731
    ranks = jax.tree.map(lambda s: len(s.shape), shapes)
    assert jax.tree.map(len, axes, is_leaf=is_names) == ranks
    wo = axes["decoder"]["layers"]["mlp"]["wo"]["kernel"]
    assert wo == ("layers", "mlp", "embed")


@pytest.mark.parametrize(
    "size, parameters",
    [
        ((512, 6, 64, 1024, 8, 8), 76_961_152),
        ((768, 12, 64, 2048, 12, 12), 247_577_856),
        ((4096, 64, 64, 10240, 24, 24), 11_135_332_352),
    ],
)
def test_published_sizes_have_their_number_of_parameters(size, parameters):
    shapes, _ = abstract_params(build_model(T5Config(32128, *size)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_a_misspelt_policy_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'minimal'"):
        dataclasses.replace(TINY, remat_policy="minimum")
