"""Processes read the rows their devices need, whatever the mesh makes of them."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from flanjax.train.feeding import host_share, place
from flanjax.train.mesh import MESH_AXES, MeshConfig, make_mesh

MESHES = ((1, 1, 8, 1), (2, 2, 2, 1), (1, 2, 1, 4))

WORKER = """
import json, os, sys
process, count, port, meshes = (json.loads(x) for x in sys.argv[1:])
import jax, numpy as np
if count > 1:
    jax.distributed.initialize(
        f"127.0.0.1:{port}", count, process, initialization_timeout=60
    )
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.loss import LossConfig
from flanjax.train.feeding import host_share, place
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.state import init_state, state_shardings
from flanjax.train.step import make_train_step

model = build_model(DecoderConfig(64, 16, 8, 8, 4, 32, 1))
optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
tokens = np.random.default_rng(0).integers(1, 64, (8, 8), np.int32)
names = ("decoder_input_tokens", "decoder_target_tokens")
losses = []
for shape in meshes:
    data, fsdp, tensor, sequence = shape
    mesh = make_mesh(MeshConfig(data, fsdp, tensor, sequence))
    share = host_share(mesh)
    rows = len(tokens) // share[1]
    mine = tokens[share[0] * rows : (share[0] + 1) * rows]
    batch = place(mesh, share, dict.fromkeys(names, mine))
    state = init_state(model, optimizer, jax.random.PRNGKey(0), mesh)
    step = make_train_step(model, optimizer, LossConfig(), mesh, state_shardings(state))
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(np.asarray(metrics["loss"].addressable_data(0))))
print(json.dumps(losses))
"""


def start(process, count, port, meshes, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    flags += " --xla_backend_optimization_level=0"
    arguments = [json.dumps(x) for x in (process, count, port, meshes)]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_lose_what_one_device_loses():
    """The tensor and sequence axes reach over both in turn, and so do the rows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start(i, 2, port, MESHES, 4) for i in range(2)]
    workers.append(start(0, 1, port, [(1, 1, 1, 1)], 1))
    try:
        printed = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    first, second, alone = (json.loads(text.splitlines()[-1]) for text in printed)
    assert first == second
    np.testing.assert_allclose(first, alone * len(MESHES), rtol=1e-5)


def processes(shape, numbers):
    devices = [SimpleNamespace(process_index=number) for number in numbers]
    grid = np.empty(len(devices), object)
    grid[:] = devices
    return SimpleNamespace(devices=grid.reshape(shape), axis_names=MESH_AXES)


@pytest.mark.parametrize(
    ("shape", "numbers", "shares"),
    [
        # (data, fsdp, sequence, tensor): rows of their own; the same rows; pairs.
        ((2, 2, 1, 1), [0, 0, 1, 1], [(0, 2), (1, 2)]),
        ((1, 1, 1, 4), [0, 0, 1, 1], [(0, 1), (0, 1)]),
        ((1, 2, 2, 1), [0, 1, 2, 3], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        # Devices that lie apart: each reads all rows.
        ((4, 1, 1, 1), [0, 1, 0, 1], [(0, 1), (0, 1)]),
    ],
)
def test_a_process_reads_the_rows_of_its_devices(shape, numbers, shares):
    mesh = processes(shape, numbers)
    assert [host_share(mesh, i) for i in range(len(shares))] == shares


def test_rows_land_where_the_batch_is_split():
    mesh = make_mesh(MeshConfig(2, 1, 2, sequence=2))
    assert isinstance(mesh, Mesh)
    rows = np.arange(32).reshape(4, 8)
    whole = place(mesh, host_share(mesh), {"tokens": rows})["tokens"]
    np.testing.assert_array_equal(jax.device_get(whole), rows)
    assert {shard.data.shape for shard in whole.addressable_shards} == {(2, 4)}
