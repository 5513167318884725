"""Collectives are read from every way XLA writes them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flanjax.ops.collectives import collectives, summary
from flanjax.train.mesh import MeshConfig, make_mesh

PROGRAM = """HloModule jit_step, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {{
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}}

%condition.1 (state: (s32[], f32[16])) -> pred[] {{
  %limit.1 = s32[]{{:T(128)}} constant(5)
  %state = (s32[], f32[16]) parameter(0)
  %counter = s32[]{{:T(128)}} get-tuple-element(%state), index=0
  ROOT %less = pred[]{{:T(512)}} compare(%counter, %limit.1), direction=LT
}}

%body.1 (state: (s32[], f32[16])) -> (s32[], f32[16]) {{
{operation}
}}

ENTRY %main (input: f32[16]) -> f32[16] {{
  %tuple = (s32[], f32[16]) tuple(%input)
  %loop = (s32[], f32[16]) while(%tuple), condition=%condition.1, body=%body.1
}}
"""


def read(operation):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    (one,) = collectives(PROGRAM.format(operation=operation), mesh)
    return one


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("{{0,1,4,5},{2,3,6,7}}", ("data", "tensor")),
        ("[4,2]<=[8]", ("tensor",)),
        ("[2,4]<=[4,2]T(1,0)", ("data", "fsdp")),
        ("mesh['data'=2,'fsdp'=2,'sequence'=1,'tensor'=2] {'fsdp'}", ("fsdp",)),
        ("mesh['axis_0'=8] {'axis_0'}", ("data", "fsdp", "tensor")),
        ("{}", ("data", "fsdp", "tensor")),
        # The product of no axes.
        ("{{0,3},{1,2},{4,7},{5,6}}", ()),
    ],
)
def test_groups_of_devices_are_mesh_axes(groups, axes):
    one = read(
        "  %g = f32[16,8]{1,0} all-gather(%x), channel_id=3, "
        f'replica_groups={groups}, dimensions={{0}}, metadata={{op_name="layer/wi"}}'
    )
    assert (one.kind, one.axes, one.bytes, one.name) == (
        "all-gather",
        axes,
        16 * 8 * 4,
        "layer/wi",
    )
    assert (one.times, one.exact) == (5, True)


@pytest.mark.parametrize(
    ("operation", "kind", "size"),
    [
        ("(f32[2], bf16[16,4]) all-reduce(%a, %b)", "all-reduce", 2 * 4 + 64 * 2),
        ("f32[4]{0} reduce-scatter(%a)", "reduce-scatter", 4 * 2 * 4),
        ("(f32[8], f32[16]) all-gather-start(%a)", "all-gather", 16 * 4),
        ("(f32[8], f32[8], u32[], u32[]) collective-permute-start(%a)", None, 8 * 4),
    ],
)
def test_sizes_are_those_of_the_larger_side(operation, kind, size):
    pairs = "source_target_pairs={{0,1},{1,0}}"
    one = read(f"  %c = {operation}, replica_groups=[4,2]<=[8], {pairs}")
    assert (one.kind, one.bytes) == (kind or "collective-permute", size)
    assert one.axes == ("tensor",)


def test_tpu_fusions_are_reduce_scatters_and_pieces_of_one_collective_count_once():
    line = "  %r{0} = f32[16] all-reduce(%x), channel_id=7, replica_groups=[1,8]<=[8]"
    fused = "%all-reduce-scatter.1 (x: f32[16]) -> f32[16] {\n" + line.format(0) + "\n}"
    calls = "\n".join(
        f"  %f{i} = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
        for i in range(3)
    )
    text = PROGRAM.format(operation=calls).replace("%body.1 (", fused + "\n\n%body.1 (")
    (one,) = collectives(text)
    assert (one.kind, one.times, one.bytes) == ("reduce-scatter", 5, 64)


def test_a_loop_that_ends_by_its_data_counts_one_round_and_says_so():
    mesh = make_mesh(MeshConfig(8, 1, 1))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def halve(x):
        def body(x):
            return x * 0.5 + jnp.sum(x) * 1e-3

        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, body, x)

    x = jax.ShapeDtypeStruct((16,), jnp.float32, sharding=rows)
    found = collectives(jax.jit(halve).lower(x).compile().as_text(), mesh)
    assert found and not any(one.exact for one in found)
    assert summary(found) == [
        f"all-reduce over data: {len(found)} or more of at most 4 bytes, "
        f"{4 * len(found)} in all"
    ]
