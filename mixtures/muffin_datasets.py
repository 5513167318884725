"""Muffin's 71 datasets and their templates, joined; TensorFlow is not needed for it."""

from flanjax.data.templates import TemplateGroup
from mixtures import (
    muffin_more,
    muffin_questions,
    muffin_sentences,
    muffin_structure,
    muffin_summarization,
)
from mixtures.muffin_dataset import MuffinDataset

_MODULES = (
    muffin_summarization,
    muffin_structure,
    muffin_questions,
    muffin_sentences,
    muffin_more,
)

DATASETS: dict[str, MuffinDataset] = {
    name: data for module in _MODULES for name, data in module.DATASETS.items()
}
GROUPS: dict[str, TemplateGroup] = {
    name: group for module in _MODULES for name, group in module.GROUPS.items()
}
