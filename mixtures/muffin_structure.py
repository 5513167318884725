"""Muffin: four datasets that put structured data or word lists into sentences.

Rows are those of TFDS's GEM datasets or of local files with the same columns.
https://gem-benchmark.com (Gehrmann et al. 2021, arXiv 2102.01672)
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flanjax.data.readers import Row
from flanjax.data.templates import TemplateFile
from mixtures.muffin_columns import column, filled, texts
from mixtures.muffin_dataset import MuffinDataset

_SLOT = re.compile(r"\s*([^,\[\]]+?)\s*\[([^\]]*)\]")


def _triples(value: Any) -> list[str]:
    """Each triple as one text; some files keep subject, relation and object apart."""
    parts = [value] if isinstance(value, str) else list(value)
    return [each if isinstance(each, str) else " | ".join(each) for each in parts]


def _web_nlg(row: Row) -> Row | None:
    triples = [t.replace("_", " ").strip() for t in _triples(column(row, "input"))]
    return filled(input_string="; ".join(triples), target=column(row, "target"))


def _common_gen(row: Row) -> Row | None:
    value = column(row, "concepts")
    concepts = re.split(r"[,#\n]", value) if isinstance(value, str) else texts(value)
    concepts = [stripped for each in concepts if (stripped := each.strip())]
    return filled(
        concepts=", ".join(concepts),
        concepts_newline="\n".join(concepts),
        target=column(row, "target"),
    )


def _e2e_nlg(row: Row) -> Row | None:
    """`name[Zizzi], area[riverside]` is written `name = Zizzi, area = riverside`."""
    slots = _SLOT.findall(column(row, "meaning_representation", "mr"))
    return filled(
        meaning_representation=", ".join(f"{name} = {value}" for name, value in slots),
        target=column(row, "target", "ref"),
    )


def _dart(row: Row) -> Row | None:
    triples = [" ".join(each.split()) for each in _triples(column(row, "tripleset"))]
    return filled(
        tripleset="; ".join(triples),
        tripleset_newline="\n".join(triples),
        target=column(row, "target"),
    )


def _gem(
    name: str, fields: Callable[[Row], Row | None], category: str, licence: str
) -> MuffinDataset:
    tfds = f"gem/{name}:1.1.0"
    return MuffinDataset(
        tfds,
        "structure_to_text",
        category,
        fields,
        licence=licence,
        answer_field="target",
    )


DATASETS: dict[str, MuffinDataset] = {
    "web_nlg_en": _gem("web_nlg_en", _web_nlg, "data_to_text", "CC BY-NC-SA 4.0"),
    "common_gen": _gem("common_gen", _common_gen, "words_to_sentence", "MIT"),
    "e2e_nlg": _gem("e2e_nlg", _e2e_nlg, "data_to_text", "CC BY-SA 4.0"),
    "dart": _gem("dart", _dart, "data_to_text", "MIT"),
}

_FILE = TemplateFile(
    Path(__file__).parent / "templates" / "muffin_structure_to_text.toml"
)
GROUPS = {name: _FILE[name] for name in DATASETS}
