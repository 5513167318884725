"""Compiles what a run would run, for devices that need not be there.

    subject = build(config, topology_devices(parse_topology("v5e:16x16")))
    compiled = compile_train_step(subject)
    compiled.memory.peak        # bytes of one device

Nothing is computed and no parameter exists: the state and the batch are shapes.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flanjax.config import RunConfig
from flanjax.data.layout import Layout
from flanjax.decode import cache, sample
from flanjax.models.build import abstract_params, build_model
from flanjax.models.layers import unstack_layers
from flanjax.ops.collectives import Collective, collectives
from flanjax.train.mesh import (
    batch_sharding,
    check_batch_size,
    check_heads,
    check_lengths,
    feature_sharding,
    laid_out,
    make_mesh,
)
from flanjax.train.optim import make_optimizer
from flanjax.train.state import (
    Trainable,
    TrainState,
    abstract_state,
    merge_params,
    state_shardings,
)
from flanjax.train.step import TrainStep, make_train_step
from flanjax.train.trainable import trainable


@dataclasses.dataclass(frozen=True)
class Subject:
    """A run's programs before they are compiled, on a mesh.

    Attributes:
      config: the run's.
      model: from `build_model`.
      mesh: over the devices compiled for.
      trained: predicate on parameters' paths; None trains everything.
      state: ShapeDtypeStructs with shardings.
      batch: a training batch, likewise ShapeDtypeStructs.
      step: the train step.
    """

    config: RunConfig
    model: Any
    mesh: Mesh
    trained: Trainable | None
    state: TrainState
    batch: dict[str, Any]
    step: TrainStep


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device while a program runs.

    Attributes:
      arguments: what it is given: the state and a batch.
      outputs: what it makes beyond what it writes over its arguments.
      temporaries: what it needs in between: activations, gradients, gathered weights.
      code: the program itself.
      peak: the most that lies there at once.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    peak: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program's figures.

    Attributes:
      seconds: tracing and compiling took.
      memory: None where the compiler gave up because memory does not suffice.
      needed: bytes of one device, in both cases.
      collectives: what devices tell each other in one run of the program.
    """

    seconds: float
    memory: Memory | None
    needed: int
    collectives: tuple[Collective, ...]


def build(config: RunConfig, devices: Sequence[Any]) -> Subject:
    """Traces nothing yet; refuses what training would refuse.

    Args:
      config: the run's.
      devices: all of the mesh's.

    Raises:
      ConfigError: model, mesh and batch do not fit together.
    """
    model, mesh = build_model(config.model), make_mesh(config.mesh, devices)
    check_batch_size(config.data.batch_size, config.microbatches, mesh)
    check_heads(config.model.num_heads, mesh)
    features = layout_of(config, model.kind).features
    check_lengths(features, mesh)
    trained = trainable(config)
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    state = abstract_state(model, optimizer, mesh, trained)
    batch = {
        name: jax.ShapeDtypeStruct(
            (config.data.batch_size, length), jnp.int32, sharding=feature_sharding(mesh)
        )
        for name, length in features.items()
    }
    step = make_train_step(
        model,
        optimizer,
        config.loss,
        mesh,
        state_shardings(state),
        microbatches=config.microbatches,
        norms=config.monitor.group_norms,
    )
    return Subject(config, model, mesh, trained, state, batch, step)


def layout_of(config: RunConfig, kind: str) -> Layout:
    """The shapes of a run's rows; which tokens wrap an example does not matter."""
    lengths = config.data.feature_lengths
    return Layout(kind, int(lengths["inputs"]), int(lengths["targets"]))


def compile_train_step(subject: Subject) -> Compiled:
    """Compiles exactly what training runs."""
    return _compile(
        lambda: subject.step.lower(subject.state, subject.batch), subject.mesh
    )


def compile_decode_step(subject: Subject, new_tokens: int) -> Compiled:
    """Compiles greedy decoding of one evaluation batch of the longest prompts.

    Args:
      subject: from `build`.
      new_tokens: room for the answer.
    """
    config, model, mesh = subject.config, subject.model, subject.mesh
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = -(-config.eval.batch_size // parts) * parts
    length = layout_of(config, model.kind).inputs_length

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.int32, sharding=batch_sharding(mesh))

    if model.kind == "encoder_decoder":
        prompts = {"encoder_input_tokens": shape(rows, length)}
    else:
        prompts = {"decoder_input_tokens": shape(rows, length), "lengths": shape(rows)}
    params = merge_params(subject.state.params, subject.state.frozen)

    def decode(params: Any, prompts: Any, forced: jax.Array):
        # As the evaluator does it, in one program.
        with laid_out(mesh):
            state, logits = sample.start(model, params, prompts, new_tokens)
            stepper, stepped = model, params
            if model.config.scan_layers:
                stepper = cache.unstacked_model(model)
                stepped = unstack_layers(params)
            return sample.greedy_from(
                stepper, stepped, state, logits, forced, 1, new_tokens
            )

    forced = shape(rows, new_tokens)
    return _compile(lambda: jax.jit(decode).lower(params, prompts, forced), mesh)


def _compile(lower: Any, mesh: Mesh) -> Compiled:
    start = time.monotonic()
    lowered = lower()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        return Compiled(time.monotonic() - start, None, needed, ())
    seconds = time.monotonic() - start
    analysis = program.memory_analysis()
    arguments = analysis.argument_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    temporaries = analysis.temp_size_in_bytes
    code = analysis.generated_code_size_in_bytes
    memory = Memory(
        arguments, outputs, temporaries, code, arguments + outputs + temporaries + code
    )
    found = tuple(collectives(program.as_text(), mesh))
    return Compiled(seconds, memory, memory.peak, found)


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _needed(message: str) -> int | None:
    """Bytes that libtpu would need of its device's memory, from its refusal."""
    match = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    match = match or re.search(
        r"memory required .{0,40}\(([\d.]+)([KMGT])\) exceeds", message
    )
    return int(float(match[1]) * _UNITS[match[2]]) if match else None
