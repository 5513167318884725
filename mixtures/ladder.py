"""The paper's mixtures: its 1,836 tasks in four collections, counted and mixed.

    flan_proportion_a           Table 23, column A: scaling and ablations
    flan_proportion_b           Table 23, column B: the other models
    flan_ladder_9 ... _1836     collections added from fewest to most tasks
    flan_cot_only, flan_non_cot, flan_both          the ablation of chain of thought

https://arxiv.org/abs/2210.11416 (Sections 3 and 4, Appendix F). The paper does not say
how its prompt types were mixed, nor at which rate tasks were turned around: here prompt
types have the same rate each, as in the public release, and turned-around tasks are
left out, since 1,836 does not count them. Inside a collection a task weighs its
examples up to the collection's cap; a ladder rung keeps the proportions of column A.
"""

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flanjax.data.catalog import Collection, add_collection
from flanjax.data.fewshot import FewShot
from flanjax.data.located import DatasetSource
from flanjax.data.mixing import FLAN_RATES, add_empty_mixture
from flanjax.data.sources import Source
from flanjax.data.tasks import TaskInfo, add_instruction_task, instruction_task
from flanjax.data.templates import PROMPT_TYPES
from flanjax.errors import ConfigError, nearest
from mixtures import cot, dialog, muffin, niv2, program_synthesis, t0_sf
from mixtures.compose import Bases, add_by_prompt_type, add_mixture
from mixtures.muffin_dataset import RESERVED

HERE = Path(__file__).parent
_OPT = ("zs_opt", "fs_opt")


@functools.cache
def _manifest() -> dict[str, tuple[str, ...]]:
    """Collection -> bases of its tasks; of the two without a table of their own."""
    path = HERE / "tables" / "collections.tsv"
    with path.open(encoding="utf-8", newline="") as stream:
        next(stream)  # Where the facts are from.
        rows = list(csv.DictReader(stream, delimiter="\t"))
    names = dict.fromkeys(row["collection"] for row in rows)
    return {
        name: tuple(row["base"] for row in rows if row["collection"] == name)
        for name in names
    }


def _only(bases: Bases, names: Sequence[str]) -> dict[str, Sequence[str]]:
    return {name: bases[name] for name in names if name in bases}


# The paper's 80th Muffin task is in the public table, but no public code loads it: its
# questions and answers are the user's to supply, in TriviaQA's form and under
# `<data root>/muffin/trivia_qa_wiki_missing`. The code gives it TriviaQA's templates.
UNRELEASED = "trivia_qa_wiki_missing"


def _add_unreleased() -> dict[str, tuple[str, ...]]:
    known = muffin.DATASETS["trivia_qa"]
    source = DatasetSource(
        f"muffin/{UNRELEASED}", dict(RESERVED), known.fields, limit=muffin.MOST_ROWS
    )
    tasks = add_instruction_task(
        UNRELEASED,
        source,
        muffin.templates_of("trivia_qa"),
        TaskInfo("muffin", UNRELEASED, known.category, licence=known.licence),
        prompt_types=PROMPT_TYPES,
        mix_shots=FewShot(shots=5),
    )
    return {UNRELEASED: tasks}


# The paper's collections: base -> SeqIO tasks, without what is turned around.
COLLECTIONS: dict[str, Bases] = {
    "cot": cot.FORWARD,
    "muffin": _only(
        muffin.BASES | _add_unreleased() | dialog.BASES | program_synthesis.BASES,
        _manifest()["muffin"],
    ),
    "t0_sf": t0_sf.BASES,
    "niv2": _only(niv2.BASES, [task.base for task in niv2.table() if task.paper]),
}

# --- counting -----------------------------------------------------------------------

_TABLE = "flan_collection_info.csv of the public code"


def _add(
    name: str,
    numbers: tuple[int, int, int],
    listed: Callable[[], Sequence[str]],
    bases: Bases,
    note: str,
) -> None:
    paper, table, code = numbers

    def source_of(task: str) -> Source:
        return instruction_task(task).source

    add_collection(
        Collection(name, paper, table, code, note, listed, lambda: bases, source_of)
    )


def _add_collections() -> None:
    """Registers the four in the catalogue; numbers and where each is from."""
    _add(
        "muffin",
        (80, 160, 74),
        lambda: _manifest()["muffin"],
        COLLECTIONS["muffin"],
        f"80 = 72 of Flan 2021 and T0 + 3 dialog + 5 program synthesis in {_TABLE}; "
        "turned around too, 144 + 6 + 10; the code has 71 and the 3 of dialog, and no "
        "loader for trivia_qa_wiki_missing",
    )
    _add(
        "t0_sf",
        (193, 193, 193),
        lambda: tuple(t0_sf.BASES),
        t0_sf.BASES,
        f"a task is a prompt of P3; 193 in {_TABLE} and in constants_t0.py",
    )
    _add(
        "niv2",
        (1_554, 1_556, niv2.PUBLIC_NAMES),
        lambda: tuple(task.base for task in niv2.table() if task.listed),
        niv2.BASES,
        f"{_TABLE} has 1,556, two more than the paper; constants_niv2.py has 1,597 "
        "names without MMLU's 57, of which 41 are second spellings with a hyphen; "
        "other tasks' files, through register_directory, are not counted",
    )
    _add(
        "cot",
        (9, 36, 18),
        lambda: _manifest()["cot"],
        cot.FORWARD,
        f"{_TABLE} has four uses of each of nine sets; the code joins the three that "
        "are turned around into one",
    )


# --- mixtures -----------------------------------------------------------------------

_PROMPT_TYPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cot": {"prompt_types": _OPT},
    "niv2": {"prompt_types": _OPT},
}
# Collections of each rung, from fewest to most tasks.
LADDER = {
    9: ("cot",),
    89: ("cot", "muffin"),
    282: ("cot", "muffin", "t0_sf"),
    1_836: ("cot", "muffin", "t0_sf", "niv2"),
}
_RUNG_0 = "nothing is trained on there: evaluate the initial checkpoint instead"


def ladder_mixture(tasks: int) -> str:
    """Returns the name of the mixture with this many tasks.

    Raises:
      ConfigError: there is no such rung, or it is rung 0, which trains on nothing.
    """
    name = f"flan_ladder_{tasks}"
    if tasks == 0:
        raise ConfigError(f"mixture '{name}' has no tasks", fix=_RUNG_0)
    if tasks not in LADDER:
        rungs = ", ".join(str(rung) for rung in (0, *LADDER))
        hint = nearest(str(tasks), [str(rung) for rung in LADDER])
        raise ConfigError(
            f"no rung of {tasks} tasks.{hint}", fix=f"use one of: {rungs}"
        )
    return name


def _add_mixtures() -> None:
    rates = {name: column.rate for name, column in FLAN_RATES["proportion_a"].items()}
    for name, bases in COLLECTIONS.items():
        cap = FLAN_RATES["proportion_a"][name].cap  # The same in both columns.
        add_by_prompt_type(
            f"flan_{name}", bases, **_PROMPT_TYPES.get(name, {}), cap=cap
        )

    def add(mixture: str, collections: Sequence[str], rates: Mapping[str, float]):
        add_mixture(mixture, [(f"flan_{name}", rates[name]) for name in collections])

    others = [name for name in COLLECTIONS if name != "cot"]
    add("flan_proportion_a", list(COLLECTIONS), rates)
    column_b = {name: c.rate for name, c in FLAN_RATES["proportion_b"].items()}
    add("flan_proportion_b", list(COLLECTIONS), column_b)
    for rung, collections in LADDER.items():
        add(ladder_mixture(rung), collections, rates)
    add_empty_mixture("flan_ladder_0", _RUNG_0)
    add("flan_cot_only", ["cot"], rates)
    add("flan_non_cot", others, rates)
    add("flan_both", list(COLLECTIONS), rates)


_add_collections()
_add_mixtures()
