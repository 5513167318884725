"""The training state: step, parameters, optimiser state and random key.

    state = init_state(model, optimizer, jax.random.PRNGKey(0), mesh)
    logits = model.apply({"params": merge_params(state.params, state.frozen)}, batch)

Parameters that are not trained (the base model under LoRA) live in `frozen`: they have
no optimiser state, and steps hand them on without touching or copying them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flanjax.errors import CheckpointError
from flanjax.models.build import abstract_params, init_params
from flanjax.train.mesh import param_shardings, replicated
from flanjax.train.optim import Optimizer
from flanjax.train.trees import flatten, unflatten

Trainable = Callable[[Sequence[str]], bool]


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes, and the frozen parameters.

    Attributes:
      step: int32 scalar, steps done, skipped ones included.
      params: trained parameters, nested dicts.
      frozen: the others; same form, {} when all are trained.
      opt_state: of the trained parameters.
      rng: uint32 key data; each step folds its number into it.
    """

    step: Any
    params: Any
    frozen: Any
    opt_state: Any
    rng: Any


def split_params(tree: Mapping[str, Any], trainable: Trainable | None) -> tuple:
    """Splits nested dicts into (trained, frozen) by a predicate on the path of names.

    `trainable=None` trains everything.
    """
    if trainable is None:
        return dict(tree), {}
    flat = flatten(tree)
    chosen = {k: leaf for k, leaf in flat.items() if trainable(tuple(k.split("/")))}
    rest = {k: leaf for k, leaf in flat.items() if k not in chosen}
    return unflatten(chosen), unflatten(rest)


def merge_params(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
    """Undoes `split_params`."""
    return unflatten(flatten(params) | flatten(frozen))


def abstract_state(
    model: Any, optimizer: Optimizer, mesh: Mesh, trainable: Trainable | None = None
) -> TrainState:
    """The state as ShapeDtypeStructs with shardings, computing nothing.

    Raises:
      ConfigError: a parameter cannot be laid out on the mesh; names it.
    """
    shapes, axes = abstract_params(model)
    params, frozen = split_params(shapes, trainable)
    params_axes, frozen_axes = split_params(axes, trainable)
    opt_state = jax.eval_shape(optimizer.init, params)
    shapes = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        frozen=frozen,
        opt_state=opt_state,
        rng=jax.ShapeDtypeStruct((2,), jnp.uint32),
    )
    shardings = TrainState(
        step=replicated(mesh),
        params=param_shardings(params_axes, params, mesh),
        frozen=param_shardings(frozen_axes, frozen, mesh),
        opt_state=param_shardings(optimizer.state_axes(params), opt_state, mesh),
        rng=replicated(mesh),
    )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        shardings,
    )


def state_shardings(state: TrainState) -> TrainState:
    """The shardings of an abstract or real state, leaf by leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def init_state(
    model: Any,
    optimizer: Optimizer,
    rng: jax.Array,
    mesh: Mesh,
    *,
    params: Mapping[str, Any] | None = None,
    take_params: bool = False,
    trainable: Trainable | None = None,
) -> TrainState:
    """Makes a sharded state; nothing is ever whole on one device.

    Args:
      model: as `build_model` makes it.
      optimizer: as `make_optimizer` makes it.
      rng: raw key (`jax.random.PRNGKey`) for initialisation and for dropout.
      mesh: where the state lies; the values do not depend on it.
      params: given values; those they lack (fresh LoRA adapters) are initialised.
        They are copied, never donated, unless `take_params`.
      take_params: `params` are jax.Arrays that are the state's from here on, so that a
        model that was placed on the mesh is not there twice.
      trainable: predicate on paths of names; None trains everything.

    Raises:
      CheckpointError: `params` holds a parameter the model lacks or of another shape.
    """
    abstract = abstract_state(model, optimizer, mesh, trainable)
    wanted = flatten(merge_params(abstract.params, abstract.frozen))
    given = flatten(params or {})
    _check_given(given, wanted)
    missing = {path: leaf for path, leaf in wanted.items() if path not in given}
    flat = draw_params(model, rng, missing)
    for path, value in given.items():
        # A copy of its own: steps donate it, and the caller may still need his.
        value = value.astype(wanted[path].dtype)
        flat[path] = jax.device_put(value, wanted[path].sharding, may_alias=take_params)
    values, frozen = split_params(unflatten(flat), trainable)
    init_optimizer = jax.jit(
        optimizer.init, out_shardings=state_shardings(abstract.opt_state)
    )
    return TrainState(
        step=jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh)),
        params=values,
        frozen=frozen,
        opt_state=init_optimizer(values),
        rng=jax.device_put(jax.random.split(rng)[1], replicated(mesh)),
    )


def draw_params(
    model: Any, rng: jax.Array, wanted: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Draws some of a model's parameters, the same whichever others are asked for.

    Args:
      model: as `build_model` makes it.
      rng: the raw key `init_state` gets.
      wanted: {path: ShapeDtypeStruct with a sharding}.

    Returns:
      {path: array}; the values do not depend on the shardings.
    """
    if not wanted:
        return {}

    def draw(rng: jax.Array) -> dict:
        values = flatten(init_params(model, rng)[0])
        return {path: values[path] for path in wanted}

    shardings = {path: leaf.sharding for path, leaf in wanted.items()}
    return jax.jit(draw, out_shardings=shardings)(jax.random.split(rng)[0])


def _check_given(given: Mapping, wanted: Mapping) -> None:
    for path, value in given.items():
        expected = wanted[path].shape if path in wanted else "absent"
        if expected != tuple(value.shape):
            raise CheckpointError(
                f"the weights do not fit the model: {path} is "
                f"{tuple(value.shape)} in the weights and {expected} in the model",
                fix="choose the model configuration these weights were made with",
            )
