"""Muffin, second part: templates, and MNLI's halves."""

import pytest

from flanjax.data.faithful import set_faithful
from flanjax.data.sources import FunctionSource
from flanjax.data.templates import parse
from mixtures.mnli_halves import first_half, second_half
from mixtures.muffin_more import DATASETS, GROUPS

# Facts of the public code: group -> (fields its templates may use, how many of the
# templates have another target than the usual one, the usual one).
# https://github.com/google-research/FLAN/blob/main/flan/v2/templates.py
_PAIR = "premise hypothesis answer"
TABLE = {
    "copa": ("premise question answer", 1, "answer"),
    "hellaswag": ("context answer", 0, "answer"),
    "story_cloze": ("context answer", 2, "answer"),
    "piqa": ("goal answer", 2, "answer"),
    "translation": ("sent1 lang2 sent2 lang1", 4, "sent2"),
    "definite_pronoun_resolution": ("sentence pronoun answer", 0, "answer"),
    "winogrande": ("context answer", 0, "answer"),
    "wsc": ("context text1 text2 answer", 0, "answer"),
    "anli": ("context hypothesis answer", 1, "answer"),
    "cb": (_PAIR, 1, "answer"),
    "rte": (_PAIR, 1, "answer"),
    "mnli": (_PAIR, 0, "answer"),
    "qnli": ("sentence question answer", 1, "answer"),
    "wnli": ("sentence1 sentence2 answer", 0, "answer"),
    "snli": (_PAIR, 1, "answer"),
    "math_dataset": ("question answer", 0, "answer"),
    "quac": ("background context question answer title", 2, "answer"),
    "coqa": ("text numbered_questions numbered_answers", 1, "numbered_answers"),
    "wic": ("sentence1 sentence2 word answer", 0, "answer"),
    "cola": ("sentence answer", 2, "answer"),
    "trec": ("text answer", 1, "answer"),
    "record": ("passage query answer", 0, "answer"),
    "cosmos_qa": ("context question answer", 2, "answer"),
    "lambada": ("sentence answer", 0, "answer"),
    "unified_qa_science_inst": ("question answer", 0, "answer"),
}


def test_every_dataset_names_a_group_and_every_group_is_used():
    used = {data.templates or task for task, data in DATASETS.items()}
    assert used == set(GROUPS) == set(TABLE)


@pytest.mark.parametrize("group", TABLE)
def test_a_group_has_ten_templates_with_the_tables_fields_and_turned_around_ones(group):
    fields, unusual, usual = TABLE[group]
    templates = GROUPS[group].load()
    assert len(templates) >= 10
    turned = [t for t in templates if t.targets != f"{{{usual}}}"]
    assert len(turned) == unusual
    for template in templates:
        assert set(template.fields) <= {*fields.split(), "options_"}, template.id
        assert "options_" not in dict.fromkeys(
            name for _, name in parse(template.targets)
        )


@pytest.mark.parametrize("task", DATASETS)
def test_options_stand_in_every_usual_template_and_in_no_turned_around_one(task):
    data = DATASETS[task]
    for template in GROUPS[data.templates or task].load():
        usual = template.targets == f"{{{data.answer_field}}}"
        assert template.shows_options == (data.has_options and usual), template.id
        bare = template.without_options()
        assert bare.inputs.strip() and bare.inputs == bare.inputs.lstrip()
        assert not any(
            word in bare.inputs.lower()
            for word in ("option", "choose", "choice", "pick", "select")
        ), template.id


def test_texts_of_templates_differ_from_each_other():
    templates = [t for group in GROUPS.values() for t in group.load()]
    assert len(templates) == 250
    assert len({(t.inputs, t.targets, t.id.split("/")[0]) for t in templates}) == 250


def test_parts_never_share_rows_of_one_split():
    for task, data in DATASETS.items():
        parts = list(data.parts.values())
        assert len(set(parts)) == len(parts), task
        for part in parts:
            if "[" not in part:
                sliced = [p for p in parts if p != part and p.startswith(f"{part}[")]
                assert not sliced, task


def _mnli_rows(split):
    for number in range(500):
        yield {"premise": f"{split} {number}", "hypothesis": "It is so."}


@pytest.fixture
def mnli_halves():
    source = FunctionSource(_mnli_rows, ("train", "validation"), "mnli")
    yield source, first_half(source), second_half(source)
    set_faithful(())


def _ids(source, split):
    return {row["row_id"] for row in source.rows(split)}


def test_mnli_halves_are_disjoint_and_together_whole(mnli_halves):
    whole, one, two = mnli_halves
    assert not _ids(one, "train") & _ids(two, "train")
    assert _ids(one, "train") | _ids(two, "train") == _ids(whole, "train")
    assert 200 < len(_ids(one, "train")) < 300
    assert _ids(one, "validation") == _ids(whole, "validation")
    assert one.fingerprint("train") != two.fingerprint("train")


def test_mnli_counts_twice_when_told_to_be_faithful(mnli_halves):
    whole, one, two = mnli_halves
    before = one.fingerprint("train"), one.fingerprint("validation")
    set_faithful(["mnli_doubled"])
    assert _ids(one, "train") == _ids(two, "train") == _ids(whole, "train")
    assert one.fingerprint("train") != before[0]
    assert one.fingerprint("validation") == before[1]
