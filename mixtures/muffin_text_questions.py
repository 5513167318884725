r"""Muffin: questions about texts, conversations, school science, linear equations.

    _coqa({"story": "Ann ran.", "questions": ["Who?", "What did she do?"],
           "answers": {"input_text": ["Ann", "ran"], ...}})
    # {"text": "Ann ran.", "numbered_questions": "1. Who?\n2. What did she do?",
    #  "numbered_answers": "1. Ann\n2. ran"}

Names, splits and label words follow
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

from flanjax.data.readers import Row
from mixtures.muffin_dataset import RESERVED, MuffinDataset
from mixtures.muffin_labels import known_label

_NO_ANSWER = "CANNOTANSWER"
_HIGHLIGHT = re.compile(r"([.!?\"'])?\s*\n@highlight\n")
_LETTERED = re.compile(r"\s*\(([A-Za-z])\)\s*")


def _quac(row: Row) -> Row | None:
    """The mark that ends each text and stands for "no answer" becomes a word."""
    answer = _quac_answer(row["orig_answer"]["text"])
    texts = [_quac_answer(text) for text in _column(row.get("answers", ()), "text")]
    return {
        "background": row["background"],
        "context": row["context"].removesuffix(_NO_ANSWER).strip(),
        "question": row["question"],
        "answer": answer,
        "title": row["title"],
        "references": list(dict.fromkeys([answer, *texts])),
    }


def _quac_answer(text: str) -> str:
    return "unanswerable" if text.strip() == _NO_ANSWER else text.strip()


def _coqa(row: Row) -> Row | None:
    questions = list(row["questions"])
    answers = _column(row["answers"], "input_text")
    if not questions or len(questions) != len(answers):
        return None
    return {
        "text": row["story"].strip(),
        "numbered_questions": _numbered(questions),
        "numbered_answers": _numbered(answers),
    }


def _column(values: Any, name: str) -> list[str]:
    """Reads a list of dicts, or the dict of lists that TFDS makes of it."""
    if isinstance(values, dict):
        return list(values[name])
    return [value[name] for value in values]


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{n}. {text.strip()}" for n, text in enumerate(texts, start=1))


def _record(row: Row) -> Row | None:
    """The bullet points of the news site become sentences of the passage."""
    options = list(dict.fromkeys(row["entities"]))
    answers = list(dict.fromkeys(row["answers"]))
    if not answers or answers[0] not in options:
        return None
    passage = _HIGHLIGHT.sub(lambda found: f"{found[1] or '.'} ", row["passage"])
    return {
        "passage": passage.strip(),
        "query": row["query"],
        "options": options,
        "answer": answers[0],
        "references": answers,
    }


def _cosmos_qa(row: Row) -> Row | None:
    options = [row[f"answer{n}"].strip() for n in range(4)]
    index = known_label(row["label"], ("0", "1", "2", "3"))
    if index is None:
        return None
    return {
        "context": row["context"].strip(),
        "question": row["question"].strip(),
        "options": options,
        "answer": options[index],
    }


def _science(row: Row) -> Row | None:
    r"""UnifiedQA writes all into one text: `question \n (A) one (B) two ...`."""
    question, _, listed = row["input"].replace("\\n", "\n").partition("\n")
    _, *pieces = _LETTERED.split(listed)
    letters, options = pieces[::2], [text.strip() for text in pieces[1::2]]
    expected = "abcdefghijklmnopqrstuvwxyz"[: len(letters)]
    if not letters or "".join(letters).lower() != expected:
        return None
    named = {text.lower(): text for text in options}
    answer = named.get(row["output"].strip().lower())
    if answer is None:
        return None
    return {"question": question.strip(), "options": options, "answer": answer}


def _math_dataset(row: Row) -> Row | None:
    return {name: _plain_text(row[name]) for name in ("question", "answer")}


def _plain_text(text: str) -> str:
    r"""Undoes "b'...\n'", the printed bytes that some exports of this set hold."""
    if re.fullmatch(r"b'.*'|b\".*\"", text.strip()):
        text = ast.literal_eval(text.strip()).decode()
    return text.strip()


DATASETS: dict[str, MuffinDataset] = {
    "math_dataset": MuffinDataset(
        "math_dataset/algebra__linear_1d:1.0.0",
        "math",
        "math",
        _math_dataset,
        parts={**RESERVED, "test": "test"},
        licence="Apache-2.0",
    ),
    "quac": MuffinDataset(
        "quac:1.0.0",
        "conversational_qa",
        "conversational_qa",
        _quac,
        licence="CC BY-SA 4.0",
    ),
    "coqa": MuffinDataset(
        "coqa:1.0.0",
        "conversational_qa",
        "conversational_qa",
        _coqa,
        parts={"train": "train[:-100]", "validation": "train[-100:]", "test": "test"},
        licence="mixed, partly research only",
        answer_field="numbered_answers",
    ),
    "record": MuffinDataset(
        "super_glue/record:1.0.2",
        "read_comp_and_common_sense",
        "read_comp_and_common_sense",
        _record,
        has_options=True,
        many_options="bullets",
    ),
    "cosmos_qa": MuffinDataset(
        "cosmos_qa:1.0.0",
        "read_comp_and_common_sense",
        "read_comp_and_common_sense",
        _cosmos_qa,
        has_options=True,
        licence="CC BY 4.0",
    ),
    "unified_qa_science_inst": MuffinDataset(
        "unified_qa/ai2_science_middle:1.0.0",
        "unified_qa",
        "science_qa",
        _science,
        has_options=True,
        parts={"train": "train", "validation": "validation", "test": "test"},
    ),
}
