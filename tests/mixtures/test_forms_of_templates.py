"""Every template of every file, in every form it allows, on rows of marked fields."""

from pathlib import Path

import pytest

from flanjax.data.prompt_text import Renderer
from flanjax.data.rows import RowTable, template_fields
from flanjax.data.shot_text import ShotAssembler, ShotPrompt
from flanjax.data.templates import PROMPT_TYPES, load_templates

TEMPLATES = Path(__file__).parents[2] / "mixtures" / "templates"
FILES = sorted(TEMPLATES.glob("*.toml"))
OPTIONS = ("first⟨option⟩", "second⟨option⟩", "third⟨option⟩")


def _forms(path):
    """Yields (prompt type, templates in that form) of each group."""
    for group in load_templates(path).values():
        for prompt_type in PROMPT_TYPES:
            allowed = [t for t in group if prompt_type in t.prompt_types]
            if prompt_type.endswith("noopt"):
                allowed = [t.without_options() for t in allowed]
            if allowed:
                yield prompt_type, allowed


def _table(templates):
    """Two rows in which each field holds its own name and the row's number."""
    fields = template_fields(templates)
    texts = [[f"⟨{name}{row}⟩" for name in fields] for row in range(2)]
    if "answer" in fields:
        for row in texts:
            row[fields.index("answer")] = OPTIONS[1]
    return RowTable(
        fields=fields,
        row_ids=["0", "1"],
        values=[tuple(row) for row in texts],
        options=[OPTIONS] * 2,
        dialogs=[("⟨one⟩", "⟨two⟩")] * 2,
        references=[(), ()],
        groups=["", ""],
        keys=[0, 1],
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_template_renders_and_no_option_shows_in_a_no_option_form(path):
    count = 0
    for prompt_type, templates in _forms(path):
        table = _table(templates)
        renderer = Renderer(templates, table.fields, "answer")
        for number, template in enumerate(templates):
            rendered = renderer.query(table, 0, number)
            assert rendered.inputs.strip() and rendered.targets.strip(), template.id
            shown = [o for o in OPTIONS if o in rendered.inputs]
            if prompt_type.endswith("noopt"):
                # Turned around, a template may say the answer, but never the list.
                assert len(shown) <= 1, template.id
                assert "OPTIONS:" not in rendered.inputs
            elif template.shows_options:
                assert len(shown) == 3, template.id
            count += 1
    assert count


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_few_shot_prompts_hold_every_part_of_exemplar_and_query_in_order(path):
    assembler = ShotAssembler(10**6, lambda texts: [len(text) for text in texts])
    for prompt_type, templates in _forms(path):
        if not prompt_type.startswith("fs"):
            continue
        table = _table(templates)
        renderer = Renderer(templates, table.fields, "answer")
        for number, template in enumerate(templates):
            query = renderer.query(table, 0, number)
            shot = renderer.exemplar(table, 1, number)
            ((text, kept),) = assembler.join(
                [ShotPrompt(query, template, [(shot, template)])]
            )
            first, second = f"{shot.inputs}{template.x_y_delimiter}", query.inputs
            assert kept == 1 and text.startswith(query.header)
            assert text.index(first) < text.rindex(second.rstrip(" ")), template.id
