"""Everything that can be known of a run before it is launched.

    report = preflight(config, Options(parse_topology("v5e:16x16")), progress)
    report.problems          # what would go wrong, with the exit status of each

Data, evaluations and weights are opened as training would open them; then the memory
of each device is estimated and the train and decode steps are compiled for devices
that need not be there.
"""

import dataclasses
from typing import Any

import jax

from flanjax.config import RunConfig
from flanjax.errors import ConfigError, UserError
from flanjax.ops.memory import Estimate, estimate_memory
from flanjax.ops.preflight_compile import (
    Compiled,
    Subject,
    build,
    compile_decode_step,
    compile_train_step,
)
from flanjax.ops.preflight_data import DataFound, look_at_data, look_at_weights
from flanjax.ops.preflight_fit import Change, changes_that_fit
from flanjax.ops.topology import (
    Topology,
    has_libtpu,
    simulated_devices,
    topology_devices,
)
from flanjax.progress import Progress
from flanjax.train.flops import RunCost, run_cost
from flanjax.train.peak import peak_flops

# What a device's own program and runtime keep of its memory: XLA has 15.75 of a
# v5e's 16 GiB.
USABLE = 0.984


@dataclasses.dataclass(frozen=True)
class Options:
    """What to look at.

    Attributes:
      topology: to compile for; None for the devices that are here.
      hbm: bytes of one device, when the user knows better.
      mfu: share of the devices' peak that training is assumed to reach.
      data: look at data and weights.
      compile: compile; otherwise memory is only estimated.
      prepare: command that prepares the data, for messages.
    """

    topology: Topology | None = None
    hbm: int | None = None
    mfu: float = 0.4
    data: bool = True
    compile: bool = True
    prepare: str = "flanjax data prepare --gin_file=..."


@dataclasses.dataclass
class Report:
    """What was found.

    Attributes:
      problems: what would stop or kill the run.
      notes: what could not be looked at, and what else is worth knowing.
      data, weights: None when not looked at, or when it failed.
      mesh: devices along each axis.
      hbm: bytes a program may take of one device; None where unknown.
      estimate: memory of a train step.
      train, decode: the compiled programs; None when not compiled.
      cost: arithmetic of the run.
      peak: operations per second of all devices.
      changes: settings that would fit, when the run does not.
    """

    problems: list[UserError] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    data: DataFound | None = None
    weights: str = ""
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    hbm: int | None = None
    estimate: Estimate | None = None
    train: Compiled | None = None
    decode: Compiled | None = None
    cost: RunCost | None = None
    peak: float = 0.0
    changes: list[Change] = dataclasses.field(default_factory=list)

    @property
    def needed(self) -> int:
        """Bytes of one device: compiled where that was done, else estimated."""
        if self.train is not None:
            return self.train.needed
        return self.estimate.peak if self.estimate else 0


def preflight(config: RunConfig, options: Options, progress: Progress) -> Report:
    """Looks at everything; goes on after a problem where it can.

    Args:
      config: the run's.
      options: what to look at.
      progress: told what takes time.

    Raises:
      ConfigError: model, mesh, batch and topology do not fit together.
    """
    report = Report()
    devices = _devices(options, report)
    subject = build(config, devices)
    report.mesh = {name: int(size) for name, size in subject.mesh.shape.items()}
    report.hbm = _hbm(options, devices)
    report.cost = run_cost(config, subject.trained)
    topology = options.topology
    known = topology.peak if topology else None
    report.peak = known * len(devices) if known else peak_flops(devices[:1])
    if options.data:
        with progress.task("looking at data, evaluations and weights"):
            _look(report, config, options)
    with progress.task("estimating memory"):
        report.estimate = estimate_memory(subject)
    if options.compile and not _analytic_only(options):
        _compile(report, subject, progress)
    _judge(report, config, devices, options, progress)
    return report


def _analytic_only(options: Options) -> bool:
    topology = options.topology
    return topology is not None and topology.platform == "tpu" and not has_libtpu()


def _devices(options: Options, report: Report) -> list[Any]:
    topology = options.topology
    if topology is None:
        return jax.devices()
    if not _analytic_only(options):
        return topology_devices(topology)
    report.notes.append(
        "libtpu is not installed, so nothing is compiled and memory is only estimated: "
        "pip install 'flanjax[tpu]' (any Linux machine, no TPU needed); attention is "
        "estimated as CPUs compute it"
    )
    return simulated_devices(topology.num_devices)


def _hbm(options: Options, devices: list[Any]) -> int | None:
    if options.hbm is not None:
        return options.hbm
    if options.topology is not None:
        hbm = options.topology.hbm
        return int(hbm * USABLE) if hbm else None
    stats = devices[0].memory_stats() or {}
    return stats.get("bytes_limit")


def _look(report: Report, config: RunConfig, options: Options) -> None:
    try:
        report.data = look_at_data(config, options.prepare)
        if report.data.note:
            report.notes.append(report.data.note)
    except UserError as error:
        report.problems.append(error)
    try:
        report.weights = look_at_weights(config)
    except UserError as error:
        report.problems.append(error)


def _compile(report: Report, subject: Subject, progress: Progress) -> None:
    with progress.task("compiling the train step (minutes for a large model)"):
        report.train = compile_train_step(subject)
    if report.train.memory is None:
        return  # What cannot be trained need not decode.
    if report.data is not None and not report.data.evals:
        report.notes.append("no evaluations, so no decode step")
        return
    new_tokens = report.data.new_tokens if report.data else 16
    with progress.task("compiling the decode step"):
        report.decode = compile_decode_step(subject, new_tokens)


def _judge(report, config, devices, options: Options, progress: Progress) -> None:
    """Says whether it fits, and looks for what would."""
    limit = report.hbm
    programs = {"train step": report.needed}
    if report.decode is not None:
        programs["decode step"] = report.decode.needed
    refused = report.train is not None and report.train.memory is None
    if limit is None:
        report.notes.append("the devices' memory is not known: give it with --hbm GIB")
        return
    over = {name: size for name, size in programs.items() if size > limit}
    if not over and not refused:
        return
    if "train step" in over or refused:
        with progress.task("it does not fit: looking for settings that do"):
            report.changes = changes_that_fit(config, devices, limit)
    fix = _advice(report.changes)
    if set(over) == {"decode step"}:
        fix = "lower EvalConfig.batch_size"
    sizes = ", ".join(f"{name} {_mib(size)}" for name, size in over.items())
    report.problems.append(
        ConfigError(
            f"it does not fit: {sizes or 'XLA gives up'}; a device has {_mib(limit)}",
            where=options.topology.name if options.topology else "these devices",
            fix=fix,
        )
    )


def _advice(changes: list[Change]) -> str:
    if not changes:
        return (
            "more devices, or a smaller batch or model: no remat policy, number of "
            "microbatches or mesh tried fits"
        )
    lines = [
        f"{' '.join(change.flags)}   ({' and '.join(change.kinds)}: about "
        f"{_mib(change.estimate.peak)})"
        for change in changes
    ]
    return ("one of\n         " if len(lines) > 1 else "") + "\n         ".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
