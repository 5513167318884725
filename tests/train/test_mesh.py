import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.partitioning import axes_spec
from flanjax.models.t5 import T5Config
from flanjax.train.mesh import (
    RULES,
    MeshConfig,
    check_batch_size,
    check_heads,
    check_lengths,
    make_mesh,
    param_shardings,
)


def test_data_takes_the_devices_that_are_left():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "sequence": 1, "tensor": 2}


@pytest.mark.parametrize("shape", [(3, 1, 1), (-1, 3, 1), (-1, 0, 1), (16, 1, 1)])
def test_a_shape_that_does_not_use_all_devices_is_refused(shape):
    with pytest.raises(ConfigError, match=r"does not fit 8 device\(s\)"):
        make_mesh(MeshConfig(*shape))


def test_a_mesh_that_would_cut_a_tpu_s_torus_is_refused():
    kind = {"platform": "tpu", "device_kind": "TPU v4", "slice_index": 0}
    chips = [
        SimpleNamespace(**kind, core_on_chip=0, coords=at)
        for at in itertools.product(range(4), repeat=3)
    ]
    with pytest.raises(ConfigError, match="fsdp=32, tensor=2.* joined as 4x4x4"):
        make_mesh(MeshConfig(fsdp=32, tensor=2), chips)


def test_slices_are_the_outermost_copies():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, slices=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "sequence": 1, "tensor": 2}
    assert [d.id for d in mesh.devices[1].flat] == [4, 5, 6, 7]
    with pytest.raises(ConfigError, match=r"slices=3 does not fit 8 device\(s\)"):
        make_mesh(MeshConfig(slices=3))


def test_tpu_slices_are_as_many_as_the_devices_say():
    kind = {"platform": "tpu", "device_kind": "TPU v4", "core_on_chip": 0}
    chips = [
        SimpleNamespace(**kind, coords=(x, y, 0), slice_index=number)
        for number, x, y in itertools.product(range(2), repeat=3)
    ]
    with pytest.raises(ConfigError, match=r"slices=1, .* lie in 2 slice\(s\)"):
        make_mesh(MeshConfig(fsdp=4), chips)


def test_what_does_not_divide_names_the_sizes_that_would():
    mesh = make_mesh(MeshConfig(data=1, tensor=4, sequence=2))
    check_lengths({"inputs": 12}, mesh)
    with pytest.raises(ConfigError, match="'targets': 7 positions") as caught:
        check_lengths({"inputs": 12, "targets": 7}, mesh)
    assert "MeshConfig.sequence may be 1 for" in str(caught.value)
    check_heads(8, mesh)
    with pytest.raises(ConfigError, match="6 attention heads do not divide by tensor"):
        check_heads(6, mesh)


def test_activations_are_split_where_they_divide_and_by_no_axis_twice():
    mesh = make_mesh(MeshConfig(data=2, tensor=2, sequence=2))
    names = ("batch", "stream_length", "activation_embed")

    def spec(names, shape):
        return tuple(axes_spec(names, shape, mesh, RULES))

    rows = ("data", "fsdp")
    assert spec(names, (4, 8, 16)) == (rows, ("sequence", "tensor"), None)
    # One token of a decoding step; a row that the loss moves to the sequence axis.
    assert spec(names, (4, 1, 16)) == (rows, None, None)
    assert spec(("loss_batch", "length"), (4, 8)) == ((*rows, "sequence"), None)
    assert spec(("loss_batch", "length"), (2, 8)) == (rows, "sequence")


def test_a_batch_that_does_not_divide_says_what_would():
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    check_batch_size(16, 2, mesh)
    with pytest.raises(ConfigError, match="multiple of 8, such as 16"):
        check_batch_size(15, 2, mesh)


def test_an_indivisible_dimension_names_the_parameter():
    model = build_model(T5Config(64, 16, 2, 6, 30, 1, 1))
    shapes, axes = abstract_params(model)
    mesh = make_mesh(MeshConfig(data=2, tensor=4))
    with pytest.raises(ConfigError, match="decoder/layers/mlp/wi_0/kernel") as caught:
        param_shardings(axes, shapes, mesh)
    assert "tensor=4" in str(caught.value)


def test_two_axes_on_one_mesh_axis_and_unknown_names_are_refused():
    mesh = make_mesh(MeshConfig())
    leaf = jax.ShapeDtypeStruct((8, 8), np.float32)
    with pytest.raises(ConfigError, match="mesh axis 'tensor'"):
        param_shardings({"w": ("heads", "mlp")}, {"w": leaf}, mesh)
    with pytest.raises(ConfigError, match="Did you mean 'embed'"):
        param_shardings({"w": ("embd", "mlp")}, {"w": leaf}, mesh)
