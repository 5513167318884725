"""Muffin: eight translation pairs, which share their templates.

    _pair({"en": "Thank you.", "fr": "Merci."}, "en", "fr")
    # {"sent1": "Thank you.", "lang1": "English", "sent2": "Merci.", "lang2": "French"}

`lang1` is the language that the task's name gives first. Most templates translate to
`lang2`, some back, so that both directions are learned. Names and splits follow
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py
"""

import functools
from collections.abc import Mapping

from flanjax.data.readers import Row
from mixtures.muffin_dataset import MuffinDataset

_LANGUAGES = {
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "ro": "Romanian",
    "ru": "Russian",
    "tr": "Turkish",
}
_OWN_SPLITS = {"train": "train", "validation": "validation", "test": "test"}


def _pair(row: Row, first: str, second: str) -> Row | None:
    """TFDS has the languages as columns; other files nest them in `translation`."""
    texts = row.get("translation", row)
    sent1, sent2 = texts[first].strip(), texts[second].strip()
    if not sent1 or not sent2:
        return None
    return {
        "sent1": sent1,
        "lang1": _LANGUAGES[first],
        "sent2": sent2,
        "lang2": _LANGUAGES[second],
    }


def _translation(
    tfds: str,
    first: str,
    second: str,
    parts: Mapping[str, str] = _OWN_SPLITS,
    licence: str = "unknown",
) -> MuffinDataset:
    return MuffinDataset(
        tfds,
        "translation",
        "translation",
        functools.partial(_pair, first=first, second=second),
        parts=parts,
        languages=(first, second),
        licence=licence,
        templates="translation",
        answer_field="sent2",
    )


DATASETS: dict[str, MuffinDataset] = {
    "para_crawl_enes": _translation(
        "para_crawl/enes:1.2.0",
        "en",
        "es",
        {"train": "train[:30000]", "validation": "train[-200:]"},
        "CC0-1.0",
    ),
    "wmt14_enfr": _translation("wmt14_translate/fr-en:1.0.0", "en", "fr"),
    "wmt16_translate_deen": _translation("wmt16_translate/de-en:1.0.0", "de", "en"),
    "wmt16_translate_tren": _translation("wmt16_translate/tr-en:1.0.0", "tr", "en"),
    "wmt16_translate_csen": _translation("wmt16_translate/cs-en:1.0.0", "cs", "en"),
    "wmt16_translate_fien": _translation("wmt16_translate/fi-en:1.0.0", "fi", "en"),
    "wmt16_translate_roen": _translation("wmt16_translate/ro-en:1.0.0", "ro", "en"),
    "wmt16_translate_ruen": _translation("wmt16_translate/ru-en:1.0.0", "ru", "en"),
}
