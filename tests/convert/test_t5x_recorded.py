"""T5X's own checkpoints and arrays: read, and written again, bit for bit."""

import shutil
import tarfile

import jax
import numpy as np
import pytest

from flanjax.convert.place import load_params
from flanjax.convert.t5x import open_t5x
from flanjax.convert.t5x_layout import SLOTS, t5x_entries
from flanjax.convert.t5x_optimizer import adafactor_reader
from flanjax.convert.t5x_write import save_t5x
from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, build_model
from flanjax.ops.golden_checkpoints import golden_checkpoints
from flanjax.ops.golden_files import Golden
from flanjax.train.optim import AdafactorState, OptimizerConfig, make_optimizer
from flanjax.train.trees import flatten, unflatten


@pytest.fixture(scope="module")
def golden(shared):
    return Golden.open(shared / "golden" / "t5x")


def test_recorded_checkpoints_are_read_and_written_bit_for_bit(golden):
    rows = list(golden_checkpoints(golden))
    assert len(rows) == 10
    assert [row for row in rows if not row.ok] == []


@pytest.mark.slow
def test_a_directory_is_taken_for_its_archive_and_a_wrong_number_is_seen(
    golden, tmp_path
):
    for dtype in ("float32", "bfloat16"):
        with tarfile.open(golden.directory / f"t5x_checkpoint_{dtype}.tar.gz") as file:
            file.extractall(tmp_path, filter="data")
    params = dict(golden.arrays("traj_final_params.npz"))
    name = "decoder/layers_1/mlp/wo/kernel"
    params[name] = np.nextafter(params[name], np.float32(9))
    np.savez(tmp_path / "traj_final_params.npz", **params)
    file = "traj_final_opt_state.npz"
    shutil.copy(golden.directory / file, tmp_path / file)
    rows = list(golden_checkpoints(Golden(tmp_path, golden.meta)))
    failed = [row.check for row in rows if not row.ok]
    assert f"checkpoint float32: parameters (worst: {name})" in failed
    assert len(rows) == 10


def _optimizer(config, **settings):
    shapes, axes = abstract_params(build_model(config))
    optimizer = make_optimizer(OptimizerConfig(**settings), axes)
    return jax.eval_shape(optimizer.init, shapes)


def _read_state(source, abstract) -> AdafactorState:
    read = adafactor_reader(source)
    slots = {}
    for slot in SLOTS:
        leaves = flatten(getattr(abstract, slot))
        slots[slot] = unflatten(
            {
                (path := "/".join(entry.path)): read(entry, slot, leaves[path].shape)
                for entry in source.entries()
            }
        )
    return AdafactorState(count=source.index.step, **slots)


def _t5x_state(golden, name, config):
    """Recorded state of one of the runs, as flanjax has it."""
    arrays = golden.flat(f"{name}_final_opt_state.npz")
    slots = {}
    for slot in SLOTS:
        slots[slot] = unflatten(
            {
                "/".join(entry.path): (
                    np.stack([arrays[f"{_plain(n)}/{slot}"] for n in entry.names])
                    if entry.stacked
                    else arrays[f"{_plain(entry.names[0])}/{slot}"]
                )
                for entry in t5x_entries(config)
            }
        )
    return AdafactorState(count=20, **slots)


def _plain(name: str) -> str:
    """An array's name in the minimal network."""
    if not name.endswith("]"):
        return name
    name, layer = name[:-1].split("[")
    stack, _, rest = name.split("/", 2)
    return f"{stack}/layers_{layer}/{rest}"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("traj_factored16", {"min_dim_size_to_factor": 16}),
        ("traj_momentum_wd", {"beta1": 0.9}),
        ("scalable_traj", {"factor_by_axes": True}),
    ],
)
def test_every_form_of_adafactors_state_comes_back(golden, name, settings, tmp_path):
    config = golden.encoder_decoder(relpos_per_layer=name.startswith("scal")).config
    params = golden.params(f"{name}_final_params.npz")
    state = _t5x_state(golden, name, config)
    directory = save_t5x(tmp_path, config, params, step=20, optimizer=state)
    with open_t5x(directory) as source:
        assert source.config == config
        got = _read_state(source, _optimizer(config, **settings))
        jax.tree.map(np.testing.assert_array_equal, got, state)
        jax.tree.map(np.testing.assert_array_equal, load_params(source), params)


def test_the_scanned_networks_arrays_are_written_as_t5x_has_them(golden, tmp_path):
    config = golden.encoder_decoder(relpos_per_layer=True).config
    state = _t5x_state(golden, "scalable_traj", config)
    params = golden.params("scalable_traj_final_params.npz")
    directory = save_t5x(tmp_path, config, params, step=20, optimizer=state)
    with open_t5x(directory) as source:
        for name, value in golden.arrays("scalable_traj_final_params.npz").items():
            np.testing.assert_array_equal(source.index.read(f"target/{name}"), value)
        recorded = golden.arrays("scalable_traj_final_opt_state.npz")
        for name, value in recorded.items():
            got = source.index.read(f"state/param_states/{name}")
            np.testing.assert_array_equal(got, value)
        assert len(source.index.specs) == 1 + 29 + len(recorded)


def test_state_that_was_factored_otherwise_names_the_settings(golden, tmp_path):
    config = golden.encoder_decoder().config
    state = _t5x_state(golden, "traj_factored16", config)
    params = golden.params("traj_factored16_final_params.npz")
    directory = save_t5x(tmp_path, config, params, step=20, optimizer=state)
    with open_t5x(directory) as source:
        message = r"v_row of .* has shape \(\d+,\).*\(1,\)(.|\n)*min_dim_size_to_factor"
        with pytest.raises(CheckpointError, match=message):
            _read_state(source, _optimizer(config))
        abstract = _optimizer(config, min_dim_size_to_factor=16, beta1=0.9)
        with pytest.raises(CheckpointError, match="OptimizerConfig.beta1"):
            _read_state(source, abstract)


def test_a_checkpoint_for_inference_has_no_state(golden, tmp_path):
    config = golden.encoder_decoder().config
    params = golden.params("params.npz")
    with open_t5x(save_t5x(tmp_path, config, params, step=20)) as source:
        with pytest.raises(CheckpointError, match="no state of Adafactor"):
            adafactor_reader(source)
