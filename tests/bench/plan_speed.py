"""How fast plans are made, and how full their rows are.

    python tests/bench/plan_speed.py [--tasks 1836] [--examples 65536]

FLAN-like lengths (inputs of mean 150, targets of mean 20, long-tailed) in rows of
1024/256 tokens for an encoder-decoder and 1280 for a decoder. Seconds are of this
process alone; a member's permutation is made in the first block that uses its epoch.
"""

import argparse
import time

import numpy as np

from flanjax.data.layout import Layout
from flanjax.data.plan import Plan, PlanMember

LAYOUTS = {
    "encoder_decoder": Layout("encoder_decoder", 1024, 256),
    "decoder": Layout("decoder", 1024, 256),
}


def members(tasks: int) -> list[PlanMember]:
    """Tasks of 100 to 10,000 examples, mixed by size up to a cap of 5,000."""
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(100), np.log(10_000), tasks)).astype(int)
    shares = np.minimum(sizes, 5_000) / np.minimum(sizes, 5_000).sum()
    found = []
    for index, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        inputs = np.exp(random.normal(np.log(150) - 0.4, 0.9, size)).clip(2, 2048)
        targets = np.exp(random.normal(np.log(20) - 0.5, 1.0, size)).clip(1, 512)
        lengths = np.stack([inputs, targets], axis=1).astype(np.int32)
        found.append(PlanMember(f"task{index}", lengths, share))
    return found


def main() -> None:
    """Prints one line per layout and block."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1836)
    parser.add_argument("--examples", type=int, default=65_536)
    args = parser.parse_args()
    tasks = members(args.tasks)
    for name, layout in LAYOUTS.items():
        start = time.process_time()
        plan = Plan(tasks, layout, seed=0, block_examples=args.examples)
        print(
            f"{name}: {args.tasks} tasks set up in {time.process_time() - start:.2f} s"
        )
        for number in (0, 1, 1000):
            start = time.process_time()
            block = plan.block(number)
            seconds = time.process_time() - start
            raw = np.array(
                [
                    tasks[member].lengths[example]
                    for member, example in zip(
                        block.members, block.examples, strict=True
                    )
                ]
            )
            used = layout.sizes(raw).sum(axis=0)
            fill = [
                f"{total / limit / block.num_rows:.1%}"
                for total, limit in zip(used, layout.limits, strict=True)
                if limit
            ]
            speed = len(block.members) / seconds
            print(
                f"  block {number}: {len(block.members):,} examples in "
                f"{block.num_rows:,} rows, {speed:,.0f} examples/s, "
                f"fill {'/'.join(fill)}"
            )


if __name__ == "__main__":
    main()
