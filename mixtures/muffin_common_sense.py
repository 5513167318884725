"""Muffin: everyday reasoning and coreference, from rows to template fields.

    _copa({"premise": "It rained.", "question": "effect", "choice1": "We sang.",
           "choice2": "We got wet.", "label": 1})
    # {"premise": "It rained.", "question": "effect", "answer": "We got wet.",
    #  "options": ["We sang.", "We got wet."]}

Every function takes a row as TFDS gives it or as the datasets' own JSON files write it.
Names, splits and label words follow
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py
"""

import re

from flanjax.data.readers import Row
from mixtures.muffin_dataset import RESERVED, MuffinDataset
from mixtures.muffin_labels import known_label

_NO_YES = ("no", "yes")
_TITLE = re.compile(r"([.!?]?)\s*\[title\]")
_MARK = re.compile(r"\s*\[(?:header|title|step|substeps)\]\s*")


def _copa(row: Row) -> Row | None:
    options = [row["choice1"], row["choice2"]]
    index = known_label(row["label"], ("choice1", "choice2"))
    if index is None:
        return None
    return {
        "premise": row["premise"],
        "question": row["question"],
        "options": options,
        "answer": options[index],
    }


def _hellaswag(row: Row) -> Row | None:
    """Without the marks "[header]", "[title]", "[step]" of its half from WikiHow."""
    options = [_without_marks(text) for text in row["endings"]]
    index = known_label(row["label"], [str(n) for n in range(len(options))])
    if index is None:
        return None
    context = row["context"] if "context" in row else row["ctx"]
    return {
        "context": _without_marks(context),
        "options": options,
        "answer": options[index],
    }


def _without_marks(text: str) -> str:
    text = _TITLE.sub(lambda found: found[1] or ".", text)
    return _MARK.sub(" ", text).strip()


def _story_cloze(row: Row) -> Row | None:
    """Endings are counted from 1."""
    if "context" in row:
        context, options, label = row["context"], list(row["endings"]), row["label"]
    else:  # The columns of the authors' own file.
        context = " ".join(row[f"InputSentence{n}"].strip() for n in range(1, 5))
        options = [row[f"RandomFifthSentenceQuiz{n}"] for n in (1, 2)]
        label = row.get("AnswerRightEnding")
    index = known_label(label, ("1", "2"))
    if index is None:
        return None
    return {"context": context, "options": options, "answer": options[index]}


def _piqa(row: Row) -> Row | None:
    options = [row["sol1"].strip(), row["sol2"].strip()]
    index = known_label(row["label"], ("sol1", "sol2"))
    if index is None:
        return None
    return {"goal": row["goal"].strip(), "options": options, "answer": options[index]}


def _definite_pronoun_resolution(row: Row) -> Row | None:
    options = [text.strip() for text in row["candidates"]]
    index = known_label(row["label"], options)
    if index is None:
        return None
    return {
        "sentence": row["sentence"].strip(),
        "pronoun": row["pronoun"].strip(),
        "options": options,
        "answer": options[index],
    }


def _winogrande(row: Row) -> Row | None:
    """The text before the gap; each option is a filler with the rest of the sentence.

    TFDS has the class under `label`, from 0; the authors' files have the number of the
    option under `answer`, from 1.
    """
    if "answer" in row:
        index = known_label(row["answer"], ("1", "2"))
    else:
        index = known_label(row["label"], ("option1", "option2"))
    before, gap, after = row["sentence"].partition("_")
    if index is None or not gap or not before.strip():
        return None
    options = [f"{row[name].strip()}{after}" for name in ("option1", "option2")]
    return {"context": before.strip(), "options": options, "answer": options[index]}


def _wsc(row: Row) -> Row | None:
    index = known_label(row["label"], ("False", "True"), {"no": 0, "yes": 1})
    if index is None:
        return None
    return {
        "context": row["text"],
        "text1": row["span1_text"],
        "text2": row["span2_text"],
        "options": list(_NO_YES),
        "answer": _NO_YES[index],
    }


# Small sets reserve fewer rows.
_FEWER = {"train": "train[:-50]", "validation": "train[-50:]", "test": "validation"}
_OWN_TEST = {**RESERVED, "test": "test"}

DATASETS: dict[str, MuffinDataset] = {
    "copa": MuffinDataset(
        "super_glue/copa:1.0.2",
        "common_sense",
        "common_sense",
        _copa,
        has_options=True,
        parts=_FEWER,
        licence="BSD-2-Clause",
    ),
    "hellaswag": MuffinDataset(
        "hellaswag:1.1.0",
        "common_sense",
        "common_sense",
        _hellaswag,
        has_options=True,
        licence="MIT",
    ),
    # Only its validation and test stories have two endings to choose from.
    "story_cloze": MuffinDataset(
        "story_cloze/2016:1.0.0",
        "common_sense",
        "common_sense",
        _story_cloze,
        has_options=True,
        parts={
            "train": "validation[:-200]",
            "validation": "validation[-200:]",
            "test": "test",
        },
        licence="research only",
    ),
    "piqa": MuffinDataset(
        "piqa:1.0.0",
        "common_sense",
        "common_sense",
        _piqa,
        has_options=True,
        parts={
            "train": "train[:-100]",
            "validation": "train[-100:]",
            "test": "validation",
        },
        licence="AFL-3.0",
    ),
    "definite_pronoun_resolution": MuffinDataset(
        "definite_pronoun_resolution:1.1.0",
        "coreference",
        "coreference",
        _definite_pronoun_resolution,
        has_options=True,
        parts=_OWN_TEST,
    ),
    "winogrande": MuffinDataset(
        "winogrande:1.1.0",
        "coreference",
        "coreference",
        _winogrande,
        has_options=True,
        parts={
            "train": "train_xl[:-200]",
            "validation": "train_xl[-200:]",
            "test": "validation",
        },
        licence="CC BY 4.0",
    ),
    "wsc": MuffinDataset(
        "super_glue/wsc.fixed:1.0.2",
        "coreference",
        "coreference",
        _wsc,
        has_options=True,
        parts=_FEWER,
        licence="CC BY 4.0",
    ),
}
