"""The public code's defects: fixed by default, reproduced on request.

    set_faithful(["self_exemplars", "drop_incomplete_round"])   # for all tasks
    add_instruction_task(..., faithful=("self_exemplars",))     # for one dataset

`SWITCHES` lists them. A switch is looked up when a dataset is built, never before, and
is part of the fingerprint of the tasks it concerns, so that examples made with and
without it lie side by side in the store.

Not reproduced, for these reasons:
  more than 26 options   the public code stops with an error; here `many_options` says
                         whether to stop or to write bullets.
  sciq's permutation     three prompts of P3's sciq list one of four options twice, so
                         that about one in 24 lacks the answer. That is in P3's own
                         files: rows read from these show it, with or without a switch.
  unseeded draws         separators drawn at import and formats drawn without a seed
                         differ between two builds of the public code; no build here can
                         equal both.
  options that leak      some no-option templates name the options in words, and one
                         few-shot target of cosmos_qa holds them. That is the wording of
                         those templates; the ones here are worded anew.
  patched in 2023        no-option targets such as "[4].", exemplars of
                         Natural Instructions from other tasks, MMLU among its tasks.

https://github.com/google-research/FLAN/tree/main/flan/v2
"""

from collections.abc import Iterable

from flanjax.errors import ConfigError, nearest

# Name -> what the public code does; what happens here.
SWITCHES = {
    "t0_newlines": (
        "In P3's rows newlines of inputs become spaces and newlines of targets are "
        "deleted, which glues words; here they stay."
    ),
    "option_formats": (
        "24 of the 87 lists of item names repeat the full-stop variants, so that 63 "
        "differ; here these have the colon that was meant."
    ),
    "dialog_starts": (
        "Two starts of the drawn dialog formats are fused by a missing comma, so that "
        "there are 13; here there are 14."
    ),
    "self_exemplars": (
        "A query may be its own exemplar; here no exemplar equals its query."
    ),
    "drop_incomplete_round": (
        "Rows are taken in rounds of as many as there are templates and the last, "
        "incomplete round is dropped; here every row is used."
    ),
    "budget_without_delimiters": (
        "The few-shot budget counts the tokens of inputs and targets only, so that "
        "prompts can exceed it; here prefixes, delimiters and headers count too."
    ),
    "mnli_doubled": (
        "Matched and mismatched MNLI both read the whole training split; here they "
        "share it."
    ),
    "niv2_single_task": (
        "Natural Instructions is one SeqIO task, so that the cap of 5,000 per task "
        "does nothing inside it; here each of its tasks is one, and capped."
    ),
}

_active: frozenset[str] = frozenset()


def set_faithful(names: Iterable[str]) -> None:
    """Turns on these switches, and no others, for every dataset built from now on.

    Raises:
      ConfigError: there is no such switch.
    """
    global _active
    _active = frozenset(known_switches(names))


def active() -> frozenset[str]:
    """Returns the switches that `set_faithful` turned on."""
    return _active


def known_switches(names: Iterable[str], where: str | None = None) -> tuple[str, ...]:
    """Returns the names, sorted.

    Args:
      names: of switches.
      where: a task, for the message.

    Raises:
      ConfigError: there is no such switch.
    """
    names = tuple(sorted(set(names)))
    for name in names:
        if name not in SWITCHES:
            raise ConfigError(
                f"no switch '{name}' of the public code's defects."
                f"{nearest(name, SWITCHES)}",
                where=where,
                fix=f"use some of: {', '.join(SWITCHES)}",
            )
    return names
