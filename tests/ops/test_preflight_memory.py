"""The estimate of memory: small programs whose bytes are known, and compiled ones."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flanjax.config import load_config
from flanjax.models.build import abstract_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.models.t5 import T5Config
from flanjax.ops.liveness import peak_bytes
from flanjax.ops.memory import estimate_memory
from flanjax.ops.preflight_compile import build, compile_train_step
from flanjax.ops.propagation import propagate
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.state import init_state

SIZES = {"data": 1, "fsdp": 4, "sequence": 1, "tensor": 2}
SIDE = 256
SQUARE = SIDE * SIDE * 4


def _peak(function, *layouts, side=SIDE):
    arguments = [jnp.zeros((side, side), jnp.float32) for _ in layouts]
    return peak_bytes(jax.make_jaxpr(function)(*arguments), layouts, SIZES)


WHOLE = ((), ())
ROWS = (("fsdp",), ())


def test_elementwise_chains_take_no_memory_until_something_reads_them_whole():
    assert _peak(lambda x: jnp.sum(jnp.exp(x) * 2 + 1), WHOLE) <= 4
    # exp(x) for the product, and the product.
    assert _peak(lambda x: jnp.sum(jnp.exp(x) @ x), WHOLE) <= 2 * SQUARE + 4


def test_results_die_after_their_last_reader():
    def chain(x):
        for _ in range(5):
            x = x @ x
        return x

    assert _peak(chain, WHOLE) == 2 * SQUARE


def test_what_a_loop_saves_for_its_backward_pass_is_stacked():
    def loss(x):
        def layer(x, _):
            return jnp.sin(x @ x), None

        return jnp.sum(jax.lax.scan(layer, x, length=6)[0])

    def remat(x):
        layer = jax.checkpoint(lambda x, _: (jnp.sin(jnp.sin(x @ x) @ x), None))
        return jnp.sum(jax.lax.scan(layer, x, length=6)[0])

    saved = _peak(jax.grad(loss), WHOLE)
    assert 2 * 6 * SQUARE < saved < (2 * 6 + 6) * SQUARE
    assert _peak(jax.grad(remat), WHOLE) < (6 + 9) * SQUARE


def test_arrays_count_as_the_mesh_splits_them():
    assert _peak(lambda x: x @ x, ROWS) == SQUARE // 4
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    whole = NamedSharding(mesh, PartitionSpec())

    def gathered(x):
        return jax.lax.with_sharding_constraint(x, whole) @ jnp.ones((SIDE, 8))

    assert _peak(gathered, ROWS) == SQUARE + SIDE * 8 * 4


@pytest.mark.parametrize(
    ("name", "params", "operands", "shape", "expected"),
    [
        (
            "transpose",
            {"permutation": (1, 0)},
            [((4, 6), (("fsdp",), ()))],
            (6, 4),
            ((), ("fsdp",)),
        ),
        (
            "reshape",
            {},
            [((8, 12, 6), (("fsdp",), (), ("tensor",)))],
            (96, 2, 3),
            (("fsdp",), ("tensor",), ()),
        ),
        (
            "broadcast_in_dim",
            {"broadcast_dimensions": (1,)},
            [((8,), (("fsdp",),))],
            (3, 8),
            ((), ("fsdp",)),
        ),
        (
            "reduce_sum",
            {"axes": (0,)},
            [((8, 6), (("fsdp",), ("tensor",)))],
            (6,),
            (("tensor",),),
        ),
        (
            "dot_general",
            {"dimension_numbers": (((1,), (0,)), ((), ()))},
            [((8, 6), (("fsdp",), ())), ((6, 10), ((), ("tensor",)))],
            (8, 10),
            (("fsdp",), ("tensor",)),
        ),
        (
            "add",
            {},
            [((8, 6), (("fsdp",), ())), ((8, 6), ((), ("tensor",)))],
            (8, 6),
            (("fsdp",), ("tensor",)),
        ),
    ],
)
def test_layouts_follow_the_operation(name, params, operands, shape, expected):
    assert propagate(name, params, operands, shape, SIZES) == expected


def _config(model, optimizer="adafactor", batch=16, microbatches=1, **mesh):
    config, _ = load_config(["gin/recipes/tiny.gin"], ["MODEL_DIR=unused"])
    return dataclasses.replace(
        config,
        model=model,
        optimizer=OptimizerConfig(name=optimizer),
        data=dataclasses.replace(
            config.data,
            feature_lengths={"inputs": 192, "targets": 64},
            batch_size=batch,
        ),
        mesh=MeshConfig(**mesh),
        microbatches=microbatches,
    )


T5_TINY = T5Config(
    vocab_size=2048,
    emb_dim=256,
    num_heads=8,
    head_dim=32,
    mlp_dim=512,
    num_encoder_layers=4,
    num_decoder_layers=4,
)
DECODER_TINY = DecoderConfig(
    vocab_size=2048,
    emb_dim=256,
    num_heads=8,
    num_kv_heads=4,
    head_dim=32,
    mlp_dim=512,
    num_layers=6,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer"), [(T5_TINY, "adafactor"), (DECODER_TINY, "adamw")]
)
def test_parameters_and_optimiser_state_are_those_of_a_real_state(model, optimizer):
    config = _config(model, optimizer, fsdp=4, tensor=2)
    subject = build(config, jax.devices())
    axes = abstract_params(subject.model)[1]
    made = make_optimizer(config.optimizer, axes)
    state = init_state(subject.model, made, jax.random.PRNGKey(0), subject.mesh)
    estimate = estimate_memory(subject)

    def held(tree):
        return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

    assert estimate.parameters == held(state.params)
    assert estimate.optimizer == held(state.opt_state)


def _remat(config, policy):
    model = dataclasses.replace(config.model, remat_policy=policy)
    return dataclasses.replace(config, model=model)


def test_remat_microbatches_and_meshes_save_what_they_should():
    def peak(config):
        return estimate_memory(build(config, jax.devices())).peak

    shallow = dataclasses.replace(T5_TINY, num_encoder_layers=2, num_decoder_layers=2)
    base = _config(shallow, batch=32, data=8)
    assert peak(_remat(base, "full")) < 0.7 * peak(base)
    assert peak(dataclasses.replace(base, microbatches=4)) < 0.7 * peak(base)
    sharded = dataclasses.replace(base, mesh=MeshConfig(fsdp=8))
    assert peak(base) - peak(sharded) > 10e6


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(_config(T5_TINY, fsdp=8), id="t5"),
        pytest.param(
            _remat(_config(DECODER_TINY, "adamw", fsdp=8), "minimal"), id="decoder"
        ),
        pytest.param(
            _config(
                dataclasses.replace(DECODER_TINY, lora=LoraConfig(rank=8)),
                "adamw",
                fsdp=4,
                tensor=2,
            ),
            id="lora",
        ),
        pytest.param(_config(T5_TINY, batch=32, microbatches=2, fsdp=8), id="parts"),
    ],
)
def test_the_estimate_is_within_a_tenth_of_the_compiled_peak(config):
    subject = build(config, jax.devices())
    compiled = compile_train_step(subject)
    assert compiled.memory is not None
    estimate = estimate_memory(subject)
    assert estimate.peak == pytest.approx(compiled.memory.peak, rel=0.1)
