"""Muffin: entailment between texts.

    DATASETS["rte"].fields({"premise": "A cat sleeps.", "hypothesis": "A pet rests.",
                            "label": 0})
    # {"premise": ..., "hypothesis": ..., "options": ["yes", "no"], "answer": "yes"}

The words of the verdicts and their order differ between the sets, as in
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py

There mnli_matched and mnli_mismatched train on the same rows, so that MNLI counts
twice. Here each takes half of them (`mixtures.mnli_halves`).
"""

import functools
from collections.abc import Mapping, Sequence

from flanjax.data.readers import Row
from mixtures.mnli_halves import first_half, second_half
from mixtures.muffin_dataset import RESERVED, MuffinDataset
from mixtures.muffin_labels import known_label

# Classes in the order of their indices, with the word that each becomes.
_RTE = {"entailment": "yes", "not_entailment": "no"}
_WNLI = {"not_entailment": "no", "entailment": "yes"}
_CB = {"entailment": "Yes", "contradiction": "No", "neutral": "It's impossible to say"}
_ANLI = {
    "entailment": "Yes",
    "neutral": "It's impossible to say",
    "contradiction": "No",
}
_NLI = {
    "entailment": "yes",
    "neutral": "it is not possible to tell",
    "contradiction": "no",
}
_LETTERS = {"e": 0, "n": 1, "c": 2}


def _verdict(
    row: Row,
    texts: Sequence[str],
    words: Mapping[str, str],
    aliases: Mapping[str, int] | None = None,
) -> Row | None:
    """Takes two texts over and turns the class into a word.

    Args:
      row: the original row, with its class under `label`.
      texts: the columns of the two texts, also the names of the fields.
      words: class -> word, in the order of the classes' indices.
      aliases: other names of the classes -> index.
    """
    index = known_label(row["label"], list(words), aliases)
    if index is None:
        return None
    options = list(words.values())
    kept: Row = {name: row[name].strip() for name in texts}
    return {**kept, "options": options, "answer": options[index]}


_PREMISE = ("premise", "hypothesis")
_OWN_SPLITS = {"train": "train", "validation": "validation", "test": "test"}


def _entailment(
    tfds: str,
    words: Mapping[str, str],
    texts: tuple[str, str] = _PREMISE,
    aliases: Mapping[str, int] | None = None,
    **more,
) -> MuffinDataset:
    fields = functools.partial(_verdict, texts=texts, words=words, aliases=aliases)
    return MuffinDataset(
        tfds, "entailment", "entailment", fields, has_options=True, **more
    )


def _anli(number: int) -> MuffinDataset:
    return _entailment(
        f"anli/r{number}:0.1.0",
        _ANLI,
        ("context", "hypothesis"),
        _LETTERS,
        parts=_OWN_SPLITS,
        templates="anli",
        licence="CC BY-NC 4.0",
    )


def _reserving(rows: int) -> dict[str, str]:
    """Small sets reserve fewer rows than 200 for validation."""
    return {
        "train": f"train[:-{rows}]",
        "validation": f"train[-{rows}:]",
        "test": "validation",
    }


_mnli = functools.partial(
    _entailment,
    "glue/mnli:2.0.0",
    _NLI,
    templates="mnli",
    licence="OANC, CC BY-SA 3.0, CC BY 3.0",
)

DATASETS: dict[str, MuffinDataset] = {
    "anli_r1": _anli(1),
    "anli_r2": _anli(2),
    "anli_r3": _anli(3),
    "cb": _entailment("super_glue/cb:1.0.2", _CB, parts=_reserving(50)),
    "rte": _entailment("super_glue/rte:1.0.2", _RTE),
    "mnli_matched": _mnli(
        parts={**RESERVED, "test": "validation_matched"}, wrap=first_half
    ),
    "mnli_mismatched": _mnli(
        parts={**RESERVED, "test": "validation_mismatched"}, wrap=second_half
    ),
    "qnli": _entailment(
        "glue/qnli:2.0.0", _RTE, ("sentence", "question"), licence="CC BY-SA 4.0"
    ),
    "wnli": _entailment(
        "glue/wnli:2.0.0",
        _WNLI,
        ("sentence1", "sentence2"),
        parts=_reserving(30),
        licence="CC BY 4.0",
    ),
    "snli": _entailment("snli:1.1.0", _NLI, parts=_OWN_SPLITS, licence="CC BY-SA 4.0"),
}
