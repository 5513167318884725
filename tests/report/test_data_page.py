"""The page of examples holds them as data, runs only its own script, loads nothing."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
from typing import Any

import numpy as np
import pytest

from flanjax.data.layout import make_layout
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError
from flanjax.report.data_page import DataPage, draw_data_page, write_data_page
from flanjax.report.shown import PackedRow, Run, Shown, all_ids, packed_row, pieces

BYTES = load_vocabulary("bytes")
NASTY = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028"


def example(task="boolq_zs_opt", inputs="is it?", targets="yes", **more: Any) -> Shown:
    more = {"collection": "muffin", "template_id": f"{task}/0", "row_id": "7"} | more
    return Shown(
        task=task,
        split="train",
        inputs=inputs,
        targets=targets,
        input_ids=BYTES.encode(inputs),
        target_ids=BYTES.encode(targets),
        **more,
    )


EXAMPLES = [
    example(prompt_type="zs_opt", share=0.25),
    example("piqa_fs_opt", "a: b\n\nc:", "d", prompt_type="fs_opt", query_start=6),
    example("niv2_task1", NASTY, NASTY, row_id=NASTY, collection=NASTY),
]


@dataclasses.dataclass
class Tokens:
    inputs: np.ndarray
    targets: np.ndarray


def tokens(shown: Shown) -> Tokens:
    return Tokens(np.array(shown.input_ids), np.array(shown.target_ids))


def rows_of(groups, kind="encoder_decoder", lengths=(200, 100)) -> list[PackedRow]:
    layout = make_layout(kind, {"inputs": lengths[0], "targets": lengths[1]}, BYTES)
    features = layout.batch([[tokens(EXAMPLES[i]) for i in each] for each in groups])
    return [packed_row(features, number, group) for number, group in enumerate(groups)]


@pytest.fixture(scope="module")
def page() -> DataPage:
    rows = rows_of([[0, 1]])
    texts = pieces(BYTES, all_ids(EXAMPLES, rows))
    facts = [("vocabulary", NASTY)]
    return DataPage(
        NASTY, "mixture", EXAMPLES, rows, texts, facts, [NASTY], left_out=[NASTY]
    )


@pytest.fixture(scope="module")
def drawn(page) -> str:
    return draw_data_page(page)


class Elements(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self._script = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self._script = (dict(attrs), [])
            self.scripts.append(self._script)

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, data):
        if self._script:
            self._script[1].append(data)


def data_of(text: str) -> dict:
    ((_, parts),) = [s for s in Elements(text).scripts if s[0].get("id") == "data"]
    return json.loads("".join(parts))


def test_a_row_with_a_script_tag_stays_text(drawn):
    found = Elements(drawn)
    assert found.tags.count("script") == 2 and "img" not in found.tags
    assert data_of(drawn)["examples"][2]["inputs"] == NASTY


def test_the_policy_allows_the_pages_own_script_and_nothing_else(drawn):
    found = Elements(drawn)
    script = "".join(found.scripts[1][1])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', drawn)
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(", script)


def test_the_page_loads_nothing(drawn):
    found = Elements(drawn)
    assert not {"link", "iframe", "object", "embed"} & set(found.tags)
    links = [v for k, v in found.attributes if k in ("href", "src", "action")]
    assert links and all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\(|https?://", drawn)


def test_every_filter_has_its_values_in_the_data(drawn):
    ids = {v for k, v in Elements(drawn).attributes if k == "id"}
    examples = data_of(drawn)["examples"]
    for name in ("collection", "task", "template_id", "prompt_type"):
        assert f"by-{name}" in ids
        assert [e[name] for e in examples] == [getattr(e, name) for e in EXAMPLES]
    assert "find" in ids


def test_every_element_the_script_asks_for_is_there(drawn):
    script = "".join(Elements(drawn).scripts[1][1])
    ids = {v for k, v in Elements(drawn).attributes if k == "id"}
    assert set(re.findall(r'\bat\("([\w-]+)"\)', script)) <= ids


def test_the_page_says_how_many_examples_it_holds(page, drawn):
    assert "this page holds 3 examples and 1 row packed from them" in drawn
    batch = draw_data_page(dataclasses.replace(page, kind="batch"))
    assert "this page holds 3 examples in 1 row<" in batch
    assert batch.index('id="rows"') < batch.index('id="examples"')
    assert drawn.index('id="examples"') < drawn.index('id="rows"')


def test_segments_of_an_encoder_decoder_have_loss_on_targets_only():
    (row,) = rows_of([[0, 1]], lengths=(30, 12))
    encoder, decoder = row.stacks
    # EOS counts: "is it?" is 7 tokens, "a: b\n\nc:" 9, "yes" 4 and "d" 2.
    assert encoder.runs == [Run(1, False, 7), Run(2, False, 9), Run(0, False, 14)]
    assert decoder.runs == [Run(1, True, 4), Run(2, True, 2), Run(0, False, 6)]
    assert BYTES.decode_all(list(decoder.ids)) == "yesd" and len(decoder.ids) == 6
    assert (encoder.fill, decoder.fill) == (16 / 30, 0.5)


def test_segments_of_a_decoder_are_prompt_then_targets_with_loss():
    (row,) = rows_of([[0, 1]], "decoder", lengths=(30, 12))
    (stack,) = row.stacks
    # A decoder does not predict the first token of a segment.
    runs = [(1, False, 6), (1, True, 4), (2, False, 8), (2, True, 2), (0, False, 22)]
    assert stack.length == 42 and stack.runs == runs


def test_rows_in_the_data_are_what_was_packed(page, drawn):
    (row,) = data_of(drawn)["rows"]
    assert row["examples"] == [0, 1]
    for stack, packed in zip(row["stacks"], page.rows[0].stacks, strict=True):
        assert stack["ids"] == list(packed.ids)
        assert stack["runs"] == [list(run) for run in packed.runs]


def test_every_token_of_the_page_has_a_piece(drawn):
    data = data_of(drawn)
    ids = [i for e in data["examples"] for i in e["input_ids"] + e["target_ids"]]
    ids += [i for row in data["rows"] for stack in row["stacks"] for i in stack["ids"]]
    assert {str(i) for i in ids} == set(data["pieces"])
    assert data["pieces"]["1"] == "</s>"


def test_pieces_have_their_spaces_and_parts_of_characters_their_written_form():
    class Words:
        def token(self, token_id):
            return ["▁the", "Ġa", "<0xE2>"][token_id]

        def decode_all(self, ids):
            return ["the", " a", "\ufffd"][ids[0]]

    assert pieces(Words(), [2, 1, 0]) == {0: " the", 1: " a", 2: "<0xE2>"}


def test_json_has_the_names_of_seqio():
    found = EXAMPLES[0].as_json()
    assert found["inputs"] == BYTES.encode("is it?")
    assert found["inputs_pretokenized"] == "is it?"
    assert found["share"] == 0.25 and json.dumps(found)


def test_broken_unicode_does_not_keep_the_page_from_being_written(tmp_path):
    broken = example(inputs="cut \ud83d off", shot_ids=["\ud83d"])
    page = DataPage("x", "task", [broken], [], pieces(BYTES, all_ids([broken], [])))
    path = write_data_page(tmp_path / "x.html", page)
    assert data_of(path.read_text("utf-8"))["examples"][0]["inputs"] == "cut ? off"


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path, page):
    with pytest.raises(ConfigError, match="cannot write the page"):
        write_data_page(tmp_path / "missing" / "x.html", page)
