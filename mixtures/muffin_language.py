"""Muffin: word senses, acceptable sentences, kinds of questions, the next word.

    _cola({"sentence": "Them sleeps.", "label": 0})
    # {"sentence": "Them sleeps.", "options": ["unacceptable", "acceptable"],
    #  "answer": "unacceptable"}

Names, splits and label words follow
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py
"""

from flanjax.data.readers import Row
from mixtures.muffin_dataset import RESERVED, MuffinDataset
from mixtures.muffin_labels import known_label

_WIC = ("different meanings", "the same meaning")
_COLA = ("unacceptable", "acceptable")
# TREC's classes in the order of TFDS, with the word that each becomes.
_TREC = {
    "DESC": "description",
    "ENTY": "entity",
    "ABBR": "abbreviation",
    "HUM": "human",
    "NUM": "numeric",
    "LOC": "location",
}
# Column -> its classes in the order of their indices. Hugging Face numbers the classes
# of `coarse_label` otherwise than TFDS those of `label-coarse`.
_TREC_COLUMNS = {
    "label-coarse": tuple(_TREC),
    "coarse_label": ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
}


def _wic(row: Row) -> Row | None:
    index = known_label(row["label"], ("False", "True"))
    if index is None:
        return None
    return {
        "sentence1": row["sentence1"],
        "sentence2": row["sentence2"],
        "word": row["word"],
        "options": list(_WIC),
        "answer": _WIC[index],
    }


def _cola(row: Row) -> Row | None:
    index = known_label(row["label"], _COLA)
    if index is None:
        return None
    options = list(_COLA)
    return {"sentence": row["sentence"], "options": options, "answer": _COLA[index]}


def _trec(row: Row) -> Row | None:
    column = next((name for name in _TREC_COLUMNS if name in row), "label-coarse")
    names = _TREC_COLUMNS[column]
    index = known_label(row[column], names)
    if index is None:
        return None
    return {
        "text": row["text"] if "text" in row else row["question"],
        "options": list(_TREC.values()),
        "answer": _TREC[names[index]],
    }


def _lambada(row: Row) -> Row | None:
    """The last word, split off at the last space, is to be predicted."""
    passage = row["passage"] if "passage" in row else row["text"]
    sentence, _, answer = passage.strip().rpartition(" ")
    return {"sentence": sentence, "answer": answer} if sentence else None


_OWN_TEST = {**RESERVED, "test": "test"}

DATASETS: dict[str, MuffinDataset] = {
    "wic": MuffinDataset(
        "super_glue/wic:1.0.2",
        "word_disambiguation",
        "word_disambiguation",
        _wic,
        has_options=True,
        licence="CC BY-NC 4.0",
    ),
    "cola": MuffinDataset(
        "glue/cola:2.0.0",
        "linguistic_acceptability",
        "linguistic_acceptability",
        _cola,
        has_options=True,
    ),
    "trec": MuffinDataset(
        "trec:1.0.0",
        "question_classification",
        "question_classification",
        _trec,
        has_options=True,
        parts=_OWN_TEST,
    ),
    # All of what TFDS calls "train", which is the authors' development set.
    "lambada": MuffinDataset(
        "lambada:1.0.0",
        "lambada",
        "word_prediction",
        _lambada,
        parts={"train": "train", "validation": "test[:200]", "test": "test[200:]"},
        licence="CC BY 4.0",
    ),
}
