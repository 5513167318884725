"""T0-SF from rows that P3 has rendered: its fields, its choices, the real sample."""

import dataclasses
import json
from collections import Counter

import pytest

from flanjax.data import faithful
from flanjax.data.examples import split_renderer
from flanjax.data.fewshot import FewShot
from flanjax.data.tasks import instruction_task
from flanjax.data.templates import PROMPT_TYPES
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.eval.scorers import exact_match
from mixtures import t0_sf
from mixtures.t0_sf_source import (
    MULTIPLE_CHOICE,
    QUESTION_ANSWER,
    SEPARATED,
    T0Source,
    p3_row,
    p3_source,
)

PROMPTS = t0_sf.PROMPTS
FORMS = (*PROMPT_TYPES, "fs_opt_mix")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return tmp_path


def _write(root, name, rows):
    path = root / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _p3(question, answer, choices=None):
    return {
        "inputs_pretokenized": question,
        "targets_pretokenized": answer,
        "answer_choices": choices,
    }


def test_p3_and_the_sample_of_it_give_the_same_rows():
    released = _p3("Who?\n\nA or B?", "\nAnn", None)
    sampled = {"prompt": "Who?\n\nA or B?\n", "completion": "Ann<|endoftext|>"}
    row = {"question": "Who?\n\nA or B?", "answer": "Ann"}
    assert p3_row(released, QUESTION_ANSWER, "") == row
    assert p3_row(sampled, QUESTION_ANSWER, "") == row


def test_choices_are_those_of_the_row_or_of_the_prompt():
    row = p3_row(_p3("q", " b", [" a", "b "]), SEPARATED, "options")
    assert row == {"question": "q", "answer": "b", "options": ["a", "b"]}
    row = p3_row({"prompt": "q", "completion": "Yes"}, SEPARATED, "No|Yes")
    assert row["options"] == ["No", "Yes"]
    assert "options" not in p3_row(_p3("q", "b", ["a", "b"]), QUESTION_ANSWER, "")


def test_rows_without_a_side_or_without_a_usable_choice_are_told_apart():
    assert p3_row(_p3("q", " "), QUESTION_ANSWER, "") is None
    assert p3_row(_p3("\n", "a"), QUESTION_ANSWER, "") is None
    # Where choices are to be added, they must hold the answer and have names.
    many = [str(number) for number in range(40)]
    for answer, choices in (("c", ["a", "b"]), ("7", many)):
        assert p3_row(_p3("q", answer, choices), SEPARATED, "options") is None
        row = p3_row(_p3("q", answer, choices), MULTIPLE_CHOICE, "options")
        assert row == {"question": "q", "answer": answer}


def test_choices_that_a_file_lacks_are_other_rows_answers(root):
    name = "sciq_Direct_Question"
    rows = [_p3(f"q {n}", f"answer {n}") for n in range(20)]
    rows += [_p3("q", "b", ["a", "b"])]
    _write(root, f"p3/{name}", rows)
    found = list(T0Source(PROMPTS[name]).rows("train"))
    assert found == list(T0Source(PROMPTS[name]).rows("train"))
    *borrowed, given = found
    assert given["options"] == ["a", "b"]
    for row in borrowed:
        assert row["answer"] in row["options"] and len(set(row["options"])) == 4
    places = Counter(row["options"].index(row["answer"]) for row in borrowed)
    assert len(places) > 1


def test_p3_goes_before_the_dataset_itself(root):
    name = "web_questions_whats_the_answer"
    source = t0_sf.SOURCES[f"t0_{name}"]
    _write(root, "t0/web_questions/train", [{"question": "who?", "answers": ["Ann"]}])
    (row,) = source.rows("train")
    own = source.fingerprint("train")
    assert row["question"] != "P3's question" and "(own wording)" in source.where(
        "train"
    )
    _write(root, f"p3/{name}", [_p3("P3's question", "Ann")])
    (row,) = source.rows("train")
    assert row["question"] == "P3's question" and row["answer"] == "Ann"
    assert source.where("train").endswith(f"{name}.jsonl (P3)")
    assert source.fingerprint("train") != own


def test_newlines_stay_unless_the_public_code_is_to_be_followed(root):
    name = "wiki_bio_who"
    _write(root, f"p3/{name}", [_p3("one\ntwo", "three\nfour")] * 2)
    task = instruction_task(f"t0_{name}_zs_noopt")
    task = dataclasses.replace(task, template_assignment="all")

    def first():
        return split_renderer(task, "train", 0, False, ByteVocabulary()).examples(0, 1)[
            0
        ]

    kept, before = first(), task.fingerprint("train")
    assert kept["targets"] == "three\nfour" and "one\ntwo" in kept["inputs"]
    faithful.set_faithful(["t0_newlines"])
    try:
        lost, after = first(), task.fingerprint("train")
    finally:
        faithful.set_faithful([])
    assert lost["targets"] == "threefour" and "one two" in lost["inputs"]
    assert before != after


# --- the sample of Self-Instruct ----------------------------------------------------

# All rows of these have an empty answer there.
UNANSWERED = "trec_"


def test_all_243_shared_prompts_are_read(data_root):
    names = sorted(path.name for path in (data_root / "p3").iterdir())
    assert len(names) == 243
    counts = {}
    for file in names:
        name = file.removesuffix(".jsonl.gz")
        rows = list(p3_source(name).rows("train"))
        assert all(row["question"] and row["answer"] for row in rows)
        assert not any("<|endoftext|>" in row["answer"] for row in rows)
        counts[name] = len(rows)
    empty = [name for name, count in counts.items() if not count]
    assert len(empty) == 7 and all(name.startswith(UNANSWERED) for name in empty)
    assert sum(counts.values()) == 5680


def _present():
    return [name for name in PROMPTS if t0_sf.SOURCES[f"t0_{name}"].present("train")]


def test_115_of_the_193_prompts_are_there(data_root):
    present = _present()
    assert len(present) == 115
    kinds = Counter(PROMPTS[name].kind for name in present)
    assert kinds == {QUESTION_ANSWER: 59, MULTIPLE_CHOICE: 42, SEPARATED: 14}


# Few-shot prompts with bytes as tokens; the budget is for subwords.
SHOTS = FewShot(max_tokens=1_000_000)


@pytest.mark.parametrize("form", FORMS)
def test_every_prompt_that_is_there_fits_every_wrapper(data_root, form):
    for name in _present():
        task = instruction_task(f"t0_{name}_{form}")
        few_shot = dataclasses.replace(SHOTS, shots=task.few_shot.shots)
        task = dataclasses.replace(task, template_assignment="all", few_shot=few_shot)
        renderer = split_renderer(task, "train", 0, False, ByteVocabulary())
        templates = {template.id for template in task.templates()}
        assert len(templates) == 10
        # Three rows in each wrapper.
        examples = renderer.examples(0, 30)
        assert len(examples) == 30, name
        assert {example["template_id"] for example in examples} == templates
        for example in examples:
            _check(example, task)


def _check(example, task):
    inputs, targets = example["inputs"], example["targets"]
    at = (task.name, example["row_id"], example["template_id"])
    assert inputs.strip() and targets.strip(), at
    assert exact_match(targets, example["references"] or [targets]) == 1, at
    if task.has_options or example["choices"]:
        assert len(example["choices"]) > 1, at
        assert exact_match(targets, example["choices"]) == 1, at
    if task.is_few_shot:
        assert example["shot_ids"], at
        assert example["row_id"] not in example["shot_ids"], at
