"""Muffin: the public code's table, the templates, the 71 tasks, real rows in them."""

import dataclasses
import re
from pathlib import Path

import pytest

from flanjax.data.examples import split_renderer
from flanjax.data.fewshot import FewShot
from flanjax.data.templates import PROMPT_TYPES
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.eval.scorers import exact_match
from mixtures.muffin_datasets import DATASETS, GROUPS
from mixtures.muffin_facts import facts

PUBLIC = {task: fact for task, fact in facts().items() if fact.public}

# ParaCrawl and the opinion abstracts keep fixed slices; so do the 30,000-row sets.
_RESERVED = re.compile(r"train\[:-(\d+)\]")


def _templates(task):
    return GROUPS[DATASETS[task].templates or task].load()


# --- the table ----------------------------------------------------------------------


def test_the_table_holds_the_71_tasks_of_the_public_code_and_one_of_the_paper():
    assert len(PUBLIC) == 71
    assert set(facts()) - set(PUBLIC) == {"trivia_qa_wiki_missing"}
    assert set(PUBLIC) == set(DATASETS)


def test_capped_weights_add_up_to_the_recorded_total():
    assert sum(fact.capped_cases for fact in PUBLIC.values()) == 1_495_430
    assert sum(fact.zero_shot_cases > 30_000 for fact in PUBLIC.values()) == 39
    for fact in PUBLIC.values():
        assert fact.capped_cases == min(fact.zero_shot_cases, 30_000), fact.task
        assert fact.x_shot_cases <= fact.zero_shot_cases, fact.task


@pytest.mark.parametrize("task", PUBLIC)
def test_a_dataset_is_what_the_table_says(task):
    data, fact = DATASETS[task], PUBLIC[task]
    assert (data.tfds, data.cluster) == (fact.tfds, fact.cluster)
    assert data.has_options == fact.has_options


# Rows in TFDS's train split of datasets with a reserve, as its catalogue gives them.
TRAIN_ROWS = {
    "ag_news_subset": 120_000,
    "squad_v1": 87_599,
    "squad_v2": 130_319,
    "multirc": 27_243,
    "bool_q": 9_427,
    "trivia_qa": 87_622,
    "natural_questions": 87_925,
    "glue_mrpc": 3_668,
    "glue_qqp": 363_846,
    "stsb": 5_749,
    "imdb_reviews": 25_000,
    "sentiment140": 1_600_000,
    "yelp_polarity_reviews": 560_000,
    "sst2": 67_349,
    "web_nlg_en": 35_426,
    "common_gen": 67_389,
    "e2e_nlg": 33_525,
    "dart": 62_659,
}


@pytest.mark.parametrize("task", TRAIN_ROWS)
def test_train_is_what_the_reserve_leaves_of_it(task):
    reserve = _RESERVED.fullmatch(DATASETS[task].parts["train"])
    assert reserve is not None
    left = TRAIN_ROWS[task] - int(reserve[1])
    assert left - left % 10 == PUBLIC[task].zero_shot_cases


def test_the_three_formatting_tasks_use_slices_that_do_not_meet():
    taken = []
    for task in ("true_case", "fix_punct", "word_segment"):
        data = DATASETS[task]
        assert data.folder == "para_crawl_enda"
        for split, size in (("train", 30_000), ("validation", 200)):
            first, last = map(int, re.findall(r"\d+", data.parts[split]))
            assert last - first == size
            taken.append((first, last))
    ends = [end for part in sorted(taken) for end in part]
    assert ends == sorted(ends) and ends[0] == 0


# --- the templates ------------------------------------------------------------------


@pytest.mark.parametrize("task", PUBLIC)
def test_ten_templates_of_which_as_many_are_turned_around_as_the_table_says(task):
    templates, answer = _templates(task), f"{{{DATASETS[task].answer_field}}}"
    assert len(templates) >= 10
    unusual = [t.id for t in templates if t.targets != answer]
    assert len(unusual) == PUBLIC[task].unusual_templates
    texts = {(t.inputs, t.targets) for t in templates}
    assert len(texts) == len(templates)


@pytest.mark.parametrize("task", PUBLIC)
def test_templates_use_only_the_fields_of_the_table(task):
    used = {name for t in _templates(task) for name in t.fields}
    assert used <= {*PUBLIC[task].fields, "options_"}


@pytest.mark.parametrize("task", PUBLIC)
def test_options_stand_where_they_are_chosen_from_and_bare_forms_speak_of_none(task):
    data = DATASETS[task]
    answer = f"{{{data.answer_field}}}"
    for template in _templates(task):
        shown = data.has_options and template.targets == answer
        assert template.shows_options == shown, template.id
        if "zs_noopt" not in template.prompt_types:
            continue
        bare = template.without_options().inputs
        assert bare == bare.strip(), template.id
        if data.has_options:
            words = re.findall(r"\w+", bare.lower())
            told = {"option", "options", "choose", "choices", "pick", "select", "list"}
            assert not told & set(words), template.id


def test_forms_differ_within_a_dataset():
    for task in PUBLIC:
        templates = _templates(task)
        delimiters = {t.x_y_delimiter for t in templates}
        separators = {t.example_separator for t in templates}
        assert len(delimiters) >= 2 and len(separators) >= 2, task
        starts = {t.inputs.split("{")[0] for t in templates}
        assert len(starts) >= len(templates) // 2, task


# --- the tasks ----------------------------------------------------------------------


def test_every_dataset_is_registered_in_five_forms():
    from flanjax.data.tasks import task_info
    from mixtures import muffin

    assert len(muffin.BASES) == 71
    forms = [*PROMPT_TYPES, "fs_opt_mix"]
    for base, names in muffin.BASES.items():
        assert list(names) == [f"{base}_{form}" for form in forms]
    info = task_info("glue_mrpc_zs_opt")
    assert info["collection"] == "muffin" and info["option_style"] == "random"
    assert info["category"] == "paraphrase_identification"
    assert task_info("glue_mrpc_fs_opt_mix")["few_shot"]["shots"] == 5


def test_a_dataset_of_a_few_own_rows_reaches_seqio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_examples
):
    from mixtures import muffin

    folder = tmp_path / "muffin" / "sst2"
    folder.mkdir(parents=True)
    rows = [f'{{"sentence": "film {n} is fun", "label": 1}}' for n in range(210)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    shown, _, shots, hidden, mixed = (
        first_examples(name, "train", count=10) for name in muffin.BASES["sst2"]
    )
    assert {len(e) for e in (shown, hidden)} == {10}
    usual = [e for e in shots + mixed if e["targets_pretokenized"] == b"positive"]
    assert usual and all(b"positive" in e["choices"] for e in usual)
    assert all(len(e["shot_ids"]) == 5 for e in mixed)
    assert all(b"OPTIONS" not in e["inputs_pretokenized"] for e in hidden)


# --- real rows ----------------------------------------------------------------------

# Tasks that the shared data has rows of, and the folder they lie in there.
SHARED = {
    "ag_news_subset": "ag_news",
    "arc_challenge": "arc_challenge",
    "arc_easy": "arc_easy",
    "bool_q": "boolq",
    "cb": "cb",
    "copa": "copa",
    "e2e_nlg": "e2e_nlg",
    "glue_mrpc": "mrpc",
    "glue_qqp": "qqp",
    "imdb_reviews": "imdb",
    "mnli_matched": "mnli",
    "mnli_mismatched": "mnli",
    "multirc": "multirc",
    "natural_questions": "natural_questions_open",
    "openbookqa": "openbookqa",
    "piqa": "piqa",
    "rte": "rte",
    "samsum": "samsum",
    "squad_v1": "squad_v1_xquad_en",
    "sst2": "sst2",
    "trec": "trec",
    "xsum": "xsum",
}


@pytest.fixture
def muffin_root(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared rows under the names of the tasks."""
    folder = tmp_path / "root" / "muffin"
    folder.mkdir(parents=True)
    for task, name in SHARED.items():
        source = shared / "data" / "t0sf_muffin" / name
        (folder / task).symlink_to(source.resolve())
    monkeypatch.setenv("FLANJAX_DATA", str(folder.parent))
    return folder.parent


@pytest.mark.slow
@pytest.mark.parametrize("base", SHARED)
def test_real_rows_render_under_every_template_and_gold_is_right(base, muffin_root):
    from flanjax.data.tasks import instruction_task
    from mixtures import muffin

    for name in muffin.BASES[base]:
        task = instruction_task(name)
        few_shot = FewShot(task.few_shot.shots, max_tokens=1_000_000)
        task = dataclasses.replace(task, template_assignment="all", few_shot=few_shot)
        renderer = split_renderer(task, "train", 0, False, ByteVocabulary())
        count = len(task.templates())
        rows = len(renderer) // count
        assert rows > 40, name
        step = max(1, rows // 40)  # Whole rows, from all over the file.
        starts = range(0, rows * count, step * count)
        examples = [e for s in starts for e in renderer.examples(s, s + count)]
        for example in examples:
            _check(example, task)
        assert {e["template_id"] for e in examples} == {t.id for t in task.templates()}


def _check(example, task):
    inputs, targets = example["inputs"], example["targets"]
    at = (example["row_id"], example["template_id"], task.name)
    assert inputs.strip() and targets.strip(), at
    assert exact_match(targets, example["references"] or [targets]) == 1, at
    usual = next(t for t in task.templates() if t.id == example["template_id"])
    if task.has_options and usual.targets == f"{{{task.answer_field}}}":
        assert targets in example["choices"], at
        assert len(example["choices"]) > 1, at
        assert exact_match(targets, example["choices"]) == 1, at
    if task.prompt_type == "fs_opt":
        assert example["shot_ids"], at
    if task.prompt_type.endswith("noopt"):
        assert "OPTIONS:" not in inputs, at
        block = "".join(f"\n- {choice}" for choice in example["choices"])
        assert not block or block not in inputs, at
