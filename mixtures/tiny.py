"""Tasks that flanjax makes itself, easy enough for a tiny model in a minute.

    flanjax quickstart --tiny

Nothing is downloaded: rows are sentences made of short word lists. Each dataset is cut
into train, validation and test by sentence, so test sentences are new, made of words
that training has shown. Mixture `tiny`; suite `tiny_heldout`:

  tiny_mood      choice     "ann feels ill today" -> bad     zero-shot, with options
  tiny_group     choice     "tom sees a red fox" -> animal   few-shot
  tiny_even      yes/no     "sue has 4 cups" -> Yes
  tiny_sum_cot   cot        "2 cups and 3 cups" -> 2 plus 3 is 5. The answer is 5.

A T5 of two layers answers moods, even numbers and sums right after two hundred steps
(over 90 %), the few-shot task about half the time: the smoke run shows that training,
few-shot prompts and chain of thought work, not what a model can do.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import seqio

from flanjax.data.fewshot import FewShot
from flanjax.data.mixing import examples_proportional
from flanjax.data.readers import Row
from flanjax.data.sources import FunctionSource, PartitionedSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile
from flanjax.eval.suites import EvalSpec, add_eval, add_suite

_TEMPLATES = TemplateFile(Path(__file__).parent / "templates" / "tiny.toml")

NAMES = "ann ben kim leo mia pat sam sue tom zoe".split()
MOODS = {
    "good": ("happy", "super"),
    "bad": ("sad", "ill"),
}
GROUPS = {
    "animal": ("fox", "pig"),
    "food": ("rice", "soup"),
    "tool": ("axe", "nail"),
}
COLOURS = "blue gray green pink red white".split()
THINGS = "caps cups hats jars keys pens".split()
TIMES = "today now again early late often here there".split()

TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 400, 16, 64
_SHOTS = FewShot(shots=(1, 2), max_tokens=126)


def _mood(split: str) -> Iterator[Row]:
    for label, words in MOODS.items():
        for name, word, time in itertools.product(NAMES, words, TIMES):
            text = f"{name} feels {word} {time}"
            yield {"text": text, "options": list(MOODS), "answer": label}


def _group(split: str) -> Iterator[Row]:
    for label, words in GROUPS.items():
        for name, word, colour in itertools.product(NAMES, words, COLOURS):
            text = f"{name} sees a {colour} {word}"
            yield {"text": text, "options": list(GROUPS), "answer": label}


def _even(split: str) -> Iterator[Row]:
    for name, number, thing in itertools.product(NAMES, range(1, 10), THINGS):
        answer = "No" if number % 2 else "Yes"
        text = f"{name} has {number} {thing}"
        yield {"text": text, "options": ["Yes", "No"], "answer": answer}


def _sum_cot(split: str) -> Iterator[Row]:
    digits = range(1, 5)
    for a, b, name, thing in itertools.product(digits, digits, NAMES, THINGS):
        rationale = f"{a} plus {b} is {a + b}."
        text = f"{name} has {a} {thing} and {b} {thing}"
        yield {"text": text, "rationale": rationale, "answer": a + b}


def _add(
    name: str, rows: Callable[[str], Iterator[Row]], category: str, *forms: str
) -> list[str]:
    source = PartitionedSource(
        FunctionSource(rows, ("all",), name),
        "all",
        {"test": TEST_ROWS, "validation": VALIDATION_ROWS, "train": TRAIN_ROWS},
        by="text",
    )
    tasks = add_instruction_task(
        f"tiny_{name}",
        source,
        _TEMPLATES[name],
        TaskInfo("tiny", f"tiny_{name}", category, licence="Apache-2.0"),
        has_options=category != "cot",
        prompt_types=forms,
        few_shot=_SHOTS,
        exemplar_split="train",
        cot=category == "cot",
    )
    return list(tasks)


_TASKS = [
    *_add("mood", _mood, "choice", "zs_opt", "zs_noopt", "fs_noopt"),
    *_add("group", _group, "choice", "zs_noopt", "fs_noopt"),
    *_add("even", _even, "yes_no", "zs_noopt", "fs_noopt"),
    *_add("sum_cot", _sum_cot, "cot", "zs_opt", "fs_opt"),
]
seqio.MixtureRegistry.add(
    "tiny", [(task, examples_proportional(TRAIN_ROWS)) for task in _TASKS]
)

for _spec in (
    EvalSpec("tiny_mood", "tiny_mood_zs_opt", kind="choice", extractor="choice",
             max_decode_tokens=8, score_choices=True),
    EvalSpec("tiny_group", "tiny_group_fs_noopt", kind="choice", extractor="choice",
             max_decode_tokens=8, score_choices=True),
    EvalSpec("tiny_even", "tiny_even_zs_noopt", kind="yes_no", extractor="yes_no",
             max_decode_tokens=8, score_choices=True),
    EvalSpec("tiny_sum_cot", "tiny_sum_cot_zs_opt", kind="cot", extractor="number",
             max_decode_tokens=40, style="cot",
             scorers=("exact_match", "exact_match_flexible", "number_match")),
):  # fmt: skip
    add_eval(_spec)
add_suite("tiny_heldout", ["tiny_mood", "tiny_group", "tiny_even", "tiny_sum_cot"])
