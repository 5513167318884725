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

from flanjax.data.fewshot import FewShot
from flanjax.data.located import DatasetSource
from flanjax.data.sources import Source
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import PROMPT_TYPES, TemplateGroup
from mixtures.muffin_datasets import DATASETS, GROUPS
from mixtures.muffin_facts import facts

# A task weighs 30,000 examples at most; rows that no run reaches only cost memory.
MOST_ROWS = 200_000


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
    raise AssertionError(f"tables/muffin.tsv and the Muffin modules differ in {odd}")

BASES: dict[str, tuple[str, ...]] = {name: _add(name) for name in _NAMES}
