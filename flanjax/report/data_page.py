"""One self-contained HTML page of examples and packed rows.

    write_data_page("tiny.html", DataPage("tiny", "mixture", examples, rows, pieces))

The page loads nothing: its content security policy allows only its own script, by
hash. What came from data is embedded as JSON in which no tag can begin, and the script
writes it as text only.
"""

import base64
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from flanjax import __version__
from flanjax.errors import ConfigError
from flanjax.report.formats import plural
from flanjax.report.report import TEMPLATES, page_environment, style_sheet
from flanjax.report.shown import PackedRow, Shown


@dataclasses.dataclass(frozen=True)
class DataPage:
    """What is on a page.

    Attributes:
      title: name of the task or mixture, or of run and step.
      kind: "task", "mixture" or "batch"; the rows of a batch come first.
      examples: in the order shown.
      rows: packed rows of some of the examples.
      pieces: token id -> text, of every id in examples and rows.
      facts: (label, value) pairs below the title.
      notes: sentences on how it was made.
      left_out: a text for each cause why tasks are missing.
    """

    title: str
    kind: str
    examples: Sequence[Shown]
    rows: Sequence[PackedRow]
    pieces: Mapping[int, str]
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    left_out: Sequence[str] = ()


def write_data_page(path: str | os.PathLike[str], page: DataPage) -> Path:
    """Writes the page and returns its path.

    Raises:
      ConfigError: it cannot be written there.
    """
    path = Path(path)
    try:
        path.write_text(draw_data_page(page), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write the page: {error.strerror}",
            where=str(path),
            fix="name a file in a folder that exists: --html page.html",
        ) from error
    return path


def draw_data_page(page: DataPage) -> str:
    """Returns the page as HTML."""
    script = (TEMPLATES / "data_page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = ["examples"] + (["rows"] if page.rows else [])
    return (
        page_environment()
        .get_template("data_page.html.j2")
        .render(
            page=page,
            version=__version__,
            css=Markup(style_sheet("palette", "page", "data_page")),
            script=Markup(script),
            script_hash=digest,
            data=Markup(_json(_content(page))),
            count=plural(len(page.examples), "example"),
            left_out_count=plural(len(page.left_out), "cause"),
            row_count=plural(len(page.rows), "row"),
            sections=sections[::-1] if page.kind == "batch" else sections,
        )
    )


def _content(page: DataPage) -> dict[str, Any]:
    """What the script reads."""
    return {
        "examples": [dataclasses.asdict(example) for example in page.examples],
        "rows": [dataclasses.asdict(row) for row in page.rows],
        "pieces": dict(page.pieces),
    }


def _json(value: Any) -> str:
    """JSON for a script element: without "<" nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode("utf-8", "replace").decode("utf-8")
