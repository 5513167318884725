"""One training step, pure and compiled with shardings.

    train_step = make_train_step(model, optimizer, loss_config, mesh, shardings)
    state, metrics = train_step(state, batch)       # the old state is donated
    train_step.lower(abstract_state, abstract_batch).compile().memory_analysis()

Microbatches are parts of one batch: losses and gradients are summed over them and
divided once, by the weight of the whole batch, so their number changes no result.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flanjax.models.loss import LossConfig, loss_and_metrics, normalizer
from flanjax.train.mesh import feature_sharding, laid_out, replicated
from flanjax.train.monitor import group_norms
from flanjax.train.optim import Optimizer
from flanjax.train.state import TrainState, merge_params

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainStep:
    """The compiled step: `new_state, metrics = train_step(state, batch)`."""

    def __init__(self, compiled: Any):
        self._compiled = compiled

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Takes one step; donates the state, not its frozen parameters."""
        changing, frozen = state.replace(frozen={}), state.frozen
        new, metrics = self._compiled(changing, frozen, dict(batch))
        return new.replace(frozen=frozen), metrics

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Traces and lowers the step for abstract or real arguments; runs nothing."""
        return self.trace(state, batch).lower()

    def trace(self, state: TrainState, batch: Batch) -> jax.stages.Traced:
        """The step's operations for such arguments: `trace(...).jaxpr`."""
        return self._compiled.trace(state.replace(frozen={}), state.frozen, dict(batch))

    @property
    def compiles(self) -> int:
        """How many programs were compiled; more than one means that shapes changed."""
        return self._compiled._cache_size()


def make_train_step(
    model: Any,
    optimizer: Optimizer,
    loss_config: LossConfig,
    mesh: Mesh,
    shardings: TrainState,
    *,
    microbatches: int = 1,
    norms: bool = False,
) -> TrainStep:
    """Compiles (state, batch) -> (state, metrics).

    Args:
      model: as `build_model` makes it.
      optimizer: as `make_optimizer` makes it.
      loss_config: loss and its normaliser.
      mesh: devices.
      shardings: of the state, as `state_shardings` gives them.
      microbatches: parts the batch is processed in; `check_batch_size` says whether
        the batch divides.
      norms: also give `grad_norm/<group>` and `param_norm/<group>`, of the gradients
        before clipping and of the parameters before the update.

    Returns:
      A function that donates the state (not its frozen parameters). A step whose loss
      or gradient norm is not finite changes nothing but `state.step`. Metrics are
      float32 device scalars: loss and z_loss (means per target token), loss_sum (as
      the loss has it, not divided), weight_sum, accuracy, grad_norm (before clipping),
      learning_rate and skipped (0 or 1).
    """
    stored = shardings.params
    drops = max(model.config.dropout_rate, model.config.lora.dropout) > 0

    def gradient(params: Any, frozen: Any, part: Batch, rng: jax.Array):
        """Sums of one microbatch (the loss among them) and gradients of the loss."""

        def loss(params: Any):
            return loss_and_metrics(
                model,
                merge_params(params, frozen),
                part,
                loss_config,
                dropout_rng=rng if drops else None,
            )

        with laid_out(mesh):
            (loss_sum, sums), grads = jax.value_and_grad(loss, has_aux=True)(params)
        grads = jax.lax.with_sharding_constraint(grads, stored)
        return sums | {"loss_sum": loss_sum}, grads

    accumulate = _accumulated(gradient, microbatches, feature_sharding(mesh))

    def step(state: TrainState, frozen: Any, batch: Batch):
        rng = jax.random.fold_in(state.rng, state.step)
        sums, grads = accumulate(state.params, frozen, batch, rng)
        divisor = normalizer(loss_config, sums)
        # A batch without any target has sums of zero, which should stay zero.
        divisor = jnp.where(divisor == 0, 1.0, divisor)
        grads = jax.tree.map(lambda g: g / divisor, grads)
        new, metrics = _update(optimizer, state, sums, grads)
        if norms:
            metrics |= group_norms(grads, "grad_norm")
            metrics |= group_norms(state.params, "param_norm")
        return new, metrics

    changing = shardings.replace(frozen={})
    return TrainStep(
        jax.jit(
            step,
            in_shardings=(changing, shardings.frozen, feature_sharding(mesh)),
            out_shardings=(changing, replicated(mesh)),
            donate_argnums=0,
        )
    )


def _accumulated(
    gradient: Callable[..., tuple[Metrics, Any]], count: int, whole: NamedSharding
) -> Callable[..., tuple[Metrics, Any]]:
    """As `gradient`, with the batch in `count` parts whose results are added up."""
    if count == 1:
        return gradient

    sharding = NamedSharding(whole.mesh, PartitionSpec(None, *whole.spec))

    def accumulate(params: Any, frozen: Any, batch: Batch, rng: jax.Array):
        def add(total: Any, part: tuple[Batch, jax.Array]):
            return jax.tree.map(jnp.add, total, gradient(params, frozen, *part)), None

        parts = {k: _parts(x, count, sharding) for k, x in batch.items()}
        scanned = (parts, jax.random.split(rng, count))
        first = jax.tree.map(lambda x: x[0], scanned)
        shapes = jax.eval_shape(gradient, params, frozen, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, scanned)[0]

    return accumulate


def _parts(x: jax.Array, count: int, sharding: NamedSharding) -> jax.Array:
    """Splits rows [batch, ...] into [count, batch / count, ...].

    Part i takes rows i, i + count, ...: each device cuts its own rows, so that every
    part is spread over all devices and nothing moves between them.
    """
    parts = x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(parts, sharding)


def _update(
    optimizer: Optimizer, state: TrainState, sums: Metrics, grads: Any
) -> tuple[TrainState, Metrics]:
    """Applies the gradients unless they or the loss are not finite."""
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss_sum"])
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = (optax.apply_updates(state.params, updates), opt_state)
    old = (state.params, state.opt_state)
    params, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    # The weight that `loss_sum` has: of examples where each counts the same, else
    # of tokens.
    weight = jnp.maximum(sums["sequences"], 1e-9)
    metrics = {
        "loss": sums["loss_sum"] / weight,
        "z_loss": sums["z_loss"] / weight,
        "loss_sum": sums["loss_sum"],
        "weight_sum": sums["weight_sum"],
        "accuracy": sums["correct"] / jnp.maximum(sums["weight_sum"], 1e-9),
        "grad_norm": norm,
        "learning_rate": optimizer.schedule(state.opt_state.count),
        "skipped": 1.0 - finite.astype(jnp.float32),
    }
    state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
    return state, metrics
