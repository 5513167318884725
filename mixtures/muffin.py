"""Muffin: the 71 tasks of FLAN 2021, as the Flan Collection's public code has them.

    BASES["rte"]       # ("rte_zs_opt", "rte_zs_noopt", "rte_fs_opt", "rte_fs_noopt",
                       #  "rte_fs_opt_mix")
    seqio.get_mixture_or_task("rte_zs_opt").get_dataset(None, "train", seed=0)

Data comes from `muffin/<task>/<split>.<ending>` below the data root, or from what TFDS
has prepared; see `flanjax.data.located`. A dataset without options has all four prompt
types too: there zs_opt and zs_noopt say the same, as in the public code.

Datasets and templates stand in the modules `muffin_*` (one or more task clusters each)
and `templates/muffin_*.toml`; `tables/muffin.tsv` holds the public code's counts.

To add a dataset: an entry in a module's DATASETS, ten templates, a line in the table.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from flanjax.data.fewshot import FewShot
from flanjax.data.located import DatasetSource
from flanjax.data.sources import Source
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import PROMPT_TYPES, TemplateGroup
from mixtures import (
    muffin_more,
    muffin_questions,
    muffin_sentences,
    muffin_structure,
    muffin_summarization,
)
from mixtures.muffin_dataset import MuffinDataset

# A task weighs 30,000 examples at most; rows that no run reaches only cost memory.
MOST_ROWS = 200_000

_TABLE = Path(__file__).parent / "tables" / "muffin.tsv"
_MODULES = (
    muffin_summarization,
    muffin_structure,
    muffin_questions,
    muffin_sentences,
    muffin_more,
)


@dataclass(frozen=True)
class MuffinFacts:
    """What the public code says of a task.

    Attributes:
      task: name of the SeqIO task there, base of the names here.
      cluster: key of its task cluster.
      tfds: name and version in TFDS; empty where the code has none.
      fields: those that its templates use.
      has_options: whether its templates show options.
      unusual_templates: how many of ten ask for something other than the answer.
      zero_shot_cases: examples in one round of its zero-shot form.
      x_shot_cases: the same of its few-shot form.
      capped_cases: its weight, the zero-shot cases up to 30,000.
      public: whether the public code has it; the paper counts one more.
    """

    task: str
    cluster: str
    tfds: str
    fields: tuple[str, ...]
    has_options: bool
    unusual_templates: int
    zero_shot_cases: int
    x_shot_cases: int
    capped_cases: int
    public: bool


@functools.cache
def facts() -> dict[str, MuffinFacts]:
    """Reads the table: task -> what the public code says of it."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()[2:]
    rows = [line.split("\t") for line in lines]
    return {row[0]: _facts(row) for row in rows}


def _facts(row: list[str]) -> MuffinFacts:
    task, cluster, tfds, fields, options, *numbers, public = row
    return MuffinFacts(
        task,
        cluster,
        tfds,
        tuple(fields.split(",")),
        options == "yes",
        *map(int, numbers),
        public == "yes",
    )


DATASETS: dict[str, MuffinDataset] = {
    name: data for module in _MODULES for name, data in module.DATASETS.items()
}
GROUPS: dict[str, TemplateGroup] = {
    name: group for module in _MODULES for name, group in module.GROUPS.items()
}


def source_of(name: str) -> Source:
    """Returns the rows of a dataset, from local files or from TFDS."""
    data = DATASETS[name]
    source = DatasetSource(
        f"muffin/{data.folder or name}",
        dict(data.parts),
        data.fields,
        data.tfds,
        limit=MOST_ROWS,
    )
    return data.wrap(source) if data.wrap else source


def templates_of(name: str) -> TemplateGroup:
    """Returns the templates of a dataset; nothing is read."""
    return GROUPS[DATASETS[name].templates or name]


def _add(name: str) -> tuple[str, ...]:
    data = DATASETS[name]
    return add_instruction_task(
        name,
        source_of(name),
        templates_of(name),
        TaskInfo("muffin", name, data.category, data.languages, data.licence),
        has_options=data.has_options,
        prompt_types=PROMPT_TYPES,
        option_style="random",
        answer_field=data.answer_field,
        option_fields=data.option_fields,
        many_options=data.many_options,
        mix_shots=FewShot(shots=5),
    )


_NAMES = [task for task, fact in facts().items() if fact.public]
if set(_NAMES) != set(DATASETS) or len(_NAMES) != 71:
    odd = sorted(set(_NAMES) ^ set(DATASETS))
    raise AssertionError(f"{_TABLE.name} and the Muffin modules differ in {odd}")

BASES: dict[str, tuple[str, ...]] = {name: _add(name) for name in _NAMES}
