"""Muffin: eleven datasets of summaries, headlines and subject lines.

Rows are those of TFDS or of local files with the same columns. Papers and terms: see
the TFDS catalogue, https://www.tensorflow.org/datasets/catalog/overview.
"""

import html
import re
from collections.abc import Callable
from pathlib import Path

from flanjax.data.readers import Row
from flanjax.data.templates import TemplateFile
from mixtures.muffin_columns import column, filled, records, with_options
from mixtures.muffin_dataset import MuffinDataset, label

# Datasets that have a validation set with labels, and train on all of `train`.
OFFICIAL = {"train": "train", "validation": "validation", "test": "test"}
# The opinion abstracts have one split; the public code's slices.
_LAST_600 = {
    "train": "train[:-600]",
    "validation": "train[-600:-400]",
    "test": "train[-400:]",
}
_NEWS_TOPICS = ("World", "Sports", "Business", "Science/Tech")
# A film has up to a hundred reviews; more than this many do not fit an input.
_MOST_REVIEWS = 10
_TAG = re.compile(r"</?[A-Za-z][^>]*>")
_ENTITY = re.compile(r" (#\d+|quot|amp|lt|gt);")


def renamed(**names: str | tuple[str, ...]) -> Callable[[Row], Row | None]:
    """Returns the function that takes columns over under new names.

    A row in which one of them is empty is left out.
    """

    def fields(row: Row) -> Row | None:
        columns = {
            new: column(row, *((old,) if isinstance(old, str) else old))
            for new, old in names.items()
        }
        return filled(**columns)

    return fields


_document = renamed(text=("document", "text"), summary="summary")


def _gigaword(row: Row) -> Row | None:
    """Without the rows whose unknown words or digits (`#`) are masked."""
    kept = _document(row)
    if kept is None or any("UNK" in t or "#" in t for t in kept.values()):
        return None
    return kept


def _multi_news(row: Row) -> Row | None:
    """Articles stand in one column, parted by bars; summaries begin with a dash."""
    articles = column(row, "document", "text").split("|||||")
    text = "\n\n".join(stripped for a in articles if (stripped := a.strip()))
    return filled(text=text, summary=column(row, "summary").lstrip("–- "))


def _samsum(row: Row) -> Row | None:
    lines = column(row, "dialogue").splitlines()
    return filled(dialogue="\n".join(lines), summary=column(row, "summary"))


def _news_text(text: str) -> str:
    r"""Undoes the corpus's spoilt HTML: " #39;" for an apostrophe, links, `\\`."""
    text = html.unescape(_ENTITY.sub(r"&\1;", text))
    return " ".join(_TAG.sub("", text).replace("\\", " ").split())


def _ag_news(row: Row) -> Row | None:
    kept = filled(
        title=_news_text(column(row, "title")),
        text=_news_text(column(row, "description", "text")),
    )
    index = label(column(row, "label"), _NEWS_TOPICS, {"sci/tech": 3})
    return with_options(kept, _NEWS_TOPICS, index)


def _rotten_tomatoes(row: Row) -> Row | None:
    critics = [review["value"] for review in records(column(row, "_critics"))]
    critics = [stripped for text in critics if (stripped := _TAG.sub("", text).strip())]
    if not critics:
        return None
    numbered = enumerate(critics[:_MOST_REVIEWS], start=1)
    return filled(
        numbered_reviews="\n".join(f"{number}. {text}" for number, text in numbered),
        first_review=critics[0],
        critic_consensus=_TAG.sub("", column(row, "_critic_consensus")),
        movie=column(row, "_movie_name"),
    )


def _idebate(row: Row) -> Row | None:
    sentences = [each["value"] for each in records(column(row, "_argument_sentences"))]
    return filled(
        argument_sentences="\n".join(s.strip() for s in sentences if s.strip()),
        claim=column(row, "_claim"),
        debate_name=column(row, "_debate_name"),
    )


def _summaries(
    tfds: str,
    fields: Callable[[Row], Row | None],
    summary: str,
    licence: str = "unknown",
    parts: dict[str, str] = OFFICIAL,
) -> MuffinDataset:
    return MuffinDataset(
        tfds,
        "summarization",
        "summarization",
        fields,
        parts=parts,
        licence=licence,
        answer_field=summary,
    )


DATASETS: dict[str, MuffinDataset] = {
    "aeslc": MuffinDataset(
        "aeslc:1.0.0",
        "summarization",
        "title_generation",
        renamed(body=("email_body", "body"), subject=("subject_line", "subject")),
        parts=OFFICIAL,
        licence="CC BY-NC-SA 4.0",
        answer_field="subject",
    ),
    "cnn_dailymail": _summaries(
        "cnn_dailymail:3.4.0",
        renamed(text=("article", "text"), highlights="highlights"),
        "highlights",
        "Apache-2.0",
    ),
    "gigaword": _summaries("gigaword:1.2.0", _gigaword, "summary", "research only"),
    "multi_news": _summaries(
        "multi_news:1.0.0", _multi_news, "summary", "research only"
    ),
    "newsroom": _summaries(
        "newsroom:1.0.0",
        renamed(title="title", text="text", summary="summary"),
        "summary",
        "research only",
    ),
    "samsum": _summaries("samsum:1.0.0", _samsum, "summary", "CC BY-NC-ND 4.0"),
    "xsum": _summaries("huggingface:xsum", _document, "summary"),
    "ag_news_subset": MuffinDataset(
        "ag_news_subset:1.0.0",
        "summarization",
        "topic_classification",
        _ag_news,
        has_options=True,
        parts={"train": "train[:-200]", "validation": "train[-200:]", "test": "test"},
        licence="research only",
    ),
    "opinion_abstracts_rotten_tomatoes": _summaries(
        "opinion_abstracts/rotten_tomatoes:1.0.0",
        _rotten_tomatoes,
        "critic_consensus",
        parts=_LAST_600,
    ),
    "opinion_abstracts_idebate": _summaries(
        "opinion_abstracts/idebate:1.0.0", _idebate, "claim", parts=_LAST_600
    ),
    "wiki_lingua_english_en": _summaries(
        "gem/wiki_lingua_english_en:1.1.0",
        renamed(source="source", target="target"),
        "target",
        "CC BY-NC-SA 3.0",
    ),
}

_FILE = TemplateFile(Path(__file__).parent / "templates" / "muffin_summarization.toml")
GROUPS = {name: _FILE[name] for name in DATASETS}
