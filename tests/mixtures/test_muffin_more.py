"""Muffin, second part: a row of every dataset becomes fields, and is rendered."""

import dataclasses
import re
from pathlib import Path

import pytest

from flanjax.data.examples import split_renderer
from flanjax.data.instruction import InstructionTask
from flanjax.data.sources import FunctionSource
from flanjax.data.tasks import instruction_task
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.eval.scorers import exact_match
from mixtures.muffin import BASES, DATASETS
from mixtures.muffin_more import DATASETS as MORE

_UNFILLED = re.compile(r"\{[A-Za-z_]+\}")

_NLI = {"premise": "A cat sleeps. ", "hypothesis": "A pet rests."}
_TELL = ["yes", "it is not possible to tell", "no"]
_SAY = ["Yes", "It's impossible to say", "No"]
_ENDINGS = {"endings": ["sings.", "eats.", "ran.", "sits."]}
_COQA = {"story": " Ann ran. ", "questions": ["Who?", "What did she do? "]}
_QUAC = {
    "background": "Ann is a runner.",
    "context": "She ran. CANNOTANSWER",
    "question": "Did she win?",
    "title": "Ann",
}
_RECORD = {
    "passage": "Ann met Bob.\n@highlight\nBob sang\n@highlight\nAll cheered",
    "query": "@placeholder sang",
    "entities": ["Ann", "Bob", "Bob"],
    "answers": ["Bob"],
}
_COSMOS = {"context": "It rained. ", "question": "Why?"} | {
    f"answer{n}": f"reason {n} " for n in range(4)
}
_SCIENCE = "Which is a metal (Q)? \\n (A) iron (B) salt (C) table sugar"

# Task, original row, fields it must become (or None).
ROWS = [
    (
        "copa",
        {"premise": "It rained.", "question": "effect", "choice1": "We sang.",
         "choice2": "We got wet.", "label": 1},
        {"premise": "It rained.", "question": "effect", "answer": "We got wet.",
         "options": ["We sang.", "We got wet."]},
    ),
    (
        "hellaswag",
        {"context": "[header] How to cut glass [title] Get a pen. [step] Take",
         "endings": ["it. [substeps] Cut.", "b", "c", "d"], "label": 0},
        {"context": "How to cut glass. Get a pen. Take",
         "options": ["it. Cut.", "b", "c", "d"], "answer": "it. Cut."},
    ),
    (
        "hellaswag",
        {"ctx": "A man", **_ENDINGS, "label": "3"},
        {"context": "A man", "options": _ENDINGS["endings"], "answer": "sits."},
    ),
    ("hellaswag", {"context": "A man", **_ENDINGS, "label": -1}, None),
    (
        "story_cloze",
        {"context": "One. Two. Three. Four.", "endings": ["Good.", "Bad."], "label": 1},
        {"context": "One. Two. Three. Four.", "options": ["Good.", "Bad."],
         "answer": "Good."},
    ),
    (
        "story_cloze",
        {"InputSentence1": "One.", "InputSentence2": "Two.", "InputSentence3": "Three.",
         "InputSentence4": "Four.", "RandomFifthSentenceQuiz1": "Good.",
         "RandomFifthSentenceQuiz2": "Bad.", "AnswerRightEnding": "2"},
        {"context": "One. Two. Three. Four.", "options": ["Good.", "Bad."],
         "answer": "Bad."},
    ),
    (
        "piqa",
        {"goal": "open a jar", "sol1": "twist it ", "sol2": "sing", "label": 0},
        {"goal": "open a jar", "options": ["twist it", "sing"], "answer": "twist it"},
    ),
    (
        "definite_pronoun_resolution",
        {"sentence": "The cat saw the dog and it ran.", "pronoun": "it",
         "candidates": ["The cat", "the dog"], "label": 1},
        {"sentence": "The cat saw the dog and it ran.", "pronoun": "it",
         "options": ["The cat", "the dog"], "answer": "the dog"},
    ),
    (
        "winogrande",
        {"sentence": "Ann paid Bob because _ was generous.", "option1": "Ann",
         "option2": "Bob", "label": 1},
        {"context": "Ann paid Bob because",
         "options": ["Ann was generous.", "Bob was generous."],
         "answer": "Bob was generous."},
    ),
    (
        "winogrande",
        {"sentence": "Ann paid Bob because _ was generous.", "option1": "Ann",
         "option2": "Bob", "answer": "1"},
        {"context": "Ann paid Bob because",
         "options": ["Ann was generous.", "Bob was generous."],
         "answer": "Ann was generous."},
    ),
    (
        "wsc",
        {"text": "Ann said she won.", "span1_text": "Ann", "span2_text": "she",
         "span1_index": 0, "span2_index": 2, "label": True},
        {"context": "Ann said she won.", "text1": "Ann", "text2": "she",
         "options": ["no", "yes"], "answer": "yes"},
    ),
    (
        "para_crawl_enes",
        {"en": "Thank you. ", "es": "Gracias."},
        {"sent1": "Thank you.", "lang1": "English", "sent2": "Gracias.",
         "lang2": "Spanish"},
    ),
    (
        "wmt16_translate_deen",
        {"translation": {"de": "Danke.", "en": "Thanks."}},
        {"sent1": "Danke.", "lang1": "German", "sent2": "Thanks.", "lang2": "English"},
    ),
    ("wmt14_enfr", {"en": "Thank you.", "fr": " "}, None),
    (
        "wmt14_enfr",
        {"en": "Yes.", "fr": "Oui."},
        {"sent1": "Yes.", "lang1": "English", "sent2": "Oui.", "lang2": "French"},
    ),
    *[
        (
            f"wmt16_translate_{code}en",
            {code: "X.", "en": "Yes."},
            {"sent1": "X.", "lang1": name, "sent2": "Yes.", "lang2": "English"},
        )
        for code, name in {
            "tr": "Turkish", "cs": "Czech", "fi": "Finnish", "ro": "Romanian",
            "ru": "Russian",
        }.items()
    ],
    *[
        (
            f"anli_r{number}",
            {"uid": "u", "context": "A cat sleeps.", "hypothesis": "It barks.",
             "label": label},
            {"context": "A cat sleeps.", "hypothesis": "It barks.", "options": _SAY,
             "answer": "No"},
        )
        for number, label in ((1, 2), (2, "c"), (3, "contradiction"))
    ],
    (
        "cb",
        {**_NLI, "label": 2},
        {"premise": "A cat sleeps.", "hypothesis": "A pet rests.",
         "options": ["Yes", "No", "It's impossible to say"],
         "answer": "It's impossible to say"},
    ),
    (
        "rte",
        {**_NLI, "label": "not_entailment"},
        {"premise": "A cat sleeps.", "hypothesis": "A pet rests.",
         "options": ["yes", "no"], "answer": "no"},
    ),
    *[
        (
            task,
            {**_NLI, "label": label},
            {"premise": "A cat sleeps.", "hypothesis": "A pet rests.",
             "options": _TELL, "answer": answer},
        )
        for task, label, answer in (
            ("mnli_matched", 0, "yes"),
            ("mnli_mismatched", "neutral", "it is not possible to tell"),
            ("snli", 2, "no"),
        )
    ],
    ("snli", {**_NLI, "label": -1}, None),
    (
        "qnli",
        {"question": "Who ran?", "sentence": "Ann ran.", "label": 0},
        {"question": "Who ran?", "sentence": "Ann ran.", "options": ["yes", "no"],
         "answer": "yes"},
    ),
    (
        "wnli",
        {"sentence1": "Ann said she won.", "sentence2": "Ann won.", "label": 1},
        {"sentence1": "Ann said she won.", "sentence2": "Ann won.",
         "options": ["no", "yes"], "answer": "yes"},
    ),
    (
        "math_dataset",
        {"question": "b'Solve 2*x = 4 for x.\\n'", "answer": "b'2\\n'"},
        {"question": "Solve 2*x = 4 for x.", "answer": "2"},
    ),
    (
        "quac",
        {**_QUAC, "answers": {"text": ["CANNOTANSWER"], "answer_start": [9]},
         "orig_answer": {"text": "CANNOTANSWER", "answer_start": 9}},
        {**_QUAC, "context": "She ran.", "answer": "unanswerable",
         "references": ["unanswerable"]},
    ),
    (
        "quac",
        {**_QUAC, "answers": [{"text": "She ran.", "answer_start": 0},
                              {"text": "ran", "answer_start": 4}],
         "orig_answer": {"text": "She ran.", "answer_start": 0}},
        {**_QUAC, "context": "She ran.", "answer": "She ran.",
         "references": ["She ran.", "ran"]},
    ),
    *[
        (
            "coqa",
            {**_COQA, "answers": answers},
            {"text": "Ann ran.",
             "numbered_questions": "1. Who?\n2. What did she do?",
             "numbered_answers": "1. Ann\n2. ran"},
        )
        for answers in (
            {"input_text": ["Ann", "ran"], "answer_start": [0, 4]},
            [{"input_text": "Ann"}, {"input_text": "ran"}],
        )
    ],
    (
        "wic",
        {"sentence1": "a bank", "sentence2": "the banks", "word": "bank",
         "label": False},
        {"sentence1": "a bank", "sentence2": "the banks", "word": "bank",
         "options": ["different meanings", "the same meaning"],
         "answer": "different meanings"},
    ),
    (
        "cola",
        {"sentence": "Them sleeps.", "label": 0},
        {"sentence": "Them sleeps.", "options": ["unacceptable", "acceptable"],
         "answer": "unacceptable"},
    ),
    *[
        (
            "trec",
            row,
            {"text": "Where is Rome ?",
             "options": ["description", "entity", "abbreviation", "human", "numeric",
                         "location"],
             "answer": "location"},
        )
        for row in (
            {"text": "Where is Rome ?", "label-coarse": 5, "label-fine": 1},
            {"question": "Where is Rome ?", "coarse_label": "LOC"},
            {"text": "Where is Rome ?", "coarse_label": 4},
        )
    ],
    (
        "record",
        _RECORD,
        {"passage": "Ann met Bob. Bob sang. All cheered", "query": "@placeholder sang",
         "options": ["Ann", "Bob"], "answer": "Bob", "references": ["Bob"]},
    ),
    ("record", {**_RECORD, "answers": []}, None),
    (
        "cosmos_qa",
        {**_COSMOS, "label": 2},
        {"context": "It rained.", "question": "Why?",
         "options": [f"reason {n}" for n in range(4)], "answer": "reason 2"},
    ),
    (
        "lambada",
        {"passage": "she looked at the sea\n"},
        {"sentence": "she looked at the", "answer": "sea"},
    ),
    (
        "unified_qa_science_inst",
        {"input": _SCIENCE, "output": "Table sugar"},
        {"question": "Which is a metal (Q)?",
         "options": ["iron", "salt", "table sugar"], "answer": "table sugar"},
    ),
    ("unified_qa_science_inst", {"input": _SCIENCE, "output": "gold"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "fields"), ROWS)
def test_a_row_becomes_the_fields_of_its_templates(task, row, fields):
    assert MORE[task].fields(row) == fields


def test_every_dataset_has_a_row_tested_above():
    assert len(MORE) == 35
    assert {task for task, _, _ in ROWS} == set(MORE)


def _rendered(task: InstructionTask, count: int):
    """The first rows of the training split under every template."""
    task = dataclasses.replace(task, template_assignment="all")
    renderer = split_renderer(task, "train", 0, False, ByteVocabulary())
    return renderer.examples(0, min(count * len(task.templates()), len(renderer)))


def _check(task: InstructionTask, examples: list[dict]):
    templates = {template.id: template for template in task.templates()}
    assert {example["template_id"] for example in examples} == set(templates)
    usual = f"{{{task.answer_field}}}"
    for example in examples:
        target, row = example["targets"], example["row_id"]
        assert example["inputs"].strip() and target.strip(), row
        assert not _UNFILLED.search(example["inputs"] + target), row
        assert example["shot_ids"] or not task.is_few_shot
        assert exact_match(target, example["references"] or [target]) == 1, row
        if task.has_options and templates[example["template_id"]].targets == usual:
            assert target in example["choices"], row
            assert (
                "OPTIONS" not in example["inputs"] or task.prompt_type[-5:] != "noopt"
            )


def _rows(task: str) -> list[dict]:
    """Fields of the task's hand-written row, and two like it with another text."""
    fields = next(fields for name, _, fields in ROWS if name == task and fields)
    fixed = {DATASETS[task].answer_field, "question" if task == "copa" else "", "word"}
    name = next(n for n in fields if n not in fixed and isinstance(fields[n], str))
    return [{**fields, name: f"{fields[name]} {n}".strip()} for n in ("", "1", "2")]


@pytest.mark.parametrize("task", MORE)
def test_a_row_renders_in_all_forms_with_its_gold_right(task):
    rows = FunctionSource(lambda split: iter(_rows(task)), ("train",), task)
    assert len(BASES[task]) == 5
    for name in BASES[task]:
        form = dataclasses.replace(instruction_task(name), source=rows)
        _check(form, _rendered(form, 3))


# Tasks of which the shared data has files, and the folder they lie in.
SHARED = {
    "copa": "copa",
    "piqa": "piqa",
    "cb": "cb",
    "rte": "rte",
    "mnli_matched": "mnli",
    "mnli_mismatched": "mnli",
    "trec": "trec",
}


@pytest.fixture
def muffin_root(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared files under the tasks' own names."""
    folder = tmp_path / "root" / "muffin"
    folder.mkdir(parents=True)
    for task, name in SHARED.items():
        target = (shared / "data" / "t0sf_muffin" / name).resolve()
        (folder / task).symlink_to(target)
    monkeypatch.setenv("FLANJAX_DATA", str(folder.parent))


@pytest.mark.parametrize("task", SHARED)
def test_real_rows_render_under_every_template(task, muffin_root):
    form = instruction_task(f"{task}_zs_opt")
    assert len(list(form.source.rows("train"))) >= 200
    assert 0 < len(list(form.source.rows("validation"))) <= 200
    _check(form, _rendered(form, 10))


@pytest.mark.slow
@pytest.mark.parametrize("task", SHARED)
def test_all_real_rows_render_in_all_forms(task, muffin_root):
    for name in BASES[task]:
        form = instruction_task(name)
        _check(form, _rendered(form, 10_000))


def test_real_mnli_is_divided_between_its_tasks(muffin_root):
    one, two = (
        {
            row["row_id"]
            for row in instruction_task(f"{name}_zs_opt").source.rows("train")
        }
        for name in ("mnli_matched", "mnli_mismatched")
    )
    assert not one & two and len(one | two) == 2000 - 200
