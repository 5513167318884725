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
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Mapping[str, tuple[str, ...]]
Names = Sequence[str | None]


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
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, spec))


class Gathering(NamedTuple):
    """How a parameter that is stored in more parts than it is used in is gathered.

    Axis `name` of the parameter is used as axis `activation_<name>` of activations
    lies: what FSDP splits for storage only is whole while a layer computes with it.

    Attributes:
      stored: the layout in the state, of its gradient too.
      used: the layout in a layer.
      copies: of the parameter in the mesh, each with its own part of the rows.
      summands: layout of [copies, *shape], a gradient for each copy.
      in_loop: layers run in a loop, whose backward pass is another loop.
    """

    stored: NamedSharding
    used: NamedSharding
    copies: int
    summands: NamedSharding
    in_loop: bool

    def gather(self, parameter: jax.Array) -> jax.Array:
        """The parameter as it is used."""
        # Said of both ends, or the gather may move ahead of the cast to bfloat16.
        for sharding in (self.stored, self.used):
            parameter = jax.lax.with_sharding_constraint(parameter, sharding)
        return parameter

    def gather_again(self, parameter: jax.Array) -> jax.Array:
        """As `gather`, in the backward pass."""
        if not self.in_loop:
            # Or XLA would keep what the forward pass gathered.
            parameter = jax.lax.optimization_barrier(parameter)
        return self.gather(parameter)

    def add_up(self, summands: jax.Array) -> jax.Array:
        """A gradient from those of the copies, [copies, *shape], as it is stored.

        Adding up within a copy first leaves each device a part of the sum, and only
        parts go between copies, which may lie in different slices.
        """
        summands = jax.lax.with_sharding_constraint(summands, self.summands)
        total = jnp.sum(summands, axis=0)
        return jax.lax.with_sharding_constraint(total, self.stored)


def gathering(
    names: Names, shape: Sequence[int], in_loop: bool = True
) -> Gathering | None:
    """How to gather a parameter; None where it is used as it is stored."""
    layout = _layout.get()
    if layout is None:
        return None
    mesh, rules = layout

    def lying(names: Names, shape: Sequence[int]) -> NamedSharding:
        return NamedSharding(mesh, axes_spec(names, shape, mesh, rules))

    stored = lying(names, shape)
    used = lying([name and f"activation_{name}" for name in names], shape)
    if stored == used:
        return None
    copies = math.prod(mesh.shape[axis] for axis in rules["copy_batch"])
    summands = lying(("copy_batch", *names), (copies, *shape))
    return Gathering(stored, used, copies, summands, in_loop)


def at_use(parameter: jax.Array, names: Names) -> jax.Array:
    """A parameter, by the names of its axes, as it lies where it is used."""
    found = gathering(names, parameter.shape)
    return parameter if found is None else found.gather(parameter)


def parts(name: str, size: int) -> int:
    """In how many parts an axis of this name and size is split."""
    layout = _layout.get()
    if layout is None:
        return 1
    (axes,) = axes_spec((name,), (size,), *layout)
    # A PartitionSpec has a single axis as its bare name.
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(layout.mesh.shape[axis] for axis in axes)


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
