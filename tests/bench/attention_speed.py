"""What attention over blocks of keys costs and saves beside keeping all probabilities.

    python tests/bench/attention_speed.py [--lengths 512 1024 2048 4096]

One causal layer of packed rows, forward and backward, on this machine's default device:
seconds and CPU seconds (the median of interleaved runs) and the temporary memory that
XLA plans, for each implementation that runs here.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.models.attention import segment_mask
from flanjax.models.attention_blockwise import blockwise_attention
from flanjax.models.attention_choice import Packing, keys_in_a_block, platform
from flanjax.models.attention_dense import dense_attention
from flanjax.models.attention_kernels import (
    cudnn_attention,
    flash_attention,
    splash_attention,
)
from flanjax.train.process import keep_freed_memory


def implementations(length):
    """The functions of queries, keys, values and segments that this platform has."""
    block = keys_in_a_block(length)

    def mask(segments):
        return segment_mask(segments, segments, causal=True)

    def packing(segments):
        return Packing(segments, segments, "causal")

    found = {
        "xla": lambda q, k, v, s: dense_attention(q, k, v, mask(s), None, None),
        "blockwise": lambda q, k, v, s: blockwise_attention(
            q, k, v, mask(s), None, block
        ),
    }
    if platform() == "tpu":
        found["splash"] = lambda q, k, v, s: splash_attention(q, k, v, packing(s))
        found["flash"] = lambda q, k, v, s: flash_attention(q, k, v, packing(s))
    if platform() == "gpu":
        found["cudnn"] = lambda q, k, v, s: cudnn_attention(q, k, v, mask(s))
    return found


def measure(length, args):
    """Prints a line for each implementation at one length."""
    segments = jnp.asarray(np.arange(length)[None].repeat(args.rows, 0) // 300 + 1)
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (args.rows, length, args.heads, 64)
    query, cotangent = (jax.random.normal(k, shape, args.dtype) for k in keys[:2])
    key, value = (
        jax.random.normal(k, (args.rows, args.heads, length, 64), args.dtype)
        for k in keys[2:]
    )
    arguments = (query / 8, key, value)

    def both_ways(function):
        def run(arguments, segments, cotangent):
            result, pull = jax.vjp(lambda *x: function(*x, segments), *arguments)
            return result, pull(cotangent)

        return jax.jit(run).lower(arguments, segments, cotangent).compile()

    programs = {
        name: both_ways(function) for name, function in implementations(length).items()
    }
    wall, cpu = ({name: [] for name in programs} for _ in range(2))
    for _ in range(args.runs):
        for name, program in programs.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(arguments, segments, cotangent))
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    for name, program in programs.items():
        memory = program.memory_analysis().temp_size_in_bytes / 1e6
        print(
            f"{args.rows} x {length}, {args.heads} heads, {name}: "
            f"{statistics.median(wall[name]) * 1e3:,.1f} ms, CPU "
            f"{statistics.median(cpu[name]) * 1e3:,.1f} ms, temporary {memory:,.0f} MB",
            flush=True,
        )


def main():
    """Measures every length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    keep_freed_memory()
    for length in args.lengths:
        measure(length, args)


if __name__ == "__main__":
    main()
