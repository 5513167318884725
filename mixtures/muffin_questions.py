"""Muffin: reading comprehension and open-domain questions, ten datasets.

Rows are those of TFDS or of local files with the same columns, or with `choices` as a
list and `label` as an index. Papers: see the TFDS catalogue,
https://www.tensorflow.org/datasets/catalog/overview.
"""

from collections.abc import Mapping
from pathlib import Path

from flanjax.data.readers import Row
from flanjax.data.templates import TemplateFile
from mixtures.muffin_columns import (
    YES,
    as_question,
    column,
    filled,
    records,
    texts,
    with_options,
    with_references,
)
from mixtures.muffin_dataset import RESERVED, MuffinDataset, label

_NO_YES = ("no", "yes")
_LETTERS = ("A", "B", "C", "D")


def _squad_v1(row: Row) -> Row | None:
    answers = [answer["text"] for answer in records(column(row, "answers"))]
    passage = filled(
        title=column(row, "title").replace("_", " "),
        context=column(row, "context"),
        question=column(row, "question"),
    )
    return with_references(passage, answers)


def _squad_v2(row: Row) -> Row | None:
    """Questions that the passage does not answer get the word "unanswerable"."""
    answerable = _squad_v1(row)
    if row.get("is_impossible") or not records(column(row, "answers")):
        return _squad_v1({**row, "answers": [{"text": "unanswerable"}]})
    return answerable


def _drop(row: Row) -> Row | None:
    passage = filled(
        context=column(row, "passage", "context"), question=column(row, "question")
    )
    others = texts(row.get("validated_answers") or [])
    return with_references(passage, [*texts(column(row, "answer")), *others])


def _multirc(row: Row) -> Row | None:
    """One proposed answer (`response`) at a time; the answer says if it is right."""
    kept = filled(
        paragraph=column(row, "paragraph"),
        question=column(row, "question"),
        response=column(row, "response", "answer"),
    )
    return with_options(kept, _NO_YES, label(column(row, "label"), _NO_YES, YES))


def _openbookqa(row: Row) -> Row | None:
    """`fact` is the science fact of the question and a line end.

    It is empty where the file keeps no facts, so that templates which begin with it
    read well all the same.
    """
    question = column(row, "question")
    if isinstance(question, Mapping):
        choices = [question[f"choice_{letter}"] for letter in _LETTERS]
        question = question["stem"]
    else:
        choices = texts(column(row, "choices"))
    index = label(column(row, "answerKey", "label"), _LETTERS)
    kept = with_options(filled(question=question), choices, index)
    fact = str(row.get("fact1") or row.get("fact") or "").strip()
    if fact:
        fact = f"{fact[:1].upper()}{fact[1:]}".rstrip(".") + ".\n"
    return None if kept is None else {**kept, "fact": fact}


def _bool_q(row: Row) -> Row | None:
    """SuperGLUE's files have the title before the passage, with two hyphens."""
    title, text = row.get("title"), column(row, "passage", "text")
    if not title:
        title, dashes, text = text.partition(" -- ")
        if not dashes:
            raise KeyError("title")
    answer = label(column(row, "answer", "label"), _NO_YES, YES)
    question = as_question(column(row, "question"))
    return with_options(
        filled(text=text, question=question, title=title), _NO_YES, answer
    )


def _trivia_qa(row: Row) -> Row | None:
    answer = column(row, "answer", "answers")
    if isinstance(answer, Mapping):
        answer = [answer["value"], *texts(answer.get("aliases") or [])]
    return with_references(filled(question=column(row, "question")), texts(answer))


def _natural_questions(row: Row) -> Row | None:
    question = filled(question=as_question(column(row, "question")))
    return with_references(question, texts(column(row, "answer", "answers")))


def _arc(row: Row) -> Row | None:
    """Only questions with four options; files name them A to D, 1 to 4 or 0 to 3."""
    choices, key = column(row, "choices"), column(row, "answerKey", "label")
    names = []
    if isinstance(choices, Mapping) or not isinstance(choices[0], str):
        listed = records(choices)
        choices = [choice["text"] for choice in listed]
        names = [str(choice["label"]) for choice in listed]
    if len(choices) != len(_LETTERS):
        return None
    index = names.index(str(key)) if str(key) in names else label(key, _LETTERS)
    return with_options(filled(question=column(row, "question")), choices, index)


_OFFICIAL = {"train": "train", "validation": "validation", "test": "test"}
_READING, _OPEN = "reading_comprehension", "open_domain_qa"

DATASETS: dict[str, MuffinDataset] = {
    "squad_v1": MuffinDataset(
        "squad/v1.1:3.0.0", _READING, "extractive_qa", _squad_v1, licence="CC BY-SA 4.0"
    ),
    "squad_v2": MuffinDataset(
        "squad/v2.0:3.0.0", _READING, "extractive_qa", _squad_v2, licence="CC BY-SA 4.0"
    ),
    "drop": MuffinDataset(
        "drop:2.0.0",
        _READING,
        "discrete_reasoning_qa",
        _drop,
        parts={**RESERVED, "test": "dev"},  # TFDS names the official validation so.
        licence="CC BY-SA 4.0",
    ),
    "multirc": MuffinDataset(
        "super_glue/multirc:1.0.2",
        _READING,
        "answer_verification",
        _multirc,
        has_options=True,
        licence="research only",
    ),
    "openbookqa": MuffinDataset(
        "openbookqa:0.1.0",
        _READING,
        "multiple_choice_qa",
        _openbookqa,
        has_options=True,
        parts=_OFFICIAL,
        licence="Apache-2.0",
    ),
    "bool_q": MuffinDataset(
        "bool_q:1.0.0",
        _READING,
        "yes_no_qa",
        _bool_q,
        has_options=True,
        licence="CC BY-SA 3.0",
    ),
    "trivia_qa": MuffinDataset(
        "trivia_qa/rc:1.1.0", _OPEN, "closed_book_qa", _trivia_qa
    ),
    "natural_questions": MuffinDataset(
        "natural_questions_open:1.0.0",
        _OPEN,
        "closed_book_qa",
        _natural_questions,
        licence="CC BY-SA 3.0",
    ),
    "arc_challenge": MuffinDataset(
        "ai2_arc/ARC-Challenge:1.0.0",
        _OPEN,
        "multiple_choice_qa",
        _arc,
        has_options=True,
        licence="CC BY-SA 4.0",
        templates="arc",
    ),
    "arc_easy": MuffinDataset(
        "ai2_arc/ARC-Easy:1.0.0",
        _OPEN,
        "multiple_choice_qa",
        _arc,
        has_options=True,
        licence="CC BY-SA 4.0",
        templates="arc",
    ),
}

_TEMPLATES = Path(__file__).parent / "templates"
GROUPS = {
    group: TemplateFile(_TEMPLATES / f"muffin_{dataset.cluster}.toml")[group]
    for name, dataset in DATASETS.items()
    for group in [dataset.templates or name]
}
