"""What a process is told before JAX starts; a step needs nothing of the host."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from flanjax.models.build import abstract_params, build_model
from flanjax.models.loss import LossConfig
from flanjax.models.t5 import T5Config
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.process import keep_compiled_programs, keep_freed_memory
from flanjax.train.state import init_state, state_shardings
from flanjax.train.step import make_train_step

COMPILE = """
import json, sys
from flanjax.train.process import keep_compiled_programs
folder = keep_compiled_programs()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
result = jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((64, 64)))
print(json.dumps([str(folder), float(result),
                  sum(name.endswith("compilation_cache/cache_hits") for name in hits)]))
"""


def run(code, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment = kept | {"JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", code]
    out = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_second_process_does_not_compile_what_the_first_did(tmp_path):
    first = run(COMPILE, FLANJAX_CACHE=str(tmp_path))
    second = run(COMPILE, FLANJAX_CACHE=str(tmp_path))
    assert first[0] == second[0] and first[0].startswith(str(tmp_path / "compiled"))
    assert f"jax-{jax.__version__}-" in first[0]
    assert first[1] == second[1] == 64.0**3
    assert first[2] == 0 and second[2] > 0


def test_jax_own_switches_of_the_cache_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_CACHE", str(tmp_path))
    # The tests' conftest turns the cache off as a user would.
    assert keep_compiled_programs() is None
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    try:
        assert keep_compiled_programs() == tmp_path / "mine"
    finally:
        jax.config.update("jax_enable_compilation_cache", False)
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_a_user_who_has_set_the_allocator_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert keep_freed_memory() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_large_buffers_are_used_again_without_page_faults():
    faults = """
import json, resource, sys
from flanjax.train.process import keep_freed_memory
kept = keep_freed_memory()
def touch():
    bytearray(1 << 26)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""
    kept, count = run(faults)
    if not kept:
        pytest.skip("not glibc, or an accelerator's plugin is installed")
    # Ten times 64 MiB are 163,840 pages of 4 KiB.
    assert count < 2000


def test_steps_compile_once_and_move_nothing_between_host_and_device():
    config = T5Config(64, 16, 2, 8, 16, 1, 1)
    model = build_model(config)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
    state = init_state(model, optimizer, jax.random.PRNGKey(0), mesh)
    step = make_train_step(model, optimizer, LossConfig(), mesh, state_shardings(state))
    names = ["encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens"]
    tokens = np.random.default_rng(0).integers(1, 64, (2, 8)).astype(np.int32)
    batch = jax.device_put(dict.fromkeys(names, tokens), jax.devices()[0])
    state, _ = step(state, batch)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, metrics = step(state, batch)
    assert step.compiles == 1
    assert np.isfinite(float(metrics["loss"]))
