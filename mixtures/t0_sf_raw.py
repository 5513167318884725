"""Original datasets of T0-SF as rows that the own-worded prompts can use.

    RAW["sciq"].fields({"question": ..., "correct_answer": ..., ...})

Rows are those of the Hugging Face or TFDS dataset; JSONL exports of either fit. Each
`fields` function gives texts, and where there are choices

  options   list of the choices' texts, `label` the index of the right one;
  verdict   index of the right one of a prompt's fixed answers ("No|Yes").

A text that a row lacks is "": prompts that need it skip the row.
"""

import string
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flanjax.data.readers import Row

LETTERS = tuple(string.ascii_uppercase)


@dataclass(frozen=True)
class RawDataset:
    """An original dataset.

    Attributes:
      tfds: its name in TensorFlow Datasets.
      licence: as publicly known.
      columns: names of the fields of its rows that are read.
      names: names of the texts that `fields` makes of them.
      fields: original row -> texts for the prompts, or None to skip it.
      templates: beginning of the template groups of its prompts, where several
        configurations of a dataset share them.
    """

    tfds: str
    licence: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    fields: Callable[[Row], Row | None]
    templates: str = ""


def column(value: Any, key: str) -> list[Any]:
    """Returns one column of nested records, stored as dict of lists or list of dicts.

    Args:
      value: {"text": [...], ...} as TFDS and Hugging Face give it, or
        [{"text": ...}, ...] as in the original files.
      key: name of the column.
    """
    if isinstance(value, Mapping):
        return list(value[key])
    return [each[key] for each in value]


def choice(options: list[str], label: int) -> Row:
    """Returns the fields of a row with choices."""
    options = [str(option).strip() for option in options]
    return {"options": options, "label": label, "answer": options[label]}


def candidate(options: list[str], label: int, seed: str) -> Row:
    """Returns one of the choices to be judged, right in about half of the rows.

    Which one depends on `seed`, a text of the row, only.

    Returns:
      `candidate`, a choice, and `verdict`, 1 where it is the right one.
    """
    number = zlib.crc32(seed.encode())
    wrong = [each for index, each in enumerate(options) if index != label]
    if number % 2 or not wrong:
        return {"candidate": options[label].strip(), "verdict": 1}
    return {"candidate": wrong[(number // 2) % len(wrong)].strip(), "verdict": 0}


def in_order_of(options: list[str], seed: str) -> list[str]:
    """Returns options in an order that depends on them and on a text of the row."""
    return sorted(
        options, key=lambda each: (zlib.crc32(f"{seed}\0{each}".encode()), each)
    )


def bullets(lines: list[str]) -> str:
    """Returns lines as a list with dashes."""
    return "\n".join(f"- {line}" for line in lines)


def references(answers: list[str]) -> Row:
    """Returns the fields of an open question, or "" where it has no answer."""
    distinct = list(dict.fromkeys(str(each).strip() for each in answers))
    distinct = [each for each in distinct if each]
    return {"answer": distinct[0] if distinct else "", "references": distinct}
