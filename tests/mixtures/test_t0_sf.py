"""T0-SF: the table, and the prompts of our own wording over the datasets' rows."""

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from flanjax.data.examples import split_renderer
from flanjax.data.tasks import instruction_task, task_info
from flanjax.data.templates import PROMPT_TYPES, load_templates
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.errors import DataError
from flanjax.eval.scorers import exact_match
from mixtures import t0_sf
from mixtures.t0_sf_raw import candidate, in_order_of
from mixtures.t0_sf_source import (
    LISTINGS,
    MULTIPLE_CHOICE,
    QUESTION_ANSWER,
    RAW,
    SEPARATED,
    T0Source,
    load_prompts,
    own_row,
)

PROMPTS = t0_sf.PROMPTS

# Configuration -> prompts of the three kinds, most training rows (Chung et al. 2022 and
# the public code's tables).
KINDS = (QUESTION_ANSWER, MULTIPLE_CHOICE, SEPARATED)
FIGURES = {
    "adversarial_qa_dbert": ((5, 0, 0), 10_000),
    "adversarial_qa_dbidaf": ((5, 0, 0), 10_000),
    "adversarial_qa_droberta": ((5, 0, 0), 10_000),
    "amazon_polarity": ((0, 6, 3), 3_600_000),
    "app_reviews": ((2, 2, 0), 288_060),
    "cos_e_v1.11": ((5, 6, 0), 9_740),
    "dbpedia_14": ((0, 4, 0), 560_000),
    "dream": ((3, 2, 0), 6_110),
    "duorc_ParaphraseRC": ((9, 0, 0), 69_520),
    "duorc_SelfRC": ((9, 0, 0), 60_720),
    "kilt_tasks_hotpotqa": ((5, 0, 0), 88_860),
    "qasc": ((0, 4, 4), 8_130),
    "quail": ((0, 10, 3), 10_240),
    "quarel": ((0, 5, 0), 1_940),
    "quartz": ((0, 8, 0), 2_690),
    "quoref": ((11, 0, 0), 19_390),
    "race_high": ((2, 5, 1), 62_440),
    "race_middle": ((2, 5, 1), 25_420),
    "ropes": ((12, 0, 0), 10_920),
    "sciq": ((0, 3, 2), 11_670),
    "social_i_qa": ((1, 2, 3), 33_410),
    "web_questions": ((5, 0, 0), 3_770),
    "wiki_bio": ((5, 0, 0), 582_630),
    "wiki_hop_original": ((4, 5, 0), 43_730),
    "wiki_qa": ((6, 3, 2), 20_360),
    "wiqa": ((8, 0, 0), 29_800),
}


# Rows as the original datasets have them, invented: {"dataset": ..., "row": {...}}.
_LINES = (Path(__file__).parent / "t0_sf_rows.jsonl").read_text(encoding="utf-8")
ROWS = [json.loads(line) for line in _LINES.splitlines()]


def rows_of(dataset: str) -> list[dict]:
    """Returns rows of a configuration, "race_high"."""
    fitting = (each for each in ROWS if f"{dataset}_".startswith(f"{each['dataset']}_"))
    return [each["row"] for each in fitting]


def _own_rows(prompt):
    texts = map(RAW[prompt.dataset].fields, rows_of(prompt.dataset))
    rows = (own_row(each, prompt, prompt.template()) for each in texts)
    return [row for row in rows if row is not None]


def test_the_193_prompts_have_the_public_kinds_and_sizes():
    assert len(PROMPTS) == 193
    kinds = Counter(prompt.kind for prompt in PROMPTS.values())
    assert tuple(kinds[kind] for kind in KINDS) == (104, 70, 19)
    assert {prompt.dataset for prompt in PROMPTS.values()} == set(FIGURES) == set(RAW)
    for dataset, (counts, cases) in FIGURES.items():
        own = [prompt for prompt in PROMPTS.values() if prompt.dataset == dataset]
        kinds = Counter(prompt.kind for prompt in own)
        assert tuple(kinds[kind] for kind in KINDS) == counts, dataset
        assert {prompt.max_cases for prompt in own} == {cases}, dataset
        fraction = 0.19 if dataset == "wiki_hop_original" else 1.0
        assert {prompt.x_shot_fraction for prompt in own} == {fraction}, dataset


def test_every_prompt_is_registered_in_all_forms():
    forms = {*PROMPT_TYPES, "fs_opt_mix"}
    assert len(t0_sf.BASES) == 193 and len(t0_sf.SOURCES) == 193
    for base, names in t0_sf.BASES.items():
        assert set(names) == {f"{base}_{form}" for form in forms}
    info = task_info("t0_sciq_Direct_Question_zs_opt")
    assert info["collection"] == "t0_sf" and info["dataset"] == "sciq"
    assert info["licence"] == "CC BY-NC 3.0" and info["option_style"] == "random"
    assert info["category"] == "Multiple-Choice QA (no trivia knowledge required)"


def test_reading_the_table_takes_no_time():
    start = time.perf_counter()
    prompts = load_prompts()
    sources = [T0Source(prompt) for prompt in prompts.values()]
    assert len(sources) == 193 and time.perf_counter() - start < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_has_ten_wrappers_in_each_form(kind):
    path = t0_sf._WRAPPERS[kind].path
    templates = load_templates(path)[kind]
    for form in PROMPT_TYPES:
        fitting = [t for t in templates if form in t.prompt_types]
        assert len(fitting) == 10
        shown = kind == SEPARATED and not form.endswith("noopt")
        assert all(t.shows_options for t in fitting) or not shown
        assert len({(t.inputs, t.inputs_prefix) for t in fitting}) == 10
    assert {name for t in templates for name in t.fields} <= {
        *("question", "answer"),
        *(["options_"] if kind == SEPARATED else []),
    }


@pytest.mark.parametrize("dataset", sorted(RAW))
def test_a_dataset_is_made_of_the_columns_it_declares(dataset):
    raw = RAW[dataset]
    for row in rows_of(dataset):
        assert set(raw.columns) <= set(row)
        texts = raw.fields({name: row[name] for name in raw.columns})
        extra = {"options", "label", "verdict", "references", "answer"}
        assert set(raw.names) <= set(texts) <= {*raw.names, *extra}
        assert all(isinstance(texts[name], str) for name in raw.names)
        if "options" in texts:
            assert texts["options"][texts["label"]] == texts["answer"]
    row = rows_of(dataset)[0]
    for name in raw.columns:
        with pytest.raises(KeyError):
            raw.fields({key: row[key] for key in raw.columns if key != name})


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_our_wording_names_only_what_its_dataset_has(name):
    prompt = PROMPTS[name]
    raw = RAW[prompt.dataset]
    known = {*raw.names, *(["choice"] if prompt.answers else [])}
    known |= {"fixed_list"} if prompt.fixed_answers else set()
    if "options" in raw.fields(rows_of(prompt.dataset)[0]):
        known |= set(LISTINGS)
    template = prompt.template()
    assert set(template.fields) <= known
    assert not set(template.prompt_types) - set(PROMPT_TYPES)


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_our_wording_asks_what_the_name_says(name):
    prompt = PROMPTS[name]
    rows = _own_rows(prompt)
    assert rows
    for row in rows:
        question, answer = row["question"], row["answer"]
        assert question.strip() and answer.strip()
        if prompt.kind == QUESTION_ANSWER:
            assert "options" not in row
            continue
        assert answer in row["options"] and len(set(row["options"])) > 1
        if prompt.kind == MULTIPLE_CHOICE and prompt.answers != "letters":
            assert all(option in question for option in row["options"])
        if prompt.answers == "letters":
            assert f"({answer}) " in question and answer in "ABCDEFGH"
    if "generate_question" in name.lower():
        questions = {row["question"] for row in rows_of(prompt.dataset)}
        assert {row["answer"] for row in rows} <= questions


def test_wordings_of_one_dataset_differ():
    for dataset in RAW:
        own = [p.template() for p in PROMPTS.values() if p.dataset == dataset]
        assert len({(t.inputs, t.targets) for t in own}) == len(own)


def test_rows_that_lack_what_a_prompt_needs_are_skipped():
    assert len(_own_rows(PROMPTS["wiki_qa_Direct_Answer_to_Question"])) == 1
    assert len(_own_rows(PROMPTS["wiki_qa_Decide_good_answer"])) == 2
    answers = [r["answer"] for r in _own_rows(PROMPTS["duorc_SelfRC_answer_question"])]
    assert answers == ["a sailor", "unanswerable"]
    by_answer = PROMPTS["duorc_SelfRC_generate_question_by_answer"]
    assert len(_own_rows(by_answer)) == 1


def test_every_accepted_answer_is_a_reference():
    (row,) = _own_rows(PROMPTS["web_questions_whats_the_answer"])
    assert row["answer"] == "Ann Stone" and row["references"] == ["Ann Stone", "Stone"]


def test_choices_are_in_no_order_that_gives_the_answer_away():
    options = ["right", "a", "b", "c"]
    places = Counter(
        in_order_of(options, f"row {i}").index("right") for i in range(400)
    )
    assert all(60 <= places[place] <= 140 for place in range(4))
    judged = [candidate(options, 0, f"row {i}") for i in range(400)]
    right = sum(each["verdict"] for each in judged)
    assert 160 <= right <= 240
    assert all((e["candidate"] == "right") == bool(e["verdict"]) for e in judged)


# One prompt or more of each kind, of eight datasets.
RENDERED = (
    "adversarial_qa_dbert_based_on",
    "amazon_polarity_flattering_or_not",
    "qasc_is_correct_1",
    "race_high_Select_the_best_answer",
    "race_high_Read_the_article_and_answer_the_question_no_option_",
    "sciq_Direct_Question_Closed_Book_",
    "social_i_qa_Show_choices_and_generate_index",
    "wiki_hop_original_explain_relation",
    "wiki_qa_automatic_system",
    "wiqa_effect_with_string_answer",
)


@pytest.fixture
def raw_root(tmp_path, monkeypatch):
    """A data root with the invented rows, and nothing of P3."""
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    for dataset in {PROMPTS[name].dataset for name in RENDERED}:
        path = tmp_path / f"t0/{dataset}/train.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(dataset)))
    return tmp_path


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("form", PROMPT_TYPES)
def test_our_wording_is_rendered_in_every_wrapper(raw_root, name, form):
    task = instruction_task(f"t0_{name}_{form}")
    assert task.source.where("train").endswith("train.jsonl (own wording)")
    task = dataclasses.replace(task, template_assignment="all")
    renderer = split_renderer(task, "train", 0, False, ByteVocabulary())
    examples = renderer.examples(0, len(renderer))
    if task.is_few_shot and len(rows_of(PROMPTS[name].dataset)) == 1:
        assert not examples  # A row is not its own exemplar.
        return
    assert {e["template_id"] for e in examples} == {t.id for t in task.templates()}
    for example in examples:
        targets = example["targets"]
        assert example["inputs"].strip() and targets.strip()
        assert exact_match(targets, example["references"] or [targets]) == 1
        if PROMPTS[name].kind == SEPARATED:
            assert targets in example["choices"]


def test_the_fingerprint_follows_rows_and_wording(raw_root, monkeypatch):
    source = t0_sf.SOURCES["t0_sciq_Direct_Question_Closed_Book_"]
    first = source.fingerprint("train")
    assert first == source.fingerprint("train")
    path = raw_root / "t0/sciq/train.jsonl"
    path.write_text(path.read_text().replace("helium", "radon"))
    second = source.fingerprint("train")
    other = PROMPTS["sciq_Direct_Question"].template()
    monkeypatch.setattr(type(source.prompt), "template", lambda self: other)
    assert len({first, second, source.fingerprint("train")}) == 3


def test_without_data_both_origins_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    source = t0_sf.SOURCES["t0_cos_e_v1.11_i_think"]
    assert not source.present("train")
    with pytest.raises(DataError) as error:
        list(source.rows("train"))
    message = str(error.value)
    for part in (
        "cos_e_v1.11_i_think",
        f"{tmp_path}/p3/cos_e_v1.11_i_think/train",
        f"{tmp_path}/tfds/bigscience__p3/cos_e_v1_11_i_think",
        f"{tmp_path}/t0/cos_e_v1.11/train",
        f"{tmp_path}/tfds/cos_e/0.0.1",
        "tfds build cos_e:0.0.1",
    ):
        assert part in message
