import os
import resource
import signal
import subprocess
import sys
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flanjax.errors import CheckpointError, ConfigError
from flanjax.train.checkpoint import CheckpointConfig, Checkpointer
from flanjax.train.mesh import MeshConfig, make_mesh


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    frozen: dict


def make_state(step: int, mesh=None, rows: int = 64) -> State:
    """Random values (they do not compress) sharded over `mesh`."""
    mesh = mesh or make_mesh(MeshConfig())
    values = np.random.default_rng(step).normal(size=(rows, 16)).astype(np.float32)
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
    return State(put(jnp.int32(step)), {"w": put(values, "data")}, {})


def abstract(state: State) -> State:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_equal(got: State, want: State) -> None:
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(got), jax.device_get(want)
    )


def array_files(folder) -> list:
    """Files that hold array bytes, largest first."""
    files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


@pytest.fixture
def checkpointer(tmp_path):
    made = []

    def make(**settings) -> Checkpointer:
        made.append(
            Checkpointer(tmp_path / "checkpoints", CheckpointConfig(**settings))
        )
        return made[-1]

    yield make
    for one in made:
        one._pool.shutdown()


def test_a_state_saved_on_eight_devices_is_restored_on_one(checkpointer):
    saver = checkpointer()
    state = make_state(7)
    extra = {"position": [3, 14], "plan": {"fingerprint": "abc"}}
    saver.save(7, state, extra, {"accuracy": 0.5})
    saver.wait()
    one = make_state(0, make_mesh(MeshConfig(), jax.devices()[:1]))
    restored, back, message = checkpointer().restore(abstract(one))
    assert_equal(restored, state)
    assert restored.params["w"].sharding.device_set == {jax.devices()[0]}
    assert back == extra and message.startswith("restored step 7")


def test_the_state_may_be_donated_while_it_is_written(checkpointer):
    saver, state = checkpointer(), make_state(1, rows=4096)
    want = jax.device_get(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    saver.save(1, state, {})
    for _ in range(3):
        state = overwrite(state)
    restored, _, _ = saver.restore(abstract(state))
    assert_equal(restored, want)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    checkpointer, tmp_path, damage
):
    saver, folder = checkpointer(), tmp_path / "checkpoints" / "2"
    for step in (1, 2):
        saver.save(step, make_state(step), {"step": step}, wait=True)
    file = folder / "manifest.json" if damage == "manifest" else array_files(folder)[0]
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    reader = checkpointer()
    restored, extra, message = reader.restore(abstract(make_state(0)))
    assert_equal(restored, make_state(1))
    assert extra == {"step": 1}
    assert "checkpoint 2 is damaged" in message and "restored step 1" in message
    assert file.name in message
    # Out of the way of the run that goes on from step 1, but not destroyed.
    assert reader.latest_step() == 1 and (folder.parent / "2.damaged").is_dir()
    reader.save(2, make_state(2), {}, wait=True)
    assert reader.latest_step() == 2


def test_only_damaged_checkpoints_are_an_error_that_says_so(checkpointer):
    saver = checkpointer()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        saver.restore(abstract(make_state(0)))
    saver.save(1, make_state(1), {}, wait=True)
    array_files(saver.directory / "1")[0].unlink()
    with pytest.raises(CheckpointError, match="checkpoint 1 is damaged"):
        saver.restore(abstract(make_state(0)))
    assert saver.has(1)


def test_a_checkpoint_of_another_model_names_the_parameter(checkpointer):
    saver = checkpointer()
    saver.save(1, make_state(1), {}, wait=True)
    with pytest.raises(CheckpointError, match=r"params/w is float32\[64, 16\] there"):
        saver.restore(abstract(make_state(1, rows=32)))


def test_last_best_and_every_m_are_kept(checkpointer):
    saver = checkpointer(
        keep_last=2, keep_best="score", keep_best_mode="max", keep_every_steps=4
    )
    scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2, 5: float("nan"), 6: 0.4, 7: 0.4}
    for step, score in scores.items():
        saver.save(step, make_state(step), {}, {"score": score}, wait=True)
    assert saver.steps() == [2, 4, 6, 7]
    assert saver.best_step() == 2 and saver.latest_step() == 7
    restored, _, _ = saver.restore(abstract(make_state(0)), step=saver.best_step())
    assert_equal(restored, make_state(2))


def test_the_smallest_value_is_best_where_less_is_better(checkpointer):
    saver = checkpointer(keep_last=1, keep_best="loss", keep_best_mode="min")
    for step, loss in enumerate((3.0, 1.0, 2.0, 2.5), start=1):
        saver.save(step, make_state(step), {}, {"loss": loss}, wait=True)
    assert saver.steps() == [2, 4]
    with pytest.raises(ConfigError, match="keep_best_mode"):
        CheckpointConfig(keep_best_mode="largest")


def test_a_full_disk_is_one_clear_error_and_older_checkpoints_stay(checkpointer):
    saver = checkpointer()
    saver.save(1, make_state(1), {}, wait=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so writes beyond the limit fail as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            saver.save(2, make_state(2, rows=8192), {}, wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(caught.value)
    assert "could not save the checkpoint of step 2" in message
    assert "free disk space" in message and "unharmed checkpoints: 1" in message
    assert sorted(os.listdir(saver.directory)) == ["1"]
    restored, _, _ = saver.restore(abstract(make_state(0)))
    assert_equal(restored, make_state(1))
    saver.save(2, make_state(2), {}, wait=True)
    assert saver.latest_step() == 2


def test_an_error_of_a_background_save_is_raised_by_the_next_call(checkpointer):
    saver = checkpointer()
    saver.directory.parent.mkdir(exist_ok=True)
    saver.directory.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="could not save"):
        saver.save(1, make_state(1), {})
        saver.wait()


@pytest.mark.slow
@pytest.mark.parametrize("progress", [0.0, 0.3, 0.7])
def test_a_save_killed_half_way_leaves_the_one_before(tmp_path, progress):
    """SIGKILL when a share of the bytes of the second checkpoint is on disk."""
    directory, rows = tmp_path / "checkpoints", 1 << 21
    program = (
        "import numpy as np, jax, sys\n"
        "from flanjax.train.checkpoint import Checkpointer\n"
        f"saver = Checkpointer({str(directory)!r})\n"
        "for step in (1, 2):\n"
        f"    w = np.random.default_rng(step).normal(size=({rows}, 16))\n"
        "    state = {'w': jax.device_put(w.astype('float32'))}\n"
        "    saver.save(step, state, {'s': step}, wait=True)\n"
    )
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        temporary = directory / ".saving-2"
        deadline = time.monotonic() + 300
        size = 0
        while not (temporary.exists() and size >= progress * rows * 16 * 4):
            assert child.poll() is None and time.monotonic() < deadline
            size = _folder_size(temporary)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert not (directory / "2").exists()
    saver = Checkpointer(directory)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((rows, 16), np.float32, sharding=device)
    restored, extra, _ = saver.restore({"w": shape})
    want = np.random.default_rng(1).normal(size=(rows, 16)).astype(np.float32)
    np.testing.assert_array_equal(restored["w"], want)
    assert extra == {"s": 1}
    saver.save(2, restored, {"s": 2}, wait=True)
    assert sorted(os.listdir(directory)) == ["1", "2"]
    saver.close()


def _folder_size(folder) -> int:
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.path.getsize(os.path.join(root, name))
            except FileNotFoundError:
                continue  # Renamed while we looked.
    return size
