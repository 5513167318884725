"""Muffin: paraphrases, sentiment and the form of sentences, eleven datasets.

Rows are those of TFDS or of local files with the same columns. The three formatting
tasks are made of the English side of one ParaCrawl file, in slices that do not meet.
Papers: see the TFDS catalogue, https://www.tensorflow.org/datasets/catalog/overview.
"""

import html
import unicodedata
from collections.abc import Callable
from pathlib import Path

from flanjax.data.readers import Row
from flanjax.data.templates import TemplateFile
from mixtures.muffin_columns import (
    YES,
    broken_lines,
    column,
    filled,
    with_options,
)
from mixtures.muffin_dataset import RESERVED, MuffinDataset, label

_NO_YES = ("no", "yes")
_SENTIMENTS = ("negative", "positive")
_LIKENESS = ("0", "1", "2", "3", "4", "5")
_SAME = {
    **YES,
    "equivalent": 1,
    "not_equivalent": 0,
    "duplicate": 1,
    "not_duplicate": 0,
}
_GOOD = {"bad": 0, "good": 1}


def _pair(row: Row) -> Row | None:
    kept = filled(
        sentence1=column(row, "sentence1"), sentence2=column(row, "sentence2")
    )
    return with_options(kept, _NO_YES, label(column(row, "label"), _NO_YES, _SAME))


def _glue_qqp(row: Row) -> Row | None:
    kept = filled(
        question1=column(row, "question1"), question2=column(row, "question2")
    )
    return with_options(kept, _NO_YES, label(column(row, "label"), _NO_YES, _SAME))


def _stsb(row: Row) -> Row | None:
    """How alike two sentences are, rounded to a whole number (2.5 to the even one)."""
    kept = filled(
        sentence1=column(row, "sentence1"), sentence2=column(row, "sentence2")
    )
    return with_options(kept, _LIKENESS, round(float(column(row, "label"))))


def _opinion(row: Row) -> Row | None:
    """Reviews; Yelp's file writes line ends and quotes with a backslash."""
    text = column(row, "text").replace("\\n", "\n").replace('\\"', '"')
    index = label(column(row, "label"), _SENTIMENTS, _GOOD)
    return with_options(filled(text=broken_lines(text)), _SENTIMENTS, index)


def _sentiment140(row: Row) -> Row | None:
    """Polarity 0 or 4; the test set has neutral tweets (2), which are left out."""
    if row.get("polarity") is not None:
        polarity = int(row["polarity"])
        if polarity == 2:
            return None
        index = label(polarity // 4, _SENTIMENTS)
    else:
        index = label(column(row, "label"), _SENTIMENTS, _GOOD)
    text = " ".join(html.unescape(column(row, "text")).split())
    return with_options(filled(text=text), _SENTIMENTS, index)


def _sst2(row: Row) -> Row | None:
    index = label(column(row, "label"), _SENTIMENTS, _GOOD)
    return with_options(
        filled(sentence=column(row, "sentence", "text")), _SENTIMENTS, index
    )


def _english(row: Row) -> str:
    pair = row.get("translation") or row
    return " ".join(column(pair, "en", "text").split())


def _lower_case(text: str) -> str:
    return text.lower()


def _without_punctuation(text: str) -> str:
    marks = (c for c in text if not unicodedata.category(c).startswith("P"))
    return " ".join("".join(marks).split())


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _spoilt(
    field: str, spoil: Callable[[str], str], keep_equal: bool = False
) -> Callable[[Row], Row | None]:
    """A sentence, and what is left when something is taken out of it."""

    def fields(row: Row) -> Row | None:
        answer = _english(row)
        spoilt = spoil(answer)
        if spoilt == answer and not keep_equal:
            return None
        return filled(**{field: spoilt, "answer": answer})

    return fields


_SENTIMENT_PARTS = {**RESERVED, "test": "test"}


def _sentiment(
    tfds: str,
    fields: Callable[[Row], Row | None],
    licence: str = "unknown",
    parts: dict[str, str] = _SENTIMENT_PARTS,
) -> MuffinDataset:
    return MuffinDataset(
        tfds,
        "sentiment",
        "sentiment_classification",
        fields,
        has_options=True,
        parts=parts,
        licence=licence,
    )


def _paraphrase(
    tfds: str,
    fields: Callable[[Row], Row | None],
    parts: dict[str, str],
    licence: str = "unknown",
    category: str = "paraphrase_identification",
) -> MuffinDataset:
    return MuffinDataset(
        tfds,
        "paraphrase",
        category,
        fields,
        has_options=True,
        parts=parts,
        licence=licence,
    )


def _formatting(
    number: int, category: str, fields: Callable[[Row], Row | None]
) -> MuffinDataset:
    """Slice `number` of ParaCrawl: 30,000 rows to train on and 200 to validate."""
    first = number * 30_200
    parts = {
        "train": f"train[{first}:{first + 30_000}]",
        "validation": f"train[{first + 30_000}:{first + 30_200}]",
    }
    return MuffinDataset(
        "para_crawl/enda:1.2.0",
        "text_formatting",
        category,
        fields,
        parts=parts,
        licence="CC0-1.0",
        folder="para_crawl_enda",
    )


_RESERVED = dict(RESERVED)
_OFFICIAL = {"train": "train", "validation": "validation", "test": "test"}
_STSB_PARTS = {
    "train": "train[:-100]",
    "validation": "train[-100:]",
    "test": "validation",
}

DATASETS: dict[str, MuffinDataset] = {
    "glue_mrpc": _paraphrase("glue/mrpc:2.0.0", _pair, _RESERVED, "research only"),
    "glue_qqp": _paraphrase("glue/qqp:2.0.0", _glue_qqp, _RESERVED, "research only"),
    "paws_wiki": _paraphrase("paws_wiki:1.1.0", _pair, _OFFICIAL, "free for any use"),
    "stsb": _paraphrase(
        "glue/stsb:2.0.0", _stsb, _STSB_PARTS, category="semantic_similarity"
    ),
    "imdb_reviews": _sentiment("imdb_reviews/plain_text:1.0.0", _opinion),
    "sentiment140": _sentiment("sentiment140:1.0.0", _sentiment140),
    "yelp_polarity_reviews": _sentiment(
        "yelp_polarity_reviews:0.2.0", _opinion, "research only"
    ),
    "sst2": _sentiment("glue/sst2:2.0.0", _sst2, parts=_RESERVED),
    "true_case": _formatting(0, "true_casing", _spoilt("lower", _lower_case)),
    "fix_punct": _formatting(
        1, "punctuation_restoration", _spoilt("no_punct", _without_punctuation)
    ),
    "word_segment": _formatting(
        2,
        "word_segmentation",
        _spoilt("no_space", _without_spaces, keep_equal=True),
    ),
}

_TEMPLATES = Path(__file__).parent / "templates"
GROUPS = {
    name: TemplateFile(_TEMPLATES / f"muffin_{dataset.cluster}.toml")[name]
    for name, dataset in DATASETS.items()
}
