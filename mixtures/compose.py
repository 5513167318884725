"""Puts the tasks of a collection together into mixtures, one for each prompt type.

add_by_prompt_type("cot_forward", cot.FORWARD, ("zs_opt", "fs_opt"), cap=100_000)
# -> cot_forward_zs_opt, cot_forward_fs_opt and cot_forward, which is both, evenly
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import seqio

from flanjax.data.mixing import checked_members, examples_proportional
from flanjax.data.templates import PROMPT_TYPES

Bases = Mapping[str, Sequence[str]]


def add_mixture(name: str, members: Iterable[tuple[str, Any]]) -> str:
    """Registers a mixture and returns its name.

    Args:
      name: of the mixture.
      members: (task or mixture, rate) pairs.

    Raises:
      ConfigError: the name is taken, or a member comes twice.
    """
    known = seqio.MixtureRegistry.names()
    seqio.MixtureRegistry.add(name, checked_members(name, members, known))
    return name


def tasks_of(bases: Bases, prompt_type: str) -> list[str]:
    """Returns the tasks that stand for a prompt type, in order.

    All forms of it count, the mixed one (`_fs_opt_mix`) and FLAN's x-shot, say. As in
    the public release, a dataset without options, which has no tasks of the "opt"
    types, stands in them with its tasks of the "noopt" types.

    Args:
      bases: base -> names of its tasks, `<base>_<prompt type>[_<form>]`.
      prompt_type: one of flanjax's four.
    """
    found: list[str] = []
    for base, names in bases.items():
        own = _of_type(base, names, prompt_type)
        if not own and not prompt_type.endswith("noopt"):
            own = _of_type(base, names, prompt_type.replace("opt", "noopt"))
        found += own
    return found


def _of_type(base: str, names: Sequence[str], prompt_type: str) -> list[str]:
    start = f"{base}_{prompt_type}"
    return [name for name in names if f"{name}_".startswith(f"{start}_")]


def add_by_prompt_type(
    name: str, bases: Bases, prompt_types: Sequence[str] = PROMPT_TYPES, *, cap: int
) -> str:
    """Registers `<name>_<prompt type>`, tasks by size up to a cap, and `<name>`.

    Args:
      name: of the mixture, which holds each prompt type at the same rate.
      bases: base -> names of its tasks.
      prompt_types: those the collection has.
      cap: examples that count at most for a task's rate.

    Returns:
      The name.
    """
    rate = examples_proportional(cap)
    parts = []
    for prompt_type in prompt_types:
        members = [(task, rate) for task in tasks_of(bases, prompt_type)]
        parts.append((add_mixture(f"{name}_{prompt_type}", members), 1.0))
    return add_mixture(name, parts)
