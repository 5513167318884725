"""What a run takes of each device's memory, estimated without compiling it.

    estimate = estimate_memory(build(config, devices))
    estimate.peak, estimate.parameters, estimate.optimizer       # bytes of one device

Parameters, optimiser state and gradients are exact: their shapes and shardings are
those of the run. Activations come from the traced train step, whose shapes say what
the remat policy keeps, what microbatches share and what the loss scores at once; how
XLA lays them out in time is a model (`flanjax.ops.liveness`). It comes within a tenth
of the compiled peak where activations are most of it; where a device is nearly empty
(a few rows on hundreds of devices) XLA spends more on gathering weights ahead of time,
and the estimate is too low: there the compiled figure counts.
"""

import dataclasses
from typing import Any

import jax

from flanjax.ops.liveness import local_bytes, peak_bytes
from flanjax.ops.preflight_compile import Subject
from flanjax.ops.propagation import spec_of


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes of one device at the fullest moment of a train step.

    Attributes:
      parameters: trained and frozen ones.
      optimizer: its state.
      gradients: of the trained parameters, as long as they are all there.
      batch: the features.
      activations: what else lives: saved and recomputed activations, attention
        matrices, a chunk of logits, gathered weights.
    """

    parameters: int
    optimizer: int
    gradients: int
    batch: int
    activations: int

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def estimate_memory(subject: Subject) -> Estimate:
    """Traces the train step (seconds) and counts.

    Args:
      subject: from `flanjax.ops.preflight_compile.build`.
    """
    state, batch, sizes = subject.state, subject.batch, dict(subject.mesh.shape)

    def held(tree: Any) -> int:
        return sum(
            local_bytes(
                leaf.shape,
                leaf.dtype.itemsize,
                spec_of(leaf.sharding, leaf.ndim),
                sizes,
            )
            for leaf in jax.tree.leaves(tree)
        )

    traced = subject.step.trace(state, batch)
    arguments = jax.tree.leaves((state.replace(frozen={}), state.frozen, batch))
    layouts = [spec_of(x.sharding, len(x.shape)) for x in arguments]
    made = peak_bytes(traced.jaxpr, layouts, sizes)
    gradients = min(held(state.params), made)
    return Estimate(
        parameters=held(state.params) + held(state.frozen),
        optimizer=held(state.opt_state),
        gradients=gradients,
        batch=held(batch),
        activations=made - gradients,
    )
