"""Muffin, second part: common sense, translation, entailment, language, texts.

    DATASETS["rte"].tfds               # "super_glue/rte:1.0.2"
    GROUPS["mnli"].load()              # the templates that both MNLI tasks use

`mixtures.muffin` turns these into SeqIO tasks.
"""

from pathlib import Path

from flanjax.data.templates import TemplateFile, TemplateGroup
from mixtures import (
    muffin_common_sense,
    muffin_entailment,
    muffin_language,
    muffin_text_questions,
    muffin_translation,
)
from mixtures.muffin_dataset import MuffinDataset

DATASETS: dict[str, MuffinDataset] = {
    **muffin_common_sense.DATASETS,
    **muffin_translation.DATASETS,
    **muffin_entailment.DATASETS,
    **muffin_language.DATASETS,
    **muffin_text_questions.DATASETS,
}

_TEMPLATES = Path(__file__).parent / "templates"
# Template file (after "muffin_") -> its groups.
_FILES = {
    "common_sense": ("copa", "hellaswag", "story_cloze", "piqa"),
    "translation": ("translation",),
    "coreference": ("definite_pronoun_resolution", "winogrande", "wsc"),
    "entailment": ("anli", "cb", "rte", "mnli", "qnli", "wnli", "snli"),
    "language": ("wic", "cola", "trec"),
    "text_questions": ("quac", "coqa", "record", "cosmos_qa", "lambada"),
    "science_and_math": ("unified_qa_science_inst", "math_dataset"),
}
GROUPS: dict[str, TemplateGroup] = {
    group: TemplateFile(_TEMPLATES / f"muffin_{file}.toml")[group]
    for file, groups in _FILES.items()
    for group in groups
}
