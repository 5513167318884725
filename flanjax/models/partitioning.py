"""Where activations lie on the mesh: models name the axes of arrays, a context decides.

    with partitioned(mesh, rules):                   # while a function is traced
        x = constrain(x, ("batch", "length", "activation_embed"))

Without the context, or on one device, `constrain` and `at_use` return what they get, so
that models know nothing of meshes. The table of rules is `flanjax.train.mesh.RULES`.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Mapping[str, tuple[str, ...]]
Names = Sequence[str | None]

_ACTIVATION, _GATHERED = "laid out activation", "gathered parameter"


class _Layout(NamedTuple):
    mesh: Mesh
    rules: Rules


_layout: contextvars.ContextVar[_Layout | None] = contextvars.ContextVar(
    "layout", default=None
)


@contextlib.contextmanager
def partitioned(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Lets the functions below follow `rules` on `mesh` while in this context.

    Args:
      mesh: devices with named axes.
      rules: logical axis -> mesh axes that shard it.
    """
    # On one device constraints say nothing, and would keep XLA from fusing.
    token = _layout.set(_Layout(mesh, rules) if mesh.size > 1 else None)
    try:
        # JAX keeps traces apart by its own mesh context, not by ours.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield
    finally:
        _layout.reset(token)


@contextlib.contextmanager
def unpartitioned() -> Iterator[None]:
    """Turns the functions below off, for code that places its arrays itself."""
    token = _layout.set(None)
    try:
        yield
    finally:
        _layout.reset(token)


def axes_spec(
    names: Names, shape: Sequence[int], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    """The mesh axes that shard an activation of this shape.

    A mesh axis goes to the first dimension that asks for it and that it divides: a
    single token of a decoding step is not split over the sequence axis.
    """
    used: set[str] = set()
    spec = []
    for name, size in zip(names, shape, strict=True):
        axes: list[str] = []
        for axis in rules[name] if name is not None else ():
            parts = math.prod(mesh.shape[a] for a in (*axes, axis))
            if axis not in used and size % parts == 0:
                axes.append(axis)
        used.update(axes)
        spec.append(tuple(axes) or None)
    return PartitionSpec(*spec)


def constrain(x: jax.Array, names: Names) -> jax.Array:
    """Lays an array out by the logical names of its axes (None: not split)."""
    layout = _layout.get()
    if layout is None:
        return x
    spec = axes_spec(names, x.shape, *layout)
    x = jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, spec))
    return checkpoint_name(x, _ACTIVATION)


def at_use(parameter: jax.Array, names: Names) -> jax.Array:
    """Gathers a parameter for its use; its gradient is laid out as it is stored.

    Axis `name` of the parameter lies as axis `activation_<name>` of activations does:
    what FSDP splits for storage only is whole while a layer computes with it.
    """
    layout = _layout.get()
    if layout is None:
        return parameter
    mesh, rules = layout
    stored, used = (
        NamedSharding(mesh, axes_spec(axes, parameter.shape, mesh, rules))
        for axes in (names, [name and f"activation_{name}" for name in names])
    )
    if stored == used:
        return parameter
    # Said of both ends, or the gather may move ahead of the cast to bfloat16. Backwards
    # they say that the gradient is added up and each device keeps its part of it.
    for sharding in (stored, used):
        parameter = jax.lax.with_sharding_constraint(parameter, sharding)
    return checkpoint_name(parameter, _GATHERED)


def gathers() -> bool:
    """Whether parameters lie in more parts than layers use them in (FSDP)."""
    layout = _layout.get()
    if layout is None:
        return False
    mesh, rules = layout
    return any(
        mesh.shape[axis] > 1
        for name, axes in rules.items()
        for axis in axes
        if axis not in rules.get(f"activation_{name}", axes)
    )


def save_all_but_gathered(primitive: Any, *_: Any, **params: Any) -> bool:
    """Remat policy: the backward pass keeps all it needs but gathered parameters.

    They are gathered again: kept, they would be the whole model on every device.
    """
    if primitive.name == "name":
        return params["name"] != _GATHERED
    # Constraints on activations are kept under their name, those of gathers are not.
    return primitive.name != "sharding_constraint"


def parts(name: str, size: int) -> int:
    """In how many parts an axis of this name and size is split."""
    layout = _layout.get()
    if layout is None:
        return 1
    (axes,) = axes_spec((name,), (size,), *layout)
    return math.prod(layout.mesh.shape[axis] for axis in axes or ())


def on_shards(
    function: Callable[..., Any],
    arguments: Sequence[tuple[jax.Array, Names]],
    result: Names,
    result_shape: Sequence[int],
) -> jax.Array:
    """Runs a function on each device's part of its arguments, for kernels.

    XLA cannot split a hand-written kernel, so that it is given parts and makes parts.

    Args:
      function: from arrays (parts of them) to one array (its part).
      arguments: arrays with the names of their axes.
      result: names of the result's axes.
      result_shape: of the whole result.
    """
    arrays = [x for x, _ in arguments]
    layout = _layout.get()
    if layout is None:
        return function(*arrays)
    specs = tuple(axes_spec(names, x.shape, *layout) for x, names in arguments)
    return jax.shard_map(
        function,
        mesh=layout.mesh,
        in_specs=specs,
        out_specs=axes_spec(result, result_shape, *layout),
        check_vma=False,
    )(*arrays)
