"""Which parameters of a run come from the weights it starts from, and which do not.

    with open_weights("t5x:flan_t5_small", config.model, whole=False) as source:
        plan = plan_restore(source, config.model, config.restore)
        params = place_params(plan.view, shardings)
    plan.line()                   # "restored 50 of 51 parameters, 1 drawn fresh"
    plan.text()                   # all of them by name

Nothing is left out silently: a parameter that the weights lack, one that they have
beyond the model, and one of another shape are errors that name it, unless the
configuration says what to do about it. Names are flanjax's for weights of every kind,
with stacked layers: "decoder/layers/mlp/wo/kernel".
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flanjax.convert.names import Entry
from flanjax.convert.weights import WeightSource, differences
from flanjax.errors import CheckpointError, ConfigError, nearest
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig, is_lora
from flanjax.models.t5 import T5Config
from flanjax.train.trees import flatten

STEPS = ("fresh", "checkpoint")
UNEXPECTED = ("error", "ignore")
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class RestoreConfig:
    r"""What a run takes over from the weights it starts from, and what it may lack.

    With `assign`, `fresh` or `unexpected = "ignore"` the weights may be of another
    model: parameters are matched one by one, by name and shape, and settings that
    differ (epsilon, activations, ...) are reported and not refused. A run that is
    resumed has its own checkpoint; these settings then say where parameters that are
    not trained come from, again.

    Attributes:
      optimizer_state: also restore Adafactor's moments; from T5X checkpoints only.
      step: where Adafactor's step count t starts (the run's own step starts at 0 in
        both cases, and TRAIN_STEPS counts from there). The second moments decay by
        1 - (t + 1) ** -0.8 with t = count - OptimizerConfig.step_offset, and the
        learning-rate schedule sees the count.
        "fresh": the count starts at 0. At t = 0 the decay is 0, so the first update
        replaces the second moments, restored or not, and they average over the last
        t ** 0.8 steps or so; of a restored state only momentum (beta1) has an effect.
        "checkpoint": the count goes on where the checkpoint's stood, as T5X does by
        default when it restores everything. At t = 1,100,000 a gradient enters with
        weight 1.5e-5: the moments are those of pre-training for some 68,000 steps.
        It needs `optimizer_state`, because moments of zero would take as long to
        fill; or a step_offset equal to the checkpoint's step, with which t starts at
        0 and only the schedule sees the count.
      assign: {regular expression: replacement}: a parameter of the model whose whole
        name matches is read from the parameter of the weights that the replacement
        gives; it may say \1 for the expression's first group.
      fresh: regular expressions; parameters of the model whose whole name matches may
        be missing from the weights and are then drawn as for a new model. Adapters
        always are.
      unexpected: what to do about parameters that only the weights have: "error" or
        "ignore".
    """

    optimizer_state: bool = False
    step: str = "fresh"
    assign: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fresh: Sequence[str] = ()
    unexpected: str = "error"

    def __post_init__(self):
        for name, choices in (("step", STEPS), ("unexpected", UNEXPECTED)):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"{name} is '{value}'.{nearest(str(value), choices)}",
                    where=f"RestoreConfig.{name}",
                    fix=f"use one of: {', '.join(choices)}",
                )
        if isinstance(self.fresh, str):
            raise ConfigError(
                f"fresh is one text, '{self.fresh}'",
                where="RestoreConfig.fresh",
                fix=f'give a list: ["{self.fresh}"]',
            )
        for pattern in (*self.assign, *self.fresh):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"'{pattern}' is no regular expression: {error}",
                    where="RestoreConfig.assign or RestoreConfig.fresh",
                ) from error

    @property
    def partial(self) -> bool:
        """Whether the weights may be of another model than the run's."""
        return bool(self.assign or self.fresh) or self.unexpected == "ignore"


@dataclasses.dataclass(frozen=True)
class RestorePlan:
    """What is read from where.

    Attributes:
      view: the weights under the model's names, with only what is restored.
      restored: {parameter of the model: parameter of the weights}.
      fresh: parameters of the model that are drawn.
      adapters: how many adapter parameters are drawn besides.
      unexpected: parameters and tensors that only the weights have.
      differing: settings in which the models differ.
      notes: what else the report says, at its end, such as the optimiser's state.
    """

    view: "_View"
    restored: Mapping[str, str]
    fresh: Sequence[str]
    adapters: int
    unexpected: Sequence[str]
    differing: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def renamed(self) -> list[str]:
        """Parameters of the model that have another name in the weights."""
        return [name for name, theirs in self.restored.items() if name != theirs]

    def with_note(self, note: str) -> "RestorePlan":
        """Returns the same plan, whose report says one thing more."""
        return dataclasses.replace(self, notes=(*self.notes, note))

    def line(self) -> str:
        """Returns the report's sum in one line."""
        total = len(self.restored) + len(self.fresh)
        parts = [f"restored {len(self.restored)} of {total} parameters"]
        counts = {
            "renamed": len(self.renamed),
            "drawn fresh": len(self.fresh),
            "adapters drawn fresh": self.adapters,
            "of the weights ignored": len(self.unexpected),
            "settings differ": len(self.differing),
        }
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        return "; ".join([", ".join(parts), *self.notes])

    def text(self) -> str:
        """Returns the whole report, for a file."""
        sections = {
            "Restored": [
                name if name == theirs else f"{name}  from {theirs}"
                for name, theirs in self.restored.items()
            ],
            "Drawn fresh": list(self.fresh),
            "Ignored, only in the weights": list(self.unexpected),
            "Settings that differ": list(self.differing),
        }
        plain = dataclasses.replace(self, notes=())
        blocks = [f"Weights: {self.view.where}\n{plain.line()}"]
        for title, lines in sections.items():
            if lines:
                blocks.append("\n".join([f"{title} ({len(lines)}):", *lines]))
        return "\n\n".join([*blocks, *self.notes]) + "\n"


class _View:
    """A source's weights under the model's names; a `WeightSource` itself."""

    def __init__(
        self,
        source: WeightSource,
        config: T5Config | DecoderConfig,
        restored: Mapping[str, str],
    ):
        self.source, self.where, self.config = source, source.where, config
        self._restored = restored

    def entries(self) -> list[Entry]:
        """Returns the parameters that are restored and the tensors they are made of."""
        theirs = {"/".join(e.path): e for e in self.source.entries()}
        return [
            dataclasses.replace(theirs[name], path=tuple(path.split("/")))
            for path, name in self._restored.items()
        ]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, float32, its axes as the file has them."""
        return self.source.read(name)

    def unplaced(self) -> list[str]:
        """Returns nothing: the plan has dealt with what is left."""
        return []


def plan_restore(
    source: WeightSource, config: T5Config | DecoderConfig, restore: RestoreConfig
) -> RestorePlan:
    """Decides for every parameter where it comes from; reads no tensor.

    Args:
      source: as `open_weights` gives it, with `whole=not restore.partial`.
      config: the run's model.
      restore: what may be missing, renamed or left over.

    Raises:
      CheckpointError: parameters are missing, of another shape or unexpected; names
        them with the nearest names.
      ConfigError: a pattern matches no parameter of the model.
    """
    wanted, adapters = _shapes(config)
    _check_patterns(restore, wanted)
    offered, _ = _shapes(source.config)
    have = {path: offered[path] for e in source.entries() if (path := "/".join(e.path))}
    names = {path: _assigned(path, restore.assign) for path in wanted}
    restored = {path: name for path, name in names.items() if name in have}
    lacking = {path: name for path, name in names.items() if name not in have}
    allowed = [p for p in lacking if any(re.fullmatch(r, p) for r in restore.fresh)]
    unexpected = sorted(have.keys() - set(restored.values())) + source.unplaced()
    missing = {p: name for p, name in lacking.items() if p not in allowed}
    if missing:
        raise _missing(missing, unexpected or list(have), source.where)
    _check_shapes(restored, wanted, have, source.where)
    if unexpected and restore.unexpected == "error":
        raise CheckpointError(
            f"{len(unexpected)} parameters are only in the weights: "
            f"{_listed(unexpected)}",
            where=source.where,
            fix='set RestoreConfig.unexpected = "ignore" to leave them out',
        )
    plain = dataclasses.replace(config, scan_layers=True, lora=LoraConfig())
    return RestorePlan(
        view=_View(source, plain, restored),
        restored=restored,
        fresh=allowed,
        adapters=adapters,
        unexpected=unexpected,
        differing=differences(source.config, config),
    )


def _shapes(
    config: T5Config | DecoderConfig,
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of the parameters, layers stacked; and how many adapters there are."""
    stacked = dataclasses.replace(config, scan_layers=True)
    shapes = flatten(abstract_params(build_model(stacked))[0])
    plain = {p: tuple(x.shape) for p, x in shapes.items() if not is_lora(p.split("/"))}
    return plain, len(shapes) - len(plain)


def _assigned(path: str, assign: Mapping[str, str]) -> str:
    for pattern, replacement in assign.items():
        if match := re.fullmatch(pattern, path):
            return match.expand(replacement)
    return path


def _check_patterns(restore: RestoreConfig, wanted: Mapping[str, Any]) -> None:
    for field in ("assign", "fresh"):
        for pattern in getattr(restore, field):
            if not any(re.fullmatch(pattern, path) for path in wanted):
                raise ConfigError(
                    f"'{pattern}' matches no parameter of the model."
                    f"{nearest(pattern, wanted)}",
                    where=f"RestoreConfig.{field}",
                    fix="patterns are regular expressions for whole names such as "
                    f"{next(iter(wanted))}",
                )


def _check_shapes(
    restored: Mapping[str, str],
    wanted: Mapping[str, tuple[int, ...]],
    have: Mapping[str, tuple[int, ...]],
    where: str,
) -> None:
    wrong = [
        f"{path} is {have[name]} in the weights and {wanted[path]} in the model"
        for path, name in restored.items()
        if have[name] != wanted[path]
    ]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} parameters have other shapes: {_listed(wrong, '; ')}",
            where=where,
            fix="choose the model configuration these weights were made with, or read "
            "the parameter from another one by RestoreConfig.assign",
        )


def _missing(
    missing: Mapping[str, str], known: Sequence[str], where: str
) -> CheckpointError:
    lines = [
        (path if path == name else f"{path} (assigned to {name})")
        + nearest(name, known).replace("Did you mean", "Nearest there:").rstrip("?")
        for path, name in missing.items()
    ]
    return CheckpointError(
        f"{len(missing)} parameters are not in the weights: {_listed(lines, '; ')}",
        where=where,
        fix="name their source in RestoreConfig.assign = {'pattern': 'name in the "
        "weights'}, or have them drawn: RestoreConfig.fresh = ['pattern']",
    )


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = len(names) - _LISTED
    rest = f"{separator}and {more} more" if more > 0 else ""
    return separator.join(names[:_LISTED]) + rest
