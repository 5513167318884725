"""How fast plans are made, how full their rows are, and how soon any batch is found.

    python tests/bench/plan_speed.py [--tasks 1836] [--examples 15000000] [--block 8192]

FLAN-like lengths (inputs log-normal of mean 150 and sigma 0.9, targets of mean 20 and
sigma 1.0). First the rows that flanjax and SeqIO need for the same examples; then a
plan of `--examples` examples in tasks of 1 to 300 times the size of the smallest:
building its row counts once, and in a fresh process opening it and asking for batches
anywhere.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flanjax.data.layout import Layout
from flanjax.data.packing import pack
from flanjax.data.plan import Plan, PlanMember
from flanjax.data.row_counts import RowCounts

LAYOUTS = {
    "encoder-decoder 1024/256": Layout("encoder_decoder", 1024, 256),
    "decoder 2048": Layout("decoder", 1792, 256),
}
BATCH_SIZE = 64


def draw_lengths(count: int, seed: int) -> np.ndarray:
    """FLAN-like raw lengths, int32 [count, 2]: log-normal of mean 150 and 20."""
    random = np.random.default_rng(seed)
    inputs = random.lognormal(np.log(150) - 0.9**2 / 2, 0.9, count).clip(1, 4096)
    targets = random.lognormal(np.log(20) - 1.0**2 / 2, 1.0, count).clip(1, 1024)
    return np.stack([inputs, targets], axis=1).astype(np.int32)


def seqio_rows(sizes: np.ndarray, limits: tuple[int, int]) -> int:
    """Rows of SeqIO's packing: in order, a row is closed by what does not fit.

    It packs within batches of as many examples as the longest feature has tokens
    (`seqio.utils._pack_with_tf_ops`).
    """
    rows = 0
    for start in range(0, len(sizes), max(limits)):
        room = [-1, -1]
        for size in sizes[start : start + max(limits)].tolist():
            if size[0] > room[0] or size[1] > room[1]:
                rows += 1
                room = list(limits)
            room = [room[0] - size[0], room[1] - size[1]]
    return rows


def packing(layout: Layout, count: int, seed: int = 0) -> dict[str, float]:
    """Fill of both limits, rows, rows SeqIO needs, and speed of one block."""
    sizes = layout.sizes(draw_lengths(count, seed))
    start = time.process_time()
    _, starts = pack(sizes, layout.limits)
    seconds = time.process_time() - start
    rows = len(starts) - 1
    inputs, targets = (sizes.sum(axis=0) / np.maximum(layout.limits, 1) / rows).tolist()
    return {
        "examples": count,
        "rows": rows,
        "fill": inputs,
        "targets fill": targets,
        "SeqIO's rows": seqio_rows(sizes, layout.limits),
        "examples/s": round(count / seconds),
    }


def make_plan(tasks: int, examples: int, block: int, counts: Path) -> Plan:
    """A mixture by size up to a cap of 3,000, with its row counts in a file."""
    random = np.random.default_rng(0)
    weights = np.exp(random.uniform(0, np.log(300), tasks))
    sizes = np.maximum((weights / weights.sum() * examples).astype(int), 1)
    shares = np.minimum(sizes, 3000) / np.minimum(sizes, 3000).sum()
    pool = draw_lengths(1 << 18, 0)
    members = [
        PlanMember(f"task{i}", pool[(np.arange(size) + i) % len(pool)], float(share))
        for i, (size, share) in enumerate(zip(sizes, shares, strict=True))
    ]
    plan = Plan(members, LAYOUTS["encoder-decoder 1024/256"], 0, block)
    plan.row_counts = RowCounts(counts)
    return plan


def measure(args: argparse.Namespace, counts: Path) -> dict[str, float]:
    """Opens the plan and answers eleven batch numbers from all over it."""
    start = time.perf_counter()
    plan = make_plan(args.tasks, args.examples, args.block, counts)
    plan.fingerprint  # noqa: B018 (every run computes it when it opens its data)
    opened = time.perf_counter() - start
    blocks, last = args.examples // args.block, 0
    rows = sum(plan.row_counts.get(block) or 0 for block in range(blocks))
    if rows == 0:
        start = time.perf_counter()
        for block in range(blocks):
            plan.block(block)
        return {"open s": opened, "build s": time.perf_counter() - start}
    slowest = 0.0
    for part in (0, 9, 3, 7, 1, 5, 2, 10, 4, 8, 6):
        last = rows // BATCH_SIZE * part // 11
        start = time.perf_counter()
        plan.rows(plan.position_of(last, BATCH_SIZE), BATCH_SIZE)
        slowest = max(slowest, time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1000
    return {"open s": opened, "slowest batch s": slowest, "peak MB": peak}


def main() -> None:
    """Prints the packing table, then builds and opens the plan in fresh processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1836)
    parser.add_argument("--examples", type=int, default=15_000_000)
    parser.add_argument("--block", type=int, default=8192)
    parser.add_argument("--counts", type=Path)
    args = parser.parse_args()
    if args.counts:
        print(json.dumps(measure(args, args.counts)))
        return
    for name, layout in LAYOUTS.items():
        for count in (args.block, 65_536):
            row = packing(layout, count)
            ratio = row["SeqIO's rows"] / row["rows"]
            print(
                f"{name}: {count:,} examples in {row['rows']:,} rows, fill "
                f"{row['fill']:.1%}/{row['targets fill']:.1%}, SeqIO {ratio:.3f} times "
                f"as many rows, {row['examples/s']:,} examples/s"
            )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:]]
        command += ["--counts", str(Path(folder) / "plan.rows")]
        for what in ("row counts built once", "opened again"):
            out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            facts = ", ".join(f"{k} {v:,.2f}" for k, v in json.loads(out).items())
            print(f"plan of {args.examples:,} examples, {what}: {facts}")


if __name__ == "__main__":
    main()
