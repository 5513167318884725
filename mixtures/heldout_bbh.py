"""BIG-Bench Hard: 27 subtasks, answered directly or after a chain of thought.

Files, in the folder `eval/bbh` of the data root, as they are published
(https://github.com/suzgunmirac/BIG-Bench-Hard, https://arxiv.org/abs/2210.09261):

    data/<subtask>.json
    cot-prompts/<subtask>.txt

A prompt file begins with a canary and a dashed line, which are dropped; its one-line
description stands once before the three exemplars. The chain-of-thought prompt is the
rest of the file, character by character, then the question and the first sentence of an
answer. The direct prompt has the same exemplars with nothing but their answers.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from flanjax.data.readers import Row
from mixtures.heldout_files import (
    EvalFiles,
    HeldOut,
    Part,
    parse_exemplars,
    read_json,
    read_text,
    templates,
)

# Chung et al. 2022 (https://arxiv.org/abs/2210.11416) average the 27 subtasks; Suzgun
# et al. first average the sizes of the two tasks that have several.
NLP = (
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "formal_fallacies",
    "hyperbaton",
    "movie_recommendation",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
)
ALGORITHMIC = (
    "boolean_expressions",
    "dyck_languages",
    "geometric_shapes",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)
SUBTASKS = tuple(sorted(NLP + ALGORITHMIC))

# Number of the item, from 1 -> what is wrong with it. They stay in: published scores
# count them. `flaw` finds them by rule.
FLAWED: dict[str, dict[int, str]] = {
    "movie_recommendation": {164: "the answer is not an option"},
    "penguins_in_a_table": {60: "4 options, the others have 5 or more"},
    "ruin_names": {
        52: "3 options, the others have 4 or more",
        100: "the answer is not an option",
        145: "the answer is not an option",
    },
    "snarks": {89: "a single option"},
}

# Answers that the question itself does not list.
_UNLISTED = {
    "boolean_expressions": ("True", "False"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
_YES_NO = {*_UNLISTED, "causal_judgement", "navigate"}
_NUMBERS = {"multistep_arithmetic_two", "object_counting"}
_TEXTS = {"dyck_languages", "formal_fallacies", "word_sorting"}
_EXEMPLAR = re.compile(
    r"Q: (?P<question>.*?)\nA: Let's think step by step\.\s(?P<rationale>.*?) ?"
    r"So the answer is (?P<answer>.*)\.",
    re.DOTALL,
)


def read_items(path: Path, prompts: Path, *, subtask: str) -> Iterator[Row]:
    """Yields the items of a subtask.

    Args:
      path: JSON with `examples`, each of `input` and `target`.
      prompts: the subtask's prompt file, whose description the rows have.
      subtask: its name.
    """
    description, _ = parse_prompts(read_text(prompts))
    for item in read_json(path)["examples"]:
        yield {
            "description": description,
            "question": item["input"],
            "rationale": "",
            "answer": item["target"],
            "options": list(_UNLISTED.get(subtask, ())) or listed(item["input"]),
        }


def read_prompt_exemplars(prompts: Path) -> Iterator[Row]:
    """Yields the exemplars of a prompt file."""
    description, exemplars = parse_prompts(read_text(prompts))
    return ({"description": description, **row} for row in exemplars)


def parse_prompts(text: str) -> tuple[str, list[Row]]:
    """Takes a prompt file apart.

    Returns:
      The description, and question, rationale and answer of each exemplar.

    Raises:
      ValueError: no dashed line ends the canary, or a part is no exemplar.
    """
    _, dashes, prompt = text.partition("\n-----\n")
    if not dashes:
        raise ValueError("no dashed line after the canary")
    return parse_exemplars(prompt.strip(), _EXEMPLAR)


def listed(question: str) -> list[str]:
    """Returns what the question lists: letters, "(A)", or texts after dashes."""
    _, found, block = question.rpartition("Options:")
    if not found:
        return []
    letters = re.findall(r"^(\([A-Z]\))", block, re.MULTILINE)
    return letters or [
        text.strip() for text in re.findall(r"^- (.+)$", block, re.MULTILINE)
    ]


def flaw(row: Row, fewest: int) -> str | None:
    """Returns what is wrong with an item, if anything is.

    Args:
      row: of `read_items`.
      fewest: least number of options among the *other* items of the subtask.
    """
    options = row["options"]
    if not options:
        return None
    if len(options) == 1:
        return "a single option"
    if row["answer"] not in options:
        return "the answer is not an option"
    if len(options) < fewest:
        return f"{len(options)} options, the others have {fewest} or more"
    return None


def held_out() -> Iterator[HeldOut]:
    """Yields all subtasks, direct and with chain of thought."""
    for cot in (False, True):
        for subtask in SUBTASKS:
            yield _subtask(subtask, cot)


def _subtask(subtask: str, cot: bool) -> HeldOut:
    suite = "bbh_cot" if cot else "bbh"
    prompts = f"bbh/cot-prompts/{subtask}.txt"
    read = functools.partial(read_items, subtask=subtask)
    # One prompt goes on in the line of the first sentence, the others in a new one.
    one_line = cot and subtask == "sports_understanding"
    has_options = subtask not in _NUMBERS | _TEXTS or subtask == "formal_fallacies"
    kind = _kind(subtask)
    return HeldOut(
        base=f"{suite}_{subtask}",
        suite=suite,
        source=EvalFiles(
            {
                "test": Part(read, f"bbh/data/{subtask}.json", prompts),
                "exemplars": Part(read_prompt_exemplars, prompts),
            },
            "https://github.com/suzgunmirac/BIG-Bench-Hard",
        ),
        templates=templates("bbh", f"{suite}_one_line" if one_line else suite),
        prompt_type="fs_opt" if cot or has_options else "fs_noopt",
        cot=cot,
        shots=3,
        exemplars="exemplars",
        dataset="bbh",
        category="reasoning, NLP" if subtask in NLP else "reasoning, algorithmic",
        licence="MIT",
        kind="cot" if cot else kind,
        extractor={"open": "text", "arithmetic": "number"}.get(kind, kind),
        # Brackets are all punctuation, which the flexible comparison drops.
        scorers=("exact_match",)
        if subtask == "dyck_languages"
        else ("exact_match", "exact_match_flexible"),
        max_decode_tokens=512 if cot else 128 if subtask == "word_sorting" else 32,
        stop=("\n\nQ:",) if cot else ("\n",),
    )


def _kind(subtask: str) -> str:
    if subtask in _NUMBERS:
        return "arithmetic"
    if subtask in _YES_NO:
        return "yes_no"
    return "open" if subtask in _TEXTS else "choice"
