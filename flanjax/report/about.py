"""Facts about a run: state, size, time, machine, settings, and how to make it again."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

from flanjax.report.formats import compact, duration, integer, is_number, number
from flanjax.report.run_directory import Run

STATES = ("finished", "running", "interrupted", "failed")
# Settings a reader asks for first; the whole configuration stands below them.
_KEY_SETTINGS = {
    "PrepareConfig.mixture": "mixture",
    "RunConfig.initial_checkpoint": "started from",
    "LoraConfig.rank": "LoRA rank",
    "OptimizerConfig.name": "optimiser",
    "ScheduleConfig.base_learning_rate": "learning rate",
    "ScheduleConfig.factors": "schedule",
    "ScheduleConfig.warmup_steps": "warm-up steps",
    "DataConfig.batch_size": "batch (rows)",
    "DataConfig.feature_lengths": "token limits",
    "DataConfig.packing": "packing",
    "RunConfig.microbatches": "microbatches",
    "RunConfig.seed": "seed",
}


@dataclass(frozen=True)
class Fact:
    """A label and its value, both plain text."""

    label: str
    value: str


def title(run: Run) -> str:
    """The run's name: its directory."""
    return run.directory.resolve().name


def state(run: Run) -> str:
    """One of `STATES`, or "unknown"."""
    found = run.status.get("state")
    return found if found in STATES else "unknown"


def overview(run: Run) -> list[Fact]:
    """Model, steps, tokens, time: what stands under the title."""
    done, total = run.status.get("steps_done"), run.status.get("steps_total")
    steps = integer(done)
    if is_number(total) and total != done:
        steps += f" of {integer(total)}"
    facts = [
        Fact("model", _model(run)),
        Fact("steps", steps),
        Fact("tokens", _tokens(run)),
        Fact("time", duration(_wall_seconds(run))),
        Fact("machine", _machine(run)),
    ]
    return [fact for fact in facts if fact.value]


def _model(run: Run) -> str:
    """Where the weights came from (else the kind of model) and how many they are."""
    settings = _settings(run.config)
    name = settings.get("RunConfig.initial_checkpoint", "None").strip("'\"")
    if name == "None":
        kind = settings.get("RunConfig.model", "").strip("@()").split(".")[-1]
        name = f"{kind.removesuffix('Config')} from scratch" if kind else ""
    parts = [name.removeprefix("gguf:")] if name else []
    whole = run.environment.get("parameters")
    trained = run.environment.get("trainable_parameters")
    if is_number(whole):
        count = f"{compact(whole)} parameters"
        if is_number(trained) and trained != whole:
            count += f" ({compact(trained)} trained)"
        parts.append(count)
    return ", ".join(parts)


def _tokens(run: Run) -> str:
    """Tokens trained on; an estimate where not every step was logged."""
    values = [line["values"].get("tokens") for line in run.of_kind("train")]
    logged = [v for v in values if is_number(v)]
    if not logged:
        return ""
    done = run.status.get("steps_done")
    steps = max(len(logged), done if is_number(done) else 0)
    total = sum(logged) * steps / len(logged)
    return f"{'about ' if steps > len(logged) else ''}{compact(total)}"


def _wall_seconds(run: Run) -> float | None:
    """Seconds of work: pauses between an interruption and going on do not count."""
    parts = times(run)
    return sum(seconds for _, seconds in parts) if parts else None


def times(run: Run) -> list[tuple[str, float]]:
    """(what, seconds) where the wall clock went, longest first."""
    seconds = run.status.get("seconds")
    if not isinstance(seconds, dict):
        return []
    known = [(str(k), v) for k, v in seconds.items() if is_number(v) and v > 0]
    return sorted(known, key=lambda pair: -pair[1])


def _machine(run: Run) -> str:
    cores = run.environment.get("cpu_count")
    parts = [
        str(run.environment.get("devices") or ""),
        f"{integer(cores)} CPU cores" if is_number(cores) else "",
    ]
    return ", ".join(part for part in parts if part)


def started(run: Run) -> str:
    """When the run began, in UTC; "" when it did not say."""
    stamp = run.status.get("started")
    if not is_number(stamp):
        return ""
    moment = datetime.datetime.fromtimestamp(float(stamp), datetime.UTC)
    return moment.strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def _settings(config: str) -> dict[str, str]:
    """Maps "Class.field" to its value text in a gin file, lines joined."""
    joined = re.sub(r"\\\n\s*", "", config)
    joined = re.sub(r"\n\s+", " ", joined)
    pairs = re.findall(r"^(?:\S*/)?([\w.]+) *= *(.+)$", joined, re.MULTILINE)
    macros = {k: v for k, v in pairs if "." not in k}
    return {
        ".".join(k.split(".")[-2:]): macros.get(v.lstrip("%"), v)
        for k, v in pairs
        if "." in k
    }


def key_settings(run: Run) -> list[Fact]:
    """The settings a reader asks for first, out of the resolved configuration."""
    settings = _settings(run.config)
    return [
        Fact(label, settings[key].strip("'\""))
        for key, label in _KEY_SETTINGS.items()
        if key in settings
    ]


def environment_facts(run: Run) -> list[Fact]:
    """environment.json as short facts: versions, devices, git state."""
    facts: list[Fact] = []
    for key, value in run.environment.items():
        if key == "packages" and isinstance(value, dict):
            facts += [Fact(str(k), str(v)) for k, v in value.items()]
        elif key not in ("command", "model"):  # The model stands in config.gin.
            facts.append(Fact(key.replace("_", " "), _plain(value)))
    return facts


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{str(k).replace('_', ' ')} {_plain(v)}" for k, v in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if is_number(value) and abs(value) < 1e9:
        return integer(value) if isinstance(value, int) else number(value)
    return compact(value) if is_number(value) else str(value)


def reproduce(run: Run) -> list[str]:
    """Shell lines that make this run again: the code, then the command."""
    lines = []
    git = run.environment.get("git")
    if isinstance(git, dict) and git.get("commit"):
        changed = git.get("changed_files")
        note = f"  # {changed} file(s) differed from it" if changed else ""
        lines.append(f"git checkout {git['commit']}{note}")
    command = run.environment.get("command")
    if command:
        lines.append(_as_typed(str(command)))
    return lines


def _as_typed(command: str) -> str:
    """The command without the folders of the script that ran it."""
    script, _, rest = command.partition(" ")
    name = script.rsplit("/", 1)[-1]
    name = "python -m flanjax" if name == "__main__.py" else name
    return f"{name} {rest}".strip()


def events(run: Run) -> list[Fact]:
    """What happened along the way: saved, resumed, skipped."""
    return [
        Fact(f"step {integer(line['step'])}", _plain(line["values"]))
        for line in run.of_kind("event")
    ]
