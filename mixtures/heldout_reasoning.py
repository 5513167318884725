"""Held-out word problems and commonsense questions, direct and with chain of thought.

Files, in the folder `eval` of the data root:

    SVAMP.json                          https://github.com/arkilpatel/SVAMP
    asdiv.jsonl                         https://github.com/reasoning-machines/pal
    gsm8k_test.jsonl                    https://github.com/openai/grade-school-math
    aqua_dev.jsonl, aqua_test.jsonl     https://github.com/google-deepmind/AQuA
    commonsenseqa_dev_rand_split.jsonl  https://www.tau-nlp.sites.tau.ac.il/commonsenseqa

Chain-of-thought prompting (Wei et al. 2022, https://arxiv.org/abs/2201.11903) has eight
exemplars for word problems, four for AQuA and seven for commonsense. Ours, in
`tables/heldout_exemplars.toml`, are as many and of the same kinds, but other texts:
scores differ a little from published ones. Direct prompts have the same exemplars
without the rationale. GSM8K's and AQuA's train sets belong to the
Flan collection, so these two are held out as test sets, not as tasks.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flanjax.data.readers import Row, open_file, read_jsonl
from flanjax.data.sources import Source
from mixtures.heldout_files import (
    EXEMPLARS,
    EvalFiles,
    HeldOut,
    Part,
    lettered,
    read_exemplars,
    read_json,
    templates,
    whole_number,
)


def read_svamp(path: Path) -> Iterator[Row]:
    """Yields SVAMP's problems: the story and the question as one text."""
    for item in read_json(path):
        story = item["Body"].strip()
        story += "" if story.endswith((".", "?", "!", ",")) else "."
        answer = item["Answer"]
        if answer != int(answer):
            raise ValueError(f"the answer {answer} is not a whole number")
        yield _problem(f"{story} {item['Question'].strip()}", str(int(answer)))


def read_asdiv(path: Path) -> Iterator[Row]:
    """Yields ASDiv's problems whose answer is a whole number."""
    for item in _lines(path):
        yield _problem(item["input"], str(item["target"]))


def read_gsm8k(path: Path) -> Iterator[Row]:
    """Yields GSM8K's problems; the answer is what follows the four hash marks."""
    for item in _lines(path):
        yield _problem(item["question"], item["answer"].split("####")[1])


def read_aqua(path: Path) -> Iterator[Row]:
    """Yields AQuA's questions; their options come with letters, "A)21"."""
    for item in _lines(path):
        options = [re.sub(r"^[A-E]\)", "", text).strip() for text in item["options"]]
        yield _choice(item["question"], options, item["correct"])


def read_commonsense_qa(path: Path) -> Iterator[Row]:
    """Yields CommonsenseQA's questions in their published, nested form."""
    for item in _lines(path):
        question = item["question"]
        options = [choice["text"] for choice in question["choices"]]
        yield _choice(question["stem"], options, item["answerKey"])


def _lines(path: Path) -> Iterator[Row]:
    with open_file(path) as stream:
        yield from (row for _, row in read_jsonl(stream, str(path)))


def _problem(question: str, answer: str) -> Row:
    answer = whole_number(answer)
    return {"question": question.strip(), "rationale": "", "answer": answer}


def _choice(question: str, options: list[str], letter: str) -> Row:
    row = lettered(options)
    answer = f"({letter.strip()})"
    if answer not in row["options"]:
        raise ValueError(f"the answer {letter!r} is none of {len(options)} letters")
    question = question.strip()
    return {"question": question, "rationale": "", "answer": answer, **row}


@dataclass(frozen=True)
class _Set:
    """A set with one file for each split."""

    read: Callable[[Path], Iterator[Row]]
    files: dict[str, str]
    origin: str
    licence: str
    exemplars: str
    shots: int
    base: str = ""


_SETS = {
    "svamp": _Set(
        read_svamp,
        {"test": "SVAMP.json"},
        "https://github.com/arkilpatel/SVAMP",
        "MIT",
        "word_problems",
        8,
    ),
    "asdiv": _Set(
        read_asdiv,
        {"test": "asdiv.jsonl"},
        "https://github.com/reasoning-machines/pal/tree/main/datasets",
        "CC BY-NC 4.0",
        "word_problems",
        8,
    ),
    "gsm8k": _Set(
        read_gsm8k,
        {"test": "gsm8k_test.jsonl"},
        "https://github.com/openai/grade-school-math",
        "MIT",
        "word_problems",
        8,
    ),
    "aqua": _Set(
        read_aqua,
        {"test": "aqua_test.jsonl", "dev": "aqua_dev.jsonl"},
        "https://github.com/google-deepmind/AQuA",
        "Apache-2.0",
        "algebra",
        4,
    ),
    "commonsense_qa": _Set(
        read_commonsense_qa,
        {"test": "commonsenseqa_dev_rand_split.jsonl"},
        "https://www.tau-nlp.sites.tau.ac.il/commonsenseqa",
        "MIT",
        "commonsense",
        7,
        base="commonsense_qa_heldout",
    ),
}


def held_out() -> Iterator[HeldOut]:
    """Yields each set, direct and with chain of thought."""
    for name, entry in _SETS.items():
        exemplars = functools.partial(read_exemplars, group=entry.exemplars)
        parts = {split: Part(entry.read, file) for split, file in entry.files.items()}
        parts["exemplars"] = Part(exemplars, EXEMPLARS)
        source = EvalFiles(parts, entry.origin)
        yield _task(name, entry, source, cot=False)
        yield _task(name, entry, source, cot=True)


def _task(name: str, entry: _Set, source: Source, cot: bool) -> HeldOut:
    choice = entry.exemplars != "word_problems"
    group = (
        ("choice_cot" if cot else "choice") if choice else "cot" if cot else "direct"
    )
    file = "choice" if choice else "word_problems"
    kind = "choice" if choice else "arithmetic"
    flexible = ("exact_match", "exact_match_flexible")
    return HeldOut(
        base=(entry.base or name) + ("_cot" if cot else ""),
        suite=name,
        evaluation=f"{name}_{'cot' if cot else 'direct'}",
        source=source,
        templates=templates(file, group),
        prompt_type="fs_opt" if choice or cot else "fs_noopt",
        cot=cot,
        shots=entry.shots,
        exemplars="exemplars",
        dataset=name,
        category="commonsense" if name == "commonsense_qa" else "arithmetic",
        licence=entry.licence,
        kind="cot" if cot else kind,
        extractor="choice" if choice else "number",
        scorers=flexible if choice else (*flexible, "number_match"),
        max_decode_tokens=256 if cot else 16,
        stop=("\n\nQ:",) if cot else ("\n",),
    )
