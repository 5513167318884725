"""FLAN 2022: every collection, and the mixtures of its public release.

    flan2022               the public release's `flan2022_submix`, by submixture:
                           flan2021 .40, t0 .32, niv2 .20, cot .05, dialog .03
    flan2022_zs_opt ...    one prompt type of it
    flan2022_niv2_single   NIv2 as one task, as the release has it: its cap does nothing
    flan2022_niv2_without_test   NIv2 without the 119 tasks of its official test split,
                           on which FLAN trains too: then these are held out
    flan2021               Flan 2021: its datasets zero-shot, rate maximum 3,000
    flan_temperature       all tasks, temperature-scaled as for T5

Importing this registers all of FLAN's tasks and mixtures, those of the paper
(`mixtures.ladder`) too; it reads tables of names and none of the data. Rates:
https://github.com/google-research/FLAN/blob/main/flan/v2/run_example.py
"""

from collections.abc import Mapping

from flanjax.data.mixing import (
    FLAN_RATES,
    examples_proportional,
    temperature_scaled,
)
from flanjax.data.templates import PROMPT_TYPES
from mixtures import (
    cot,
    dialog,
    ladder,  # noqa: F401 - registers the paper's mixtures
    muffin,
    niv2,
    t0_sf,
)
from mixtures.compose import Bases, add_by_prompt_type, add_mixture, tasks_of

_RELEASE = FLAN_RATES["flan2022"]
_OPT = ("zs_opt", "fs_opt")
# Rate of turned-around tasks beside 1.0 of the others.
INVERTED_RATE = 0.3

# Added to the datasets of Flan 2021 for Flan 2022.
_NEW_IN_2022 = ("lambada", "unified_qa_science_inst")
# https://arxiv.org/abs/2109.01652, Section 2.4
FLAN2021_RATE_MAXIMUM = 3_000
# Temperature and size limit that the T5 paper found best of its temperature-scaled
# mixtures: https://arxiv.org/abs/1910.10683, Section 3.5.2
TEMPERATURE, TEMPERATURE_LIMIT = 2.0, 2**21

_DIALOG_INVERTED = {b: t for b, t in dialog.BASES.items() if b.endswith("_inverted")}
_DIALOG = {b: t for b, t in dialog.BASES.items() if b not in _DIALOG_INVERTED}

# Submixture -> its bases, and those that are turned around.
SUBMIXES: Mapping[str, tuple[Bases, Bases]] = {
    "flan2021": (muffin.BASES, {}),
    "t0": (t0_sf.BASES, {}),
    "niv2": (niv2.BASES, {}),
    "cot": (cot.FORWARD, cot.INVERTED),
    "dialog": (_DIALOG, _DIALOG_INVERTED),
}


def prompt_types(submix: str) -> tuple[str, ...]:
    """Prompt types of a submixture: all four where the release has them."""
    return PROMPT_TYPES if submix in ("flan2021", "t0") else _OPT


def _add_submix(name: str, bases: Bases, inverted: Bases) -> None:
    cap, types = _RELEASE[name].cap, prompt_types(name)
    if not inverted:
        add_by_prompt_type(f"{name}_submix", bases, types, cap=cap)
        return
    add_by_prompt_type(f"{name}_forward", bases, types, cap=cap)
    add_by_prompt_type(f"{name}_inverted", inverted, types, cap=cap)
    for prompt_type in types:
        add_mixture(
            f"{name}_submix_{prompt_type}",
            [
                (f"{name}_forward_{prompt_type}", 1.0),
                (f"{name}_inverted_{prompt_type}", INVERTED_RATE),
            ],
        )
    add_mixture(f"{name}_submix", [(f"{name}_submix_{each}", 1.0) for each in types])


def _add_release() -> None:
    for name, (bases, inverted) in SUBMIXES.items():
        _add_submix(name, bases, inverted)
    add_mixture("flan2022", [(f"{n}_submix", c.rate) for n, c in _RELEASE.items()])
    for prompt_type in PROMPT_TYPES:
        members = [
            (f"{name}_submix_{prompt_type}", collection.rate)
            for name, collection in _RELEASE.items()
            if prompt_type in prompt_types(name)
        ]
        add_mixture(f"flan2022_{prompt_type}", members)


def _add_release_with_other_niv2(name: str, bases: Bases) -> None:
    """Registers `flan2022_<name>`, the release with these tasks for NIv2."""
    add_by_prompt_type(f"{name}_submix", bases, _OPT, cap=_RELEASE["niv2"].cap)
    names = {**{each: each for each in _RELEASE}, "niv2": name}
    members = [(f"{names[n]}_submix", c.rate) for n, c in _RELEASE.items()]
    add_mixture(f"flan2022_{name}", members)


def _without_niv2_test() -> Bases:
    tested = {task.base for task in niv2.table() if task.split == "test"}
    return {base: t for base, t in niv2.BASES.items() if base not in tested}


def _add_flan2021() -> None:
    bases = {b: t for b, t in muffin.BASES.items() if b not in _NEW_IN_2022}
    rate = examples_proportional(FLAN2021_RATE_MAXIMUM)
    add_mixture("flan2021", [(task, rate) for task in tasks_of(bases, "zs_opt")])


def _add_temperature() -> None:
    rate = temperature_scaled(TEMPERATURE, TEMPERATURE_LIMIT)
    tasks = {
        task: rate
        for name, (bases, inverted) in SUBMIXES.items()
        for prompt_type in prompt_types(name)
        for task in tasks_of({**bases, **inverted}, prompt_type)
    }
    add_mixture("flan_temperature", tasks.items())


_add_release()
_add_release_with_other_niv2("niv2_single", {"niv2_single_task": niv2.SINGLE})
_add_release_with_other_niv2("niv2_without_test", _without_niv2_test())
_add_flan2021()
_add_temperature()
