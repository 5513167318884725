"""Held-out sets as plain SeqIO tasks with their prompts, and their evals in suites.

    PrepareConfig("flan2022", ("mixtures.flan2022", "mixtures.heldout"),
                  evals=("mmlu", "bbh_cot", "tydiqa"), ...)

  suite            evals                             exemplars
  mmlu             57 subjects                       5, of split dev, in order
  mmlu_cot         57 subjects                       the published prompts
  bbh, bbh_cot     27 subtasks                       3, the published prompts
  tydiqa           8 languages                       1, of the language's train file
  tydiqa_zero_shot 8 languages                       none
  mgsm             10 languages                      8, native chain of thought
  svamp, asdiv, gsm8k, aqua, commonsense_qa
                   `<name>_direct`, `<name>_cot`     8, 8, 8, 4, 7, our own
  niv2_test        119 tasks                         2 of the task's, and its definition
  heldout          all of these but tydiqa_zero_shot

Importing registers names and reads one small table; files are opened when a dataset is
built, and one that is missing is named then, with where to get it. Prompts have
at most `MAX_PROMPT_TOKENS` tokens: the last exemplars of a longer one are left out, and
`shot_ids` of its example says which stayed. `mixtures.heldout_*` have the details.

None of this may be trained on: `HELD_OUT_BASES` has the names for a mixture to check.
"""

from collections.abc import Iterator

from flanjax.data.fewshot import FewShot
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.eval.suites import EvalSpec, add_eval, add_suite
from mixtures import (
    heldout_bbh,
    heldout_mmlu,
    heldout_multilingual,
    heldout_niv2,
    heldout_reasoning,
)
from mixtures.heldout_files import HeldOut

# What T5 and FLAN models were trained and evaluated with.
MAX_PROMPT_TOKENS = 2048

SUITES = (
    "mmlu",
    "mmlu_cot",
    "bbh",
    "bbh_cot",
    "tydiqa",
    "mgsm",
    "svamp",
    "asdiv",
    "gsm8k",
    "aqua",
    "commonsense_qa",
    "niv2_test",
)


def held_out() -> Iterator[HeldOut]:
    """Yields what every held-out task is made of; reads one small table."""
    yield from heldout_mmlu.held_out()
    yield from heldout_bbh.held_out()
    yield from heldout_multilingual.held_out()
    yield from heldout_reasoning.held_out()
    yield from heldout_niv2.held_out()


def _register(task: HeldOut) -> tuple[str, ...]:
    return add_instruction_task(
        task.base,
        task.source,
        task.templates,
        TaskInfo("heldout", task.dataset, task.category, task.languages, task.licence),
        prompt_types=(task.prompt_type, *(("zs_noopt",) if task.zero_shot else ())),
        few_shot=FewShot(task.shots, MAX_PROMPT_TOKENS, in_order=True),
        exemplar_split=task.exemplars,
        cot=task.cot,
        answer_field=task.answer_field,
    )


def _add_eval(task: HeldOut, name: str, prompt_type: str) -> str:
    spec = EvalSpec(
        name=name,
        task=f"{task.base}_{prompt_type}",
        kind=task.kind,
        max_decode_tokens=task.max_decode_tokens,
        extractor=task.extractor,
        scorers=task.scorers,
        # Where a row says what may be answered, options have a likelihood.
        score_choices=not task.cot and prompt_type == "fs_opt",
        style="cot" if task.cot else "direct",
        stop=task.stop,
    )
    return add_eval(spec).name


def _add_all() -> dict[str, tuple[str, ...]]:
    """Registers tasks, evals and suites; returns base -> its tasks."""
    bases: dict[str, tuple[str, ...]] = {}
    suites: dict[str, list[str]] = {suite: [] for suite in SUITES}
    for task in held_out():
        bases[task.base] = _register(task)
        name = _add_eval(task, task.evaluation or task.base, task.prompt_type)
        evals = {task.suite: name}
        if task.zero_shot:
            zero_shot = f"{task.suite}_zero_shot"
            name = task.base.replace(task.suite, zero_shot)
            evals[zero_shot] = _add_eval(task, name, "zs_noopt")
        for suite, member in evals.items() if task.in_suite else ():
            suites.setdefault(suite, []).append(member)
    for suite, members in suites.items():
        add_suite(suite, members)
    add_suite("heldout", SUITES)
    return bases


# Base -> names of its SeqIO tasks.
BASES = _add_all()
HELD_OUT_BASES = frozenset(BASES)
