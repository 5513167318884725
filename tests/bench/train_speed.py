"""How fast a training step is, beside the matrix product's peak of the same minutes.

    python tests/bench/train_speed.py [mini decoder_25m lora_135m full_135m] [--json]
    python tests/bench/train_speed.py decoder_1b t5_3b_layers --dtype bfloat16

Windows alternate (peak, step, peak, step, ...) and the median window counts, because
the speed of a shared machine changes from minute to minute. The peak is that of a
float32 product of two 2048 x 2048 matrices, on accelerators too: divide GFLOP/s by
the data sheet's figure for their utilisation. Necessary work is what
`flanjax.train.flops.step_flops` counts: 6 operations per weight and position that
passes it (4 where it is frozen), 12 per query-key pair, head channel and layer, masked
pairs included; nothing computed twice counts twice. The output head counts the
positions with loss weight, with "mini" all positions of its targets: that is 126 GFLOP,
as for T5X's 1/3 of the peak.

CPU seconds depend less on neighbours than wall clock: `of peak by CPU` compares the
operations for each of them in the step and in the product.

The process keeps freed memory as `flanjax train` does (flanjax/train/process.py);
`--plain-malloc` leaves the allocator alone.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig, is_lora
from flanjax.models.loss import LossConfig
from flanjax.models.t5 import T5Config
from flanjax.train.flops import step_flops
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.process import keep_freed_memory
from flanjax.train.schedules import ScheduleConfig
from flanjax.train.state import init_state, state_shardings
from flanjax.train.step import make_train_step

_SIZE = 2048  # Of the matrices whose product is the peak.

SMOLLM2 = DecoderConfig(
    vocab_size=49152,
    emb_dim=576,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    mlp_dim=1536,
    num_layers=30,
    rope_base=100000.0,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the shape of its batches.

    Attributes:
      what: for people.
      model: its configuration.
      rows: of a batch.
      inputs: positions of an encoder's row; 0 for decoder-only models.
      targets: positions of a decoder's row.
      segments: packed examples in a row.
      loss: share of the decoder's positions that have loss weight.
    """

    what: str
    model: T5Config | DecoderConfig
    rows: int
    inputs: int
    targets: int
    segments: float
    loss: float


CASES = {
    "mini": Case(
        "T5 1.1, 4+4 layers of 256, 16 x 256/64, 56 packed examples",
        T5Config(
            vocab_size=8192,
            emb_dim=256,
            num_heads=4,
            head_dim=64,
            mlp_dim=512,
            num_encoder_layers=4,
            num_decoder_layers=4,
            scan_unroll=4,
        ),
        16,
        256,
        64,
        3.5,
        0.72,
    ),
    "decoder_25m": Case(
        "25M decoder, 6 layers of 512, 8 x 512, loss everywhere",
        DecoderConfig(
            vocab_size=8192,
            emb_dim=512,
            num_heads=8,
            num_kv_heads=8,
            head_dim=64,
            mlp_dim=1536,
            num_layers=6,
            scan_unroll=6,
        ),
        8,
        0,
        512,
        4,
        1.0,
    ),
    "lora_135m": Case(
        "SmolLM2-135M sizes, LoRA of rank 8, 6 x 250, 20 % with loss",
        dataclasses.replace(SMOLLM2, lora=LoraConfig(rank=8)),
        6,
        0,
        250,
        4,
        0.2,
    ),
    "full_135m": Case(
        "SmolLM2-135M sizes, all trained, 6 x 250, 20 % with loss",
        SMOLLM2,
        6,
        0,
        250,
        4,
        0.2,
    ),
    "decoder_1b": Case(
        "1.2B decoder (Llama 3.2's sizes), 4 x 2048, 20 % with loss",
        DecoderConfig(
            vocab_size=128256,
            emb_dim=2048,
            num_heads=32,
            num_kv_heads=8,
            head_dim=64,
            mlp_dim=8192,
            num_layers=16,
            rope_base=500000.0,
            remat_policy="minimal",
        ),
        4,
        0,
        2048,
        4,
        0.2,
    ),
    "t5_3b_layers": Case(
        "4+4 layers of T5-3B's width (1.1), 16 x 1024/256",
        T5Config(
            vocab_size=32128,
            emb_dim=2048,
            num_heads=32,
            head_dim=64,
            mlp_dim=5120,
            num_encoder_layers=4,
            num_decoder_layers=4,
        ),
        16,
        1024,
        256,
        4,
        0.72,
    ),
}


def make_batch(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens in rows of packed examples; a share of each target has loss."""
    random = np.random.default_rng(seed)
    batch: dict[str, np.ndarray] = {}
    vocab = case.model.vocab_size

    def ids(length: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Segment ids and positions; the last 1 - `share` of a row is padding."""
        segments = np.zeros((case.rows, length), np.int32)
        positions = np.zeros_like(segments)
        for row in range(case.rows):
            # Down and up in turn: 3.5 a row are 56 in 16 rows.
            count = int(case.segments + 0.5 * (row % 2))
            parts = np.array_split(np.arange(int(length * share)), count)
            for i, part in enumerate(parts):
                segments[row, part] = i + 1
                positions[row, part] = np.arange(len(part))
        return segments, positions

    def feature(name: str, length: int, share: float = 1.0) -> np.ndarray:
        segments, positions = ids(length, share)
        batch[f"{name}_segment_ids"] = segments
        batch[f"{name}_positions"] = positions
        tokens = random.integers(3, vocab, segments.shape, dtype=np.int32)
        return tokens * (segments > 0)

    if case.inputs:
        batch["encoder_input_tokens"] = feature("encoder", case.inputs, 0.98)
        tokens = feature("decoder", case.targets, case.loss)
        weighted = tokens > 0
    else:
        tokens = feature("decoder", case.targets)
        # The end of every example is its target.
        positions = batch["decoder_positions"]
        length = -(-case.targets // case.segments)
        weighted = positions >= round(length * (1 - case.loss))
    batch["decoder_target_tokens"] = tokens
    first = batch["decoder_positions"] == 0
    batch["decoder_input_tokens"] = np.where(first, 0, np.roll(tokens, 1, axis=1))
    batch["decoder_loss_weights"] = weighted.astype(np.float32)
    if not case.inputs:
        batch["decoder_causal_attention"] = (~weighted).astype(np.int32)
    return batch


def necessary_flops(case: Case, model: Any, trainable: Any) -> float:
    """Operations of a step; see the module's docstring."""
    tokens = case.rows * case.targets
    return step_flops(
        model,
        decoder_tokens=tokens,
        decoder_length=case.targets,
        encoder_tokens=case.rows * case.inputs,
        encoder_length=case.inputs,
        # T5X scores all of an encoder-decoder's target positions; so is it counted.
        loss_tokens=tokens if case.inputs else case.loss * tokens,
        trainable=trainable,
    )


class Machine:
    """What the whole machine and this process did since the last look."""

    def __init__(self):
        self.look()

    def look(self) -> dict[str, float]:
        """Seconds of wall clock and of this process's CPU; shares of the machine."""
        now = {"wall_s": time.perf_counter(), "cpu_s": time.process_time()}
        if (stat := Path("/proc/stat")).exists():
            fields = [int(x) for x in stat.read_text().split()[1:9]]
            now |= {"ticks": sum(fields), "steal": fields[7], "idle": fields[3]}
        last, self._last = getattr(self, "_last", now), now
        change = {name: now[name] - last[name] for name in now}
        ticks = max(change.pop("ticks", 0), 1)
        for name in ("steal", "idle"):
            if name in change:
                change[name] /= ticks
        return change


class Clock:
    """Wall clock and CPU seconds of repeated work."""

    def __init__(self):
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, work: Callable[[], Any]) -> Any:
        """Runs `work` until its arrays are there, and notes what that took."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = jax.block_until_ready(work())
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result


def set_up(case: Case) -> tuple[Any, Any, Any, float]:
    """Returns the step, its state, a batch on the device, and the necessary work."""
    model = build_model(case.model)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    trainable = is_lora if case.model.lora.rank else None
    optimizer = make_optimizer(
        OptimizerConfig(schedule=ScheduleConfig("constant", 1e-3)),
        abstract_params(model)[1],
    )
    state = init_state(
        model, optimizer, jax.random.PRNGKey(0), mesh, trainable=trainable
    )
    loss = LossConfig(normalizer="num_real_target_tokens")
    step = make_train_step(model, optimizer, loss, mesh, state_shardings(state))
    batch = jax.device_put(make_batch(case), jax.devices()[0])
    return step, state, batch, necessary_flops(case, model, trainable)


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Runs one case; see the module's docstring."""
    changes = {"dtype": args.dtype, **dict(args.set)}
    model_config = dataclasses.replace(CASES[name].model, **changes)
    case = dataclasses.replace(CASES[name], model=model_config)
    step, state, batch, flops = set_up(case)
    matrix = jnp.ones((_SIZE, _SIZE), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    first, steps, peaks, host = Clock(), Clock(), Clock(), []
    state, metrics = first.time(lambda: step(state, batch))
    losses = [float(metrics["loss"])]

    def one_step():
        start = time.perf_counter()
        result = step(state, batch)
        # The device has begun: this is what the host adds between two steps at most.
        host.append(time.perf_counter() - start)
        return result

    state, metrics = jax.block_until_ready(step(state, batch))
    machine = Machine()
    for _ in range(args.windows):
        for _ in range(4):
            peaks.time(lambda: product(matrix, matrix))
        for _ in range(args.steps):
            state, metrics = steps.time(one_step)
    step_s, tokens = statistics.median(steps.wall), case.rows * case.targets
    peak = 2 * _SIZE**3 / statistics.median(peaks.wall)
    peak_cpu = 2 * _SIZE**3 / statistics.median(peaks.cpu)
    step_cpu_s = statistics.median(steps.cpu)
    return {
        "case": name,
        "what": case.what,
        "dtype": args.dtype,
        "device": jax.devices()[0].device_kind,
        "step_s": step_s,
        "best_step_s": min(steps.wall),
        "step_cpu_s": step_cpu_s,
        "tokens_per_s": tokens / step_s,
        "gflop": flops / 1e9,
        "gflop_per_s": flops / step_s / 1e9,
        "peak_gflop_per_s": peak / 1e9,
        "of_peak": flops / step_s / peak,
        "best_of_best_peak": flops / min(steps.wall) * min(peaks.wall) / 2 / _SIZE**3,
        "of_peak_by_cpu": flops / step_cpu_s / peak_cpu,
        "first_step_s": first.wall[0],
        "compiles": step.compiles,
        "host_share": statistics.median(host) / step_s,
        "loss": [*losses, float(metrics["loss"])],
        "machine": machine.look(),
    }


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--windows", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="in a window")
    parser.add_argument("--set", action="append", default=[], type=_assignment)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plain-malloc", action="store_true")
    args = parser.parse_args()
    if not set(args.cases) <= set(CASES):
        parser.error(f"cases are {', '.join(CASES)}")
    kept = not args.plain_malloc and keep_freed_memory()
    for name in args.cases or list(CASES)[:4]:
        row = measure(name, args) | {"keeps_freed_memory": kept}
        print(json.dumps(row) if args.json else _line(row), flush=True)


def _assignment(text: str) -> tuple[str, Any]:
    name, value = text.split("=")
    return name, int(value) if value.isdigit() else value


def _line(row: dict[str, Any]) -> str:
    machine = row["machine"]
    return (
        f"{row['case']} ({row['what']}; {row['dtype']} on {row['device']}):\n"
        f"  {row['tokens_per_s']:,.0f} tokens/s, {row['step_s']:.3f} s a step (best "
        f"{row['best_step_s']:.3f}), {row['gflop']:,.1f} GFLOP necessary, "
        f"{row['gflop_per_s']:,.1f} GFLOP/s\n"
        f"  {row['of_peak']:.1%} of the peak of {row['peak_gflop_per_s']:,.1f} GFLOP/s "
        f"(best of best {row['best_of_best_peak']:.1%}, by CPU seconds "
        f"{row['of_peak_by_cpu']:.1%})\n"
        f"  {row['step_cpu_s']:.3f} CPU s a step, host {row['host_share']:.2%} of it, "
        f"first step {row['first_step_s']:.1f} s, {row['compiles']} program(s), loss "
        f"{row['loss'][0]:.4f} -> {row['loss'][1]:.4f}\n"
        f"  machine: steal {machine.get('steal', 0):.1%}, idle "
        f"{machine.get('idle', 0):.1%}, this process {machine['cpu_s']:.1f} CPU s in "
        f"{machine['wall_s']:.1f} s, freed memory "
        f"{'kept' if row['keeps_freed_memory'] else 'as the system likes'}"
    )


if __name__ == "__main__":
    main()
