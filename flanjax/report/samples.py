"""Samples a reader can judge: three right and three wrong answers per eval.

The same question is shown with its answer before and after training. Among the right
(and wrong) answers those that changed and those that did not take turns, in the order
of the records; nothing is picked by hand.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flanjax.report.headline import STRICT, Headline, match
from flanjax.report.run_directory import Run

SHOWN = 3
# How much of a prompt's end is shown without a click.
_TAIL_CHARACTERS, _TAIL_LINES = 420, 8
_FLIPS = ("wrong → right", "right → wrong", "right → right", "wrong → wrong")


@dataclass(frozen=True)
class Answer:
    """What the model said: raw output, strict and flexible reading, verdict."""

    output: str
    strict: str | None
    flexible: str | None
    right: bool
    likely: str | None


@dataclass(frozen=True)
class Sample:
    """One question with its answers; `before` is None without an earlier step."""

    row_id: str
    prompt: str
    gold: str
    before: Answer | None
    after: Answer

    @property
    def tail(self) -> str:
        """The end of the prompt, where the question stands."""
        lines = self.prompt.strip().splitlines()[-_TAIL_LINES:]
        text = "\n".join(lines).strip()
        if len(text) > _TAIL_CHARACTERS:
            cut = text[-_TAIL_CHARACTERS:]
            text = cut[cut.find(" ") + 1 :]
        return text if text == self.prompt.strip() else f"… {text}"

    @property
    def is_cut(self) -> bool:
        """True when `tail` is not the whole prompt."""
        return self.tail != self.prompt.strip()

    @property
    def change(self) -> str:
        """For example "wrong → right"."""
        now = _verdict(self.after)
        return f"{_verdict(self.before)} → {now}" if self.before else now


@dataclass(frozen=True)
class EvalSamples:
    """Samples of one eval.

    Attributes:
      name: the eval.
      right, wrong: samples by the verdict after training.
      flips: "wrong → right" and so on -> how many questions; empty without a before.
      templates: ids of the templates that wrote the prompts.
    """

    name: str
    right: list[Sample]
    wrong: list[Sample]
    flips: dict[str, int]
    templates: list[str]


def collect(run: Run, headline: Headline) -> list[EvalSamples]:
    """Samples of every eval that left records at the last evaluated step."""
    found = []
    for row in headline.rows:
        old = run.records(headline.before_step, row.name)
        new = run.records(headline.after_step, row.name)
        if new:
            found.append(_samples(row.name, old, new))
    return found


def _samples(
    name: str, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> EvalSamples:
    pairs = match(old, new)
    flips: dict[str, int] = dict.fromkeys(_FLIPS, 0)
    groups: dict[tuple[bool, bool | None], list[tuple[Any, Any]]] = {}
    for before, after in pairs:
        was = _is_right(before) if before else None
        groups.setdefault((_is_right(after), was), []).append((before, after))
        if before:
            flips[f"{_word(was)} → {_word(_is_right(after))}"] += 1

    def pick(right: bool) -> list[Sample]:
        # What changed comes first: wrong -> right, right -> wrong.
        order = [groups.get((right, was), []) for was in (not right, right, None)]
        return [_sample(*pair) for pair in _in_turn(order)][:SHOWN]

    templates = sorted({str(r["template_id"]) for r in new if r.get("template_id")})
    counted = flips if any(flips.values()) else {}
    return EvalSamples(name, pick(True), pick(False), counted, templates)


def _in_turn(groups: list[list[Any]]) -> Iterable[Any]:
    """One of each group, then the second of each, ..."""
    for i in range(max(map(len, groups), default=0)):
        yield from (group[i] for group in groups if i < len(group))


def _is_right(record: dict[str, Any]) -> bool:
    return record["scores"].get(STRICT, 0) >= 0.5


def _word(right: bool | None) -> str:
    return "right" if right else "wrong"


def _verdict(answer: Answer | None) -> str:
    return _word(answer.right) if answer else ""


def _sample(before: dict[str, Any] | None, after: dict[str, Any]) -> Sample:
    return Sample(
        row_id=str(after.get("row_id", "")),
        prompt=str(after.get("prompt", "")),
        gold=" | ".join(after["gold"]),
        before=_answer(before) if before else None,
        after=_answer(after),
    )


def _answer(record: dict[str, Any]) -> Answer:
    def text(key: str) -> str | None:
        return None if record.get(key) is None else str(record[key])

    return Answer(
        output=str(record.get("output", "")),
        strict=text("strict"),
        flexible=text("flexible"),
        right=_is_right(record),
        likely=_likely(record),
    )


def _likely(record: dict[str, Any]) -> str | None:
    """The option the model finds most likely."""
    choice = record.get("choice_prediction")
    choices = record["choices"]
    if isinstance(choice, int) and 0 <= choice < len(choices):
        return choices[choice]
    return None
