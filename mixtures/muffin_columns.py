r"""Columns of the Muffin datasets, in the shapes that TFDS and other files give them.

    filled(question="Where? ", answer="here")   # {"question": "Where?", ...}
    filled(question="Where?", answer=" ")       # None: the row is left out
    records({"text": ["a", "b"], "start": [1, 2]})   # a list of two dicts

TFDS gives a sequence of dicts as a dict of lists; other files give lists of dicts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flanjax.data.readers import Row

YES = {"yes": 1, "true": 1, "no": 0, "false": 0}

_BREAK = re.compile(r"\s*<br\s*/?>(?:\s*<br\s*/?>)*\s*")


def column(row: Row, *names: str) -> Any:
    """Returns the first of the columns that the row has; KeyError if none."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(" or ".join(names))


def filled(**fields: str) -> Row | None:
    """Returns the fields without outer space, or None when one of them is empty."""
    kept = {name: str(value).strip() for name, value in fields.items()}
    return kept if all(kept.values()) else None


def with_options(row: Row | None, options: Sequence[str], index: int) -> Row | None:
    """Adds `options` and the one at `index` as `answer` to a row that is not None."""
    options = [option.strip() for option in options]
    if row is None or not all(options):
        return None
    return {**row, "options": options, "answer": options[index]}


def with_references(row: Row | None, answers: Sequence[str]) -> Row | None:
    """Adds the first answer as `answer` and all different ones as `references`."""
    answers = list(dict.fromkeys(text for each in answers if (text := each.strip())))
    if row is None or not answers:
        return None
    return {**row, "answer": answers[0], "references": answers}


def texts(value: Any) -> list[str]:
    """Returns a list of strings; a single string is a list of one."""
    return [value] if isinstance(value, str) else [str(each) for each in value]


def records(value: Any) -> list[Row]:
    """Returns a list of dicts, also from a dict of lists."""
    if isinstance(value, Mapping):
        columns = list(value.values())
        return [dict(zip(value, each, strict=True)) for each in zip(*columns)]  # noqa: B905
    return list(value)


def as_question(text: str) -> str:
    """Returns a question that begins with a capital and ends with its mark."""
    text = " ".join(text.split()).removesuffix("?").strip()
    return f"{text[:1].upper()}{text[1:]}?" if text else ""


def broken_lines(text: str) -> str:
    r"""Returns the text with HTML line breaks as `\n`."""
    return _BREAK.sub("\n", text).strip()
