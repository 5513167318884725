"""Weights go from a file into a sharded mesh without ever being whole on the host."""

import dataclasses
import functools
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params, parameter_reader, place_params
from flanjax.convert.weights import open_weights
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.train.mesh import MeshConfig, make_mesh, param_shardings

# Many small parameters, so that one is little beside all of them.
CONFIG = DecoderConfig(
    vocab_size=512,
    emb_dim=128,
    num_heads=8,
    num_kv_heads=8,
    head_dim=16,
    mlp_dim=256,
    num_layers=8,
    logits_via_embedding=False,
)
MESHES = ({"data": 8}, {"fsdp": 8, "data": 1}, {"data": 2, "fsdp": 2, "tensor": 2})


@functools.cache
def drawn(config):
    draw = np.random.default_rng(0)
    shapes, _ = abstract_params(build_model(config))
    return jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), shapes)


def shardings_of(config, **shape):
    shapes, axes = abstract_params(build_model(config))
    return param_shardings(axes, shapes, make_mesh(MeshConfig(**shape)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("place") / "model"
    return str(save_huggingface(path, CONFIG, drawn(CONFIG)))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_device_gets_its_part_of_the_models_values(shape, directory):
    shardings = shardings_of(CONFIG, **shape)
    with open_weights(directory) as source:
        params = place_params(source, shardings)
    jax.tree.map(np.testing.assert_array_equal, params, drawn(CONFIG))
    same = jax.tree.map(lambda x, s: x.sharding == s, params, shardings)
    assert all(jax.tree.leaves(same))


def test_arrays_that_were_placed_can_be_donated(directory):
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    with open_weights(directory) as source:
        for _ in range(2):  # Devices that hold the same share what is read into.
            doubled = double(place_params(source, shardings_of(CONFIG, data=8)))
    expected = jax.tree.map(lambda x: 2 * x, drawn(CONFIG))
    for shard in range(8):
        jax.tree.map(
            lambda x, y, i=shard: np.testing.assert_array_equal(
                x.addressable_shards[i].data, y
            ),
            doubled,
            expected,
        )


def test_layers_of_their_own_and_adapters_are_no_obstacle(directory):
    config = dataclasses.replace(CONFIG, scan_layers=False, lora=LoraConfig(rank=2))
    with open_weights(directory, config) as source:
        params = place_params(source, shardings_of(config, data=1, fsdp=8))
    assert "lora_a" not in params["decoder"]["layers_3"]["mlp"]["wo"]
    np.testing.assert_array_equal(
        params["decoder"]["layers_3"]["mlp"]["wo"]["kernel"],
        drawn(CONFIG)["decoder"]["layers"]["mlp"]["wo"]["kernel"][3],
    )


def test_only_what_is_asked_for_is_read(directory):
    shardings = shardings_of(CONFIG, data=8)
    wanted = {"token_embedder": shardings["token_embedder"]}
    with open_weights(directory) as source:
        counted = Watched(source)
        params = place_params(counted, wanted)
    assert params.keys() == {"token_embedder"}
    assert counted.names == ["model.embed_tokens.weight"]


class Watched:
    """A source that knows which of the tensors it gave out are still there."""

    def __init__(self, source):
        self.source, self.where, self.config = source, source.where, source.config
        self.entries, self.unplaced = source.entries, source.unplaced
        self.names, self.most, self._given = [], 0, []

    def read(self, name):
        alive = [ref for ref in self._given if ref() is not None]
        tensor = self.source.read(name)
        self._given = [*alive, weakref.ref(tensor)]
        self.names.append(name)
        self.most = max(self.most, len(self._given))
        return tensor


def gather_first(source, shardings):
    """The fault that the tests below must catch: all of the model, then its parts."""
    return jax.device_put(load_params(source), shardings)


def keep_tensors(source, shardings):
    """Another one: every tensor stays until all are read."""
    for entry in source.entries():
        tensors = [source.read(name) for name in entry.names]
        del tensors
    return place_params(source, shardings)


@pytest.mark.parametrize(
    ("place", "within"), [(place_params, True), (keep_tensors, False)]
)
def test_one_tensor_of_the_file_is_held_at_a_time(place, within, directory):
    with open_weights(directory) as source:
        watched = Watched(source)
        place(watched, shardings_of(CONFIG, data=1, fsdp=8))
    assert (watched.most == 1) is within


def peak_bytes(work):
    """The most that Python and numpy held at once; devices' memory is not counted."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.fixture
def devices_with_memory(monkeypatch):
    """Devices copy what they get, as accelerators do; CPU ones may keep the buffer."""
    put = jax.device_put

    def copying(values, where):
        return jax.block_until_ready(jax.tree.map(jnp.copy, put(values, where)))

    monkeypatch.setattr(jax, "device_put", copying)


@pytest.mark.parametrize(
    ("place", "within"), [(place_params, True), (gather_first, False)]
)
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_the_host_holds_one_tensor_and_one_parameter(
    place, within, shape, directory, devices_with_memory
):
    leaves = jax.tree.leaves(drawn(CONFIG))
    parameter = max(leaf.nbytes for leaf in leaves)  # Every part of it is on this host.
    tensor = drawn(CONFIG)["token_embedder"]["embedding"].nbytes
    bound = parameter + tensor + 2**19
    assert sum(leaf.nbytes for leaf in leaves) > 2 * bound
    shardings = shardings_of(CONFIG, **shape)
    with open_weights(directory) as source:
        place_params(source, shardings)  # Imports and caches are not what is measured.
        peak = peak_bytes(lambda: place(source, shardings))
    assert (peak < bound) is within, f"{peak} bytes, {bound} allowed"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_open_source_is_exported_tensor_by_tensor(dtype, directory, tmp_path):
    def export():
        save_huggingface(tmp_path / "out", source.config, source, dtype=dtype)

    with open_weights(directory) as source:
        watched = Watched(source)
        save_huggingface(tmp_path / "out", watched.config, watched)
        assert watched.most == 1
        export()
        largest = drawn(CONFIG)["token_embedder"]["embedding"].nbytes
        assert peak_bytes(export) < 2 * largest + 2**19


def test_a_parameter_is_read_alike_from_a_file_and_from_any_tree(directory):
    with open_weights(directory) as source:
        trees = [source, load_params(source), load_params(source, stacked=False)]
        trees.append(place_params(source, shardings_of(CONFIG, data=1, fsdp=8)))
        readers = [parameter_reader(tree) for tree in trees]
        for path, layer in (
            ("decoder/layers/mlp/wo/kernel", 5),
            ("decoder/logits_dense/kernel", None),
        ):
            first, *others = [read(path, layer) for read in readers]
            for other in others:
                np.testing.assert_array_equal(first, other)
