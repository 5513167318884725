"""Every partitioning computes what one device computes, and splits what it should."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import numpy as np
import pytest

from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.loss import LossConfig
from flanjax.models.t5 import T5Config
from flanjax.ops.collectives import collectives
from flanjax.train.checkpoint import Checkpointer
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.state import abstract_state, state_shardings
from flanjax.train.step import make_train_step

STEPS = 10
LOSS = LossConfig(normalizer="num_real_target_tokens", chunk_tokens=4)
# Sizes that every mesh of eight devices divides.
SIZES = {
    "t5": T5Config(64, 16, 8, 4, 32, 2, 2, dropout_rate=0.1),
    "decoder": DecoderConfig(64, 16, 8, 8, 4, 32, 2, dropout_rate=0.1),
}
MESHES = {
    "data": MeshConfig(8, 1, 1),
    "fsdp": MeshConfig(1, 8, 1),
    "tensor": MeshConfig(1, 1, 8),
    "data x fsdp x tensor": MeshConfig(2, 2, 2),
    "data x tensor x sequence": MeshConfig(2, 1, 2, sequence=2),
    "sequence": MeshConfig(1, 1, 1, sequence=4, slices=2),
}


def mesh_of(name):
    if name == "one device":
        return make_mesh(MeshConfig(), jax.devices()[:1])
    return make_mesh(MESHES[name])


@functools.cache
def step_of(model, optimizer, name, microbatches=1):
    mesh = mesh_of(name)
    shardings = state_shardings(abstract_state(model, optimizer, mesh))
    return make_train_step(
        model, optimizer, LOSS, mesh, shardings, microbatches=microbatches
    )


def run(step, state, batch, steps=STEPS):
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.fixture
def model(family):
    return build_model(SIZES[family])


@functools.cache
def fsdp_step():
    """The compiled step's text and the abstract state, under FSDP."""
    # Sizes that nothing else in the program has.
    config = dataclasses.replace(SIZES["decoder"], emb_dim=40, mlp_dim=72, head_dim=6)
    model, mesh = build_model(config), mesh_of("fsdp")
    optimizer = make_optimizer(OptimizerConfig(), abstract_params(model)[1])
    state = abstract_state(model, optimizer, mesh)
    names = ("input_tokens", "target_tokens", "segment_ids", "positions")
    batch = {
        f"decoder_{name}": jax.ShapeDtypeStruct((16, 12), np.int32) for name in names
    }
    step = make_train_step(model, optimizer, LOSS, mesh, state_shardings(state))
    return step.lower(state, batch).compile().as_text(), state


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_loses_what_one_device_loses(model, batch, make_state, name):
    """Ten steps, packed rows, dropout on; a mesh's sums only round differently."""
    optimizer, state = make_state(model=model)
    start = jax.device_get(state)
    _, want = run(step_of(model, optimizer, "one device"), state, batch)
    assert want[-1] < want[0]
    optimizer, state = make_state(mesh_of(name), model=model)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), start)
    step = step_of(model, optimizer, name)
    _, got = run(step, state, batch)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert step.compiles == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["decoder"], indirect=True)
@pytest.mark.parametrize("name", ["fsdp", "data x tensor x sequence"])
def test_microbatches_on_a_mesh_lose_what_they_lose_on_one_device(
    model, batch, make_state, name
):
    losses = []
    for mesh in ("one device", name):
        optimizer, state = make_state(mesh_of(mesh), model=model)
        step = step_of(model, optimizer, mesh, microbatches=2)
        losses.append(run(step, state, batch)[1])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "decoder"], indirect=True)
def test_a_save_on_any_mesh_goes_on_on_every_other(model, batch, make_state, tmp_path):
    """Saved after three steps on each mesh, restored on all, trained on on the next."""
    optimizer, state = make_state(model=model)
    _, want = run(step_of(model, optimizer, "one device"), state, batch)
    names = ["one device", *MESHES]
    for source, following in zip(names, [*names[1:], names[0]], strict=True):
        optimizer, state = make_state(mesh_of(source), model=model)
        state, _ = run(step_of(model, optimizer, source), state, batch, 3)
        saver = Checkpointer(tmp_path / source.replace(" ", "_"))
        saver.save(3, state, {}, wait=True)
        states = {}
        for target in names:
            abstract = abstract_state(model, optimizer, mesh_of(target))
            states[target], _, _ = saver.restore(abstract)
            jax.tree.map(np.testing.assert_array_equal, states[target], state)
            assert state_shardings(states[target]) == state_shardings(abstract)
        saver.close()
        step = step_of(model, optimizer, following)
        _, got = run(step, states[following], batch, STEPS - 3)
        np.testing.assert_allclose(got, want[3:], rtol=1e-5, err_msg=source)


@pytest.mark.parametrize("family", ["decoder"], indirect=True)
def test_two_ways_to_split_at_once_lose_what_one_device_loses(model, batch, make_state):
    """The quick form of the slow tests; shared keys and remat besides."""
    losses = []
    for name, kept in (("one device", "none"), ("data x tensor x sequence", "full")):
        config = dataclasses.replace(model.config, num_kv_heads=1, remat_policy=kept)
        model = build_model(config)
        optimizer, state = make_state(mesh_of(name), model=model)
        losses.append(run(step_of(model, optimizer, name), state, batch, 3)[1])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_fsdp_gathers_a_layer_at_a_time_and_reduces_each_gradient():
    text, state = fsdp_step()
    shards = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state.params)]
    whole = sum(x.size for x in jax.tree.leaves(state.params))
    assert 8 * sum(np.prod(shard) for shard in shards) == whole
    moments = state.opt_state.v
    assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(
        lambda x: x.sharding, state.params
    )
    found = collectives(text, mesh_of("fsdp"))
    layers = state.params["decoder"]["layers"]
    kernels = [x for x in jax.tree.leaves(layers) if len(x.shape) == 3]
    gathers = [one for one in found if one.kind == "all-gather"]
    reductions = [one for one in found if one.kind in ("all-reduce", "reduce-scatter")]
    # Gathered forwards and backwards, reduced once; a round of the loop does one layer.
    # A gradient may be made and reduced the other way round.
    want = Counter(
        tuple(sorted(x.shape[1:])) for x in kernels for _ in range(x.shape[0])
    )
    for these, passes in ((gathers, 2), (reductions, 1)):
        times = Counter()
        for one in these:
            for _, shape in one.arrays:
                times[tuple(sorted(n for n in shape if n > 1))] += one.times
        assert all(times[shape] == passes * want[shape] for shape in want)
    largest = max(a.size for a in jax.tree.leaves(state.params))
    for one in found:
        # Neither the model nor a stack of layers is ever gathered.
        assert all(np.prod(shape) <= largest for _, shape in one.arrays), one
        assert one.times < 100 and one.axes == ("fsdp",)


def test_the_step_writes_the_new_state_over_the_old():
    text, state = fsdp_step()
    header = text.split("\n")[0]
    aliased = re.findall(r"\((\d+), \{\}, (?:may|must)-alias\)", header)
    assert len(set(aliased)) == len(jax.tree.leaves(state))
