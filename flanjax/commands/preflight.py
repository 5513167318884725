"""`flanjax check`: what would go wrong on the cluster, found on a laptop."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flanjax.commands.modules import run_config
from flanjax.commands.tables import print_rows
from flanjax.errors import ConfigError
from flanjax.progress import Progress

if TYPE_CHECKING:
    from flanjax.config import RunConfig
    from flanjax.ops.preflight import Options, Report
    from flanjax.ops.preflight_compile import Compiled


def check(args: argparse.Namespace) -> int:
    """Resolves a run, looks at its data, and compiles it for a topology.

    Returns:
      0, or the exit status that training would end with: 2 (configuration, memory),
      3 (data) or 5 (checkpoint).
    """
    if not args.gin_file:
        raise ConfigError(
            "no configuration given",
            fix="flanjax check --gin_file=gin/recipes/tiny.gin --topology cpu:8",
        )
    progress = Progress(sys.stderr)
    config, options = _what(args)
    from flanjax.ops.preflight import preflight
    from flanjax.train.paper_runs import paper_notes

    report = preflight(config, options, progress)
    report.notes += paper_notes(args.gin_file)
    if args.json:
        print(json.dumps(_as_json(report, config, options), default=str))
    else:
        _print(report, config, options)
    for problem in report.problems:
        progress.line(f"error: {problem}")
    if not report.problems and not args.json:
        print("nothing found that would stop this run")
    return report.problems[0].exit_code if report.problems else 0


def _what(args: argparse.Namespace) -> tuple["RunConfig", "Options"]:
    """The run and what to look at, as the flags say."""
    for name, value in (("--mfu", args.mfu), ("--hbm", args.hbm)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}", fix="give a positive number")
    import jax

    from flanjax.ops.topology import GIB, parse_topology

    topology = None
    if args.topology:
        topology = parse_topology(
            args.topology, 1 if args.slices is None else args.slices
        )
        # The devices are elsewhere: an accelerator that is here stays alone.
        jax.config.update("jax_platforms", "cpu")
    config = run_config(args)
    from flanjax.ops.preflight import Options

    if topology and args.slices is None:
        topology = dataclasses.replace(topology, slices=config.mesh.slices)
    gin = [f"--gin_file={name}" for name in args.gin_file]
    if args.gin_search_paths:
        gin.append(f"--gin_search_paths={args.gin_search_paths}")
    gin += [f"--gin.{binding}" for binding in args.bindings]
    return config, Options(
        topology=topology,
        hbm=int(args.hbm * GIB) if args.hbm else None,
        mfu=args.mfu,
        data=not args.no_data,
        compile=not args.no_compile,
        prepare=shlex.join(["flanjax", "data", "prepare", *gin]),
    )


def _seconds(report: "Report", config: "RunConfig", options: "Options") -> float:
    """Of one step at the stated utilisation."""
    assert report.cost is not None
    return report.cost.flops / config.train_steps / (report.peak * options.mfu)


def _as_json(
    report: "Report", config: "RunConfig", options: "Options"
) -> dict[str, Any]:
    assert report.cost is not None and report.estimate is not None
    seconds = _seconds(report, config, options)
    return {
        "problems": [
            {"what": p.what, "where": p.where, "fix": p.fix, "status": p.exit_code}
            for p in report.problems
        ],
        "notes": report.notes,
        "data": dataclasses.asdict(report.data) if report.data else None,
        "weights": report.weights,
        "mesh": report.mesh,
        "hbm_bytes": report.hbm,
        "estimate": dataclasses.asdict(report.estimate)
        | {"peak": report.estimate.peak},
        "train": _compiled_json(report.train),
        "decode": _compiled_json(report.decode),
        "step_flops": report.cost.flops / config.train_steps,
        "peak_flops": report.peak,
        "mfu": options.mfu,
        "step_seconds": seconds,
        "tokens_per_second": report.cost.tokens / config.train_steps / seconds,
        "hours": report.cost.hours(report.peak, options.mfu),
        "changes": [
            {"kinds": c.kinds, "flags": c.flags, "estimated_peak": c.estimate.peak}
            for c in report.changes
        ],
    }


def _compiled_json(compiled: "Compiled | None") -> dict[str, Any] | None:
    if compiled is None:
        return None
    return dataclasses.asdict(compiled) | {
        "collectives": [
            {"kind": kind, "axes": axes, "times": times, "bytes": size}
            for kind, axes, times, size in _collectives(compiled)
        ]
    }


def _collectives(compiled: "Compiled") -> list[tuple[str, str, int, int]]:
    """Kind, mesh axes, how often, and bytes in all; largest first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for one in compiled.collectives:
        over = " x ".join(one.axes) or f"groups of {one.devices}"
        group = groups.setdefault((one.kind, over), [0, 0])
        group[0] += one.times
        group[1] += one.times * one.bytes
    rows = [(*key, times, size) for key, (times, size) in groups.items()]
    return sorted(rows, key=lambda row: -row[3])


def _print(report: "Report", config: "RunConfig", options: "Options") -> None:
    assert report.cost is not None and report.estimate is not None
    data = report.data
    if data is not None:
        print(
            f"data: {data.members} tasks, {data.examples:,} examples; one of each laid "
            f"out; evaluations: {', '.join(data.evals) or 'none'}"
        )
    if report.weights:
        print(f"weights: {report.weights}")
    place = options.topology.name if options.topology else "the devices here"
    mesh = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
    print(f"mesh on {place}: {mesh}")
    _print_memory(report)
    for name, compiled in (("train", report.train), ("decode", report.decode)):
        if compiled is not None and compiled.memory is not None:
            rows = [
                [kind, axes, times, f"{size:,}"]
                for kind, axes, times, size in _collectives(compiled)
            ]
            print_rows(
                f"{name} step: what devices exchange",
                ("operation", "mesh axes", "times", "bytes of one device"),
                rows,
            )
    seconds, cost = _seconds(report, config, options), report.cost
    tokens = cost.tokens / config.train_steps / seconds
    print(
        f"a step: {cost.flops / config.train_steps:.4g} floating-point operations, "
        f"{seconds:.3g} s at {options.mfu:.0%} of {report.peak:.4g} per second, "
        f"{tokens:,.0f} tokens/s; {config.train_steps:,} steps: "
        f"{cost.hours(report.peak, options.mfu):,.1f} hours"
    )
    for note in report.notes:
        print(f"note: {note}")


def _print_memory(report: "Report") -> None:
    """One line for each part of a device's memory, estimated and compiled."""
    estimate = report.estimate
    assert estimate is not None
    columns = ["MiB of one device", "estimated, train step"]
    rows: list[list[Any]] = [
        ["parameters", estimate.parameters],
        ["optimiser state", estimate.optimizer],
        ["gradients", estimate.gradients],
        ["batch", estimate.batch],
        ["activations, temporaries", estimate.activations],
        ["peak", estimate.peak],
    ]
    print_rows("memory, estimated", columns, [_mib(row) for row in rows])
    found = {
        name: compiled
        for name, compiled in (("train", report.train), ("decode", report.decode))
        if compiled is not None
    }
    if found:
        parts = ("arguments", "outputs", "temporaries", "code", "peak")
        rows = [[part] for part in parts]
        for compiled in found.values():
            memory = compiled.memory
            for row, part in zip(rows, parts, strict=True):
                row.append(getattr(memory, part) if memory else "-")
        rows[-1][1:] = [compiled.needed for compiled in found.values()]
        titles = [f"{n} step ({c.seconds:.0f} s to compile)" for n, c in found.items()]
        table = [_mib(row) for row in rows]
        print_rows("memory, compiled", ["MiB of one device", *titles], table)
    if report.hbm is not None:
        print(f"a program may take {report.hbm / 2**20:,.0f} MiB of one device")


def _mib(row: Sequence[Any]) -> list[Any]:
    return [
        f"{value / 2**20:,.2f}" if isinstance(value, int) else value for value in row
    ]
