"""What the Muffin modules say about a dataset, and how they read its label columns.

    "rte": MuffinDataset("super_glue/rte:1.0.2", "entailment", "entailment", _rte,
                         has_options=True)

`mixtures.muffin` turns each of these into SeqIO tasks. The facts (TFDS names, splits,
label words) follow the public code:
https://github.com/google-research/FLAN/blob/main/flan/v2/task_configs_v1.py
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flanjax.data.readers import Row
from flanjax.data.sources import Source

# FLAN's rule for a dataset whose official test labels are hidden or that has no
# validation set of its own: the last 200 training rows are for validation.
RESERVED: Mapping[str, str] = MappingProxyType(
    {"train": "train[:-200]", "validation": "train[-200:]", "test": "validation"}
)


@dataclass(frozen=True)
class MuffinDataset:
    """One dataset of the Muffin collection; the task's name is its key.

    Attributes:
      tfds: name, configuration and version in TensorFlow Datasets.
      cluster: the task cluster of the public code ("entailment").
      category: what kind of task it is, for `TaskInfo`.
      fields: original row, from TFDS or a local file -> template fields; None skips.
      has_options: whether rows have `options` that templates show.
      parts: split -> slice of a split of the dataset.
      languages: ISO 639-1 codes of the texts.
      licence: of the dataset, as its authors state it; "unknown" where they do not.
      templates: template group, if another than the task's name.
      folder: below `muffin/` of the data root, if another than the task's name.
      answer_field: the field that `options` and `references` are alternatives of.
      option_fields: fields that give the options away; see `add_instruction_task`.
      many_options: "error", or "bullets" where rows may have more than 26 options.
      wrap: what the source of the rows is handed to before it is registered.
    """

    tfds: str
    cluster: str
    category: str
    fields: Callable[[Row], Row | None]
    has_options: bool = False
    # A factory: Python 3.11 takes this mapping for a mutable default.
    parts: Mapping[str, str] = field(default_factory=lambda: RESERVED)
    languages: tuple[str, ...] = ("en",)
    licence: str = "unknown"
    templates: str | None = None
    folder: str | None = None
    answer_field: str = "answer"
    option_fields: tuple[str, ...] = ()
    many_options: str = "error"
    wrap: Callable[[Source], Source] | None = None


def label(
    value: Any, names: Sequence[str], aliases: Mapping[str, int] | None = None
) -> int:
    """Reads a class label, however the file writes it.

    Args:
      value: index (number or digits), a truth value, or a name.
      names: of the classes, in the order of their indices. A name wins over an index:
        with names "0" ... "5" the text "2" is the class of that name.
      aliases: other names -> index, in lower case.

    Returns:
      Index of the class.

    Raises:
      ValueError: no such class.
    """
    text = str(value).strip().lower()
    known = {name.lower(): index for index, name in enumerate(names)}
    known |= dict(aliases or {})
    if text in known:
        return known[text]
    number = int(value) if isinstance(value, bool | int) else None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(value, str) and text.isascii() and text.isdigit():
        number = int(text)
    if number is None or not 0 <= number < len(names):
        listed = ", ".join(names)
        raise ValueError(f"{value!r} is no label of: {listed} (0 to {len(names) - 1})")
    return number
