"""Held-out sets in many languages: TyDiQA (gold passages) and MGSM.

Files, in the folder `eval` of the data root:

    tydiqa_goldp/<language>_dev.json, <language>_train.json    SQuAD's schema
    tydiqa_goldp/tydiqa-goldp-v1.1-{dev,train}.json            instead, all languages
    mgsm/mgsm_<code>.tsv, and mgsm/exemplars.json or the published exemplars.py

TyDiQA (https://arxiv.org/abs/2003.05002) asks for a span of a passage. The prompt has
one exemplar of the same language: the first question of its train file. Where there is
no train file, `tydiqa_zero_shot` asks the same without an exemplar; scores of the two
do not compare. The published prompts are not to be had; these are our own, in the
passage's language.

MGSM (https://arxiv.org/abs/2210.03057) is 250 grade-school problems in each language,
with eight exemplars that reason in that language. English is registered for both and
counted in neither average, as in Chung et al. 2022.
"""

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flanjax.data.readers import Row, open_file, read_tsv
from mixtures.heldout_files import (
    EvalFiles,
    HeldOut,
    Part,
    read_json,
    read_text,
    templates,
    whole_number,
)

TYDIQA = {
    "ar": "arabic",
    "bn": "bengali",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
    "en": "english",
}
MGSM = ("bn", "de", "es", "fr", "ja", "ru", "sw", "te", "th", "zh", "en")

_LABEL = re.compile(r"(?P<label>[^:\uff1a]+[:\uff1a]\s*)(?P<text>.*)", re.DOTALL)


def read_gold_passages(path: Path, *, language: str) -> Iterator[Row]:
    """Yields the questions of one language.

    Args:
      path: JSON in the schema of SQuAD 1.1; ids begin with the language.
      language: its English name in lower case.
    """
    for article in read_json(path)["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                if not question["id"].startswith(f"{language}-"):
                    continue
                answers = [answer["text"] for answer in question["answers"]]
                yield {
                    "row_id": question["id"],
                    "passage": paragraph["context"],
                    "question": question["question"],
                    "answer": answers[0],
                    "references": list(dict.fromkeys(answers)),
                }


def read_problems(path: Path, exemplars: Path, *, language: str) -> Iterator[Row]:
    """Yields the problems of one language, under the labels of its exemplars.

    Args:
      path: TSV of question and number.
      exemplars: see `published_exemplars`.
      language: code.
    """
    first = next(read_native_exemplars(exemplars, language=language))
    label = _split(first["question"])[0]
    with open_file(path) as stream:
        for _, row in read_tsv(stream, str(path), ("question", "answer")):
            yield {
                "question": label + row["question"],
                "answer_label": first["answer_label"],
                "solution": whole_number(row["answer"]),
            }


def read_native_exemplars(path: Path, *, language: str) -> Iterator[Row]:
    """Yields question (with its label), answer_label and solution of the exemplars."""
    exemplars = published_exemplars(path)[language]
    for number in sorted(exemplars, key=int):
        label, solution = _split(exemplars[number]["a"])
        question = exemplars[number]["q"]
        yield {"question": question, "answer_label": label, "solution": solution}


def published_exemplars(path: Path) -> dict[str, dict[Any, dict[str, str]]]:
    """Reads MGSM's exemplars: language -> number -> question `q` and answer `a`.

    Args:
      path: the published Python file, whose literals are read and which is never run,
        or JSON of the same.

    Raises:
      ValueError: it does not define MGSM_EXEMPLARS.
    """
    text = read_text(path)
    if path.name.removesuffix(".gz").endswith(".json"):
        return json.loads(text)["MGSM_EXEMPLARS"]
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="MGSM_EXEMPLARS")], value=value):
                return ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(id="MGSM_EXEMPLARS"), value=value):
                return ast.literal_eval(value) if value else {}
    raise ValueError("no MGSM_EXEMPLARS")


def _split(text: str) -> tuple[str, str]:
    """Splits "Question: How many?" after the label and the space that follows it."""
    match = _LABEL.fullmatch(text)
    if match is None:
        raise ValueError(f"no label with a colon: {text[:40]!r}")
    return match["label"], match["text"]


def held_out() -> Iterator[HeldOut]:
    """Yields TyDiQA with and without an exemplar, and MGSM."""
    for code, language in TYDIQA.items():
        yield _tydiqa(code, language)
    for code in MGSM:
        yield _mgsm(code)


def _tydiqa(code: str, language: str) -> HeldOut:
    read = functools.partial(read_gold_passages, language=language)
    splits = {"test": "dev", "train": "train"}
    parts = {
        split: Part(
            read,
            (
                f"tydiqa_goldp/{language}_{stored}.json",
                f"tydiqa_goldp/tydiqa-goldp-v1.1-{stored}.json",
            ),
        )
        for split, stored in splits.items()
    }
    return HeldOut(
        base=f"tydiqa_{code}",
        suite="tydiqa",
        in_suite=code != "en",
        source=EvalFiles(parts, "https://github.com/google-research-datasets/tydiqa"),
        templates=templates("tydiqa", code),
        prompt_type="fs_noopt",
        zero_shot=True,
        shots=1,
        exemplars="train",
        dataset="tydiqa_goldp",
        category="reading comprehension",
        languages=(code,),
        licence="Apache-2.0; passages CC BY-SA 3.0",
        kind="open",
        extractor="text",
        scorers=("exact_match", "exact_match_flexible", "f1"),
        max_decode_tokens=64,
        stop=("\n",),
    )


def _mgsm(code: str) -> HeldOut:
    exemplars = ("mgsm/exemplars.json", "mgsm/exemplars.py")
    read = functools.partial(read_problems, language=code)
    native = functools.partial(read_native_exemplars, language=code)
    parts = {
        "test": Part(read, f"mgsm/mgsm_{code}.tsv", exemplars),
        "exemplars": Part(native, exemplars),
    }
    return HeldOut(
        base=f"mgsm_{code}",
        suite="mgsm",
        in_suite=code != "en",
        source=EvalFiles(
            parts, "https://github.com/google-research/url-nlp/tree/main/mgsm"
        ),
        templates=templates("word_problems", "mgsm"),
        prompt_type="fs_opt",
        cot=True,
        shots=8,
        exemplars="exemplars",
        dataset="mgsm",
        category="arithmetic",
        languages=(code,),
        licence="CC BY 4.0",
        kind="cot",
        extractor="number",
        # The closing phrase is in the problem's language: the last number counts.
        scorers=("exact_match_flexible", "number_match"),
        max_decode_tokens=512,
        stop=("\n\n",),
        answer_field="solution",
    )
