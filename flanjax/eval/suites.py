"""What is evaluated: one EvalSpec per score, named suites of them.

    add_eval(EvalSpec("boolq_held", task="boolq_fs_opt", kind="yes_no",
                      extractor="yes_no", max_decode_tokens=4))
    add_suite("starter_heldout", ["boolq_held", "asdiv_held"])
    resolve_evals(["starter_heldout"])   # -> (EvalSpec(...), EvalSpec(...))

A spec is a composition of names (task, extractor, scorers), so it travels as JSON in
the resolved mixture and `train` needs neither SeqIO nor the module that defined it.
Content packages register their specs; flanjax itself registers none.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from flanjax.errors import ConfigError, nearest
from flanjax.eval.extract import EXTRACTORS
from flanjax.eval.scorers import SCORERS

STYLES = ("direct", "cot")


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """One evaluation: where prompts come from, how answers are read and scored.

    Attributes:
      name: unique name, used for record files and tables.
      task: SeqIO task whose rendered examples are the prompts and golds.
      split: split of that task.
      kind: family in tables, e.g. "choice", "yes_no", "open", "arithmetic", "cot".
      max_examples: take only the first this many examples; None takes all.
      max_decode_tokens: tokens generated at most per prompt.
      extractor: flexible reading of an answer: "text", "number", "choice", "yes_no".
      scorers: any of "exact_match", "exact_match_flexible", "number_match", "f1".
      score_choices: also compare the options' log-probabilities (rank
        classification), which asks nothing of the form of the answer.
      style: "direct" (the output is the answer) or "cot" (the answer stands after
        a closing phrase such as "the answer is").
      stop: the output is cut before the first of these strings.
    """

    name: str
    task: str
    split: str = "test"
    kind: str = "open"
    max_examples: int | None = None
    max_decode_tokens: int = 16
    extractor: str = "text"
    scorers: tuple[str, ...] = ("exact_match", "exact_match_flexible")
    score_choices: bool = False
    style: str = "direct"
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "scorers", tuple(self.scorers))
        object.__setattr__(self, "stop", tuple(self.stop))
        self._check_name("extractor", self.extractor, EXTRACTORS)
        self._check_name("style", self.style, STYLES)
        for scorer in self.scorers:
            self._check_name("scorer", scorer, SCORERS)
        if not self.scorers:
            raise ConfigError("an eval needs a scorer", where=f"eval '{self.name}'")
        if self.score_choices and self.style == "cot":
            raise ConfigError(
                "options have no likelihood of their own before a chain of thought",
                where=f"eval '{self.name}'",
                fix="set score_choices=False, or style='direct'",
            )
        limits = (self.max_decode_tokens, self.max_examples)
        if any(limit is not None and limit < 1 for limit in limits):
            raise ConfigError(
                "max_decode_tokens and max_examples must be at least 1",
                where=f"eval '{self.name}'",
            )

    def _check_name(self, what: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise ConfigError(
                f"unknown {what} '{name}'.{nearest(name, known)}",
                where=f"eval '{self.name}'",
                fix=f"use one of: {', '.join(known)}",
            )


_EVALS: dict[str, EvalSpec] = {}
_SUITES: dict[str, tuple[str, ...]] = {}


def add_eval(spec: EvalSpec) -> EvalSpec:
    """Registers a spec; again with the same content is allowed, other content not."""
    if _EVALS.get(spec.name, spec) != spec or spec.name in _SUITES:
        raise ConfigError(
            f"eval or suite '{spec.name}' is registered already",
            fix="give it another name",
        )
    _EVALS[spec.name] = spec
    return spec


def add_suite(name: str, evals: Iterable[str]) -> None:
    """Registers a named list of evals (or suites) that exist already."""
    members = tuple(evals)
    resolve_evals(members)
    if _SUITES.get(name, members) != members or name in _EVALS:
        raise ConfigError(
            f"eval or suite '{name}' is registered already", fix="give it another name"
        )
    _SUITES[name] = members


def eval_names() -> tuple[str, ...]:
    """Names of all registered evals."""
    return tuple(_EVALS)


def resolve_evals(names: Iterable[str]) -> tuple[EvalSpec, ...]:
    """Specs behind names of evals and suites, in order, each once.

    Raises:
      ConfigError: a name is neither an eval nor a suite; the nearest one is offered.
    """
    specs: dict[str, EvalSpec] = {}
    for name in names:
        if name in _EVALS:
            specs[name] = _EVALS[name]
        elif name in _SUITES:
            specs |= {spec.name: spec for spec in resolve_evals(_SUITES[name])}
        else:
            known = sorted([*_EVALS, *_SUITES])
            raise ConfigError(
                f"unknown eval or suite '{name}'.{nearest(name, known)}",
                fix="known: " + (", ".join(known) or "none (no module registered any)"),
            )
    return tuple(specs.values())


def to_json(spec: EvalSpec) -> dict[str, Any]:
    """The spec as plain JSON values."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(spec).items()
    }


def from_json(values: dict[str, Any]) -> EvalSpec:
    """The spec that `to_json` wrote.

    Raises:
      ConfigError: a key is unknown or missing, or a value is not allowed.
    """
    known = [field.name for field in dataclasses.fields(EvalSpec)]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown key '{key}' in an eval.{nearest(key, known)}",
                where=f"eval '{values.get('name')}'",
            )
    try:
        return EvalSpec(**values)
    except TypeError as error:
        raise ConfigError(f"bad eval: {error}", where=f"eval {values}") from error
