"""Dialog and program synthesis: which turn is the target, and what prompts show."""

import collections
import json
import re

import pytest

from flanjax.data.examples import split_renderer
from flanjax.data.tasks import instruction_task, task_info
from flanjax.data.templates import TemplateFile
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.eval.scorers import exact_match
from mixtures import dialog, program_synthesis

NAMES = [*dialog.BASES, *program_synthesis.BASES]
DR_REPAIR = ("error_comments", "line_numbers", "no_errors", "plain_code")


def _turns(count):
    return [f"turn {n}" for n in range(count)]


def _wiki(count, title="Rome"):
    return {"title": title, "utterances": ["Hello, ask me.", *_turns(count)]}


def _qrecc(count, **more):
    *context, question, answer = _turns(count)
    row = {"context": context, "question": question, "answer": answer, "turn_id": 7}
    return {**row, "conversation_id": 1, **more}


def _task_master(count):
    speakers = ("USER", "ASSISTANT")
    return {
        "utterances": [
            {"index": n, "speaker": speakers[n % 2], "text": text}
            for n, text in enumerate(_turns(count))
        ]
    }


def test_wiki_dialog_drops_the_greeting_and_asks_for_an_answer():
    row = dialog._wiki_dialog(_wiki(2), "x")
    assert row == {
        "title": "Rome",
        "dialog": ["turn 0"],
        "answer": "turn 1",
        "dialog_lines": "A: turn 0",
    }


def _targets(fields, make, count, salts=400):
    """How often each turn is the target, and the dialog all that came before it."""
    counts = collections.Counter()
    for salt in range(salts):
        row = fields(make(count), str(salt))
        index = len(row["dialog"])
        assert row["dialog"] == _turns(index) and row["answer"] == f"turn {index}"
        counts[index] += 1
    return counts


@pytest.mark.parametrize(
    ("fields", "make"), [(dialog._wiki_dialog, _wiki), (dialog._qrecc, _qrecc)]
)
def test_targets_are_answers_drawn_evenly_up_to_the_twentieth(fields, make):
    assert sorted(_targets(fields, make, 8)) == [1, 3, 5, 7]
    assert min(_targets(fields, make, 8).values()) > 70
    assert max(_targets(fields, make, 60)) == 39
    assert sorted(_targets(fields, make, 5)) == [1, 3]


def test_task_master_asks_for_any_turn_but_the_first_up_to_the_twentieth():
    fields = dialog._task_master
    assert sorted(_targets(fields, _task_master, 5)) == [1, 2, 3, 4]
    assert max(_targets(fields, _task_master, 50)) == 19
    assert fields(_task_master(1), "x") is None


def test_task_master_joins_what_one_speaker_says_in_a_row():
    said = [
        ("USER", "Hi."),
        ("USER", "A pizza."),
        ("ASSISTANT", ""),
        ("ASSISTANT", "?"),
    ]
    row = {"utterances": [{"speaker": who, "text": text} for who, text in said]}
    assert dialog._task_master(row, "x")["dialog"] == ["Hi. A pizza."]
    assert dialog._task_master(row, "x")["answer"] == "?"


def test_a_row_is_cut_at_the_same_turn_each_time_and_elsewhere_when_inverted():
    rows = [_wiki(20, f"title {n}") for n in range(5)]
    rows = [{**row, "utterances": [*row["utterances"], row["title"]]} for row in rows]
    one = [dialog._wiki_dialog(row, "wiki_dialog") for row in rows]
    assert one == [dialog._wiki_dialog(row, "wiki_dialog") for row in rows]
    assert one != [dialog._wiki_dialog(row, "wiki_dialog_inverted") for row in rows]


def test_qrecc_takes_late_rows_with_the_columns_of_either_file():
    assert dialog._qrecc(_qrecc(4, turn_id=6), "x") is None
    row = _qrecc(4)
    original = {"Context": row["context"], "Question": row["question"]}
    original |= {"Answer": row["answer"], "Turn_no": 7}
    assert dialog._qrecc(original, "x") == dialog._qrecc(row, "x") is not None


def test_rows_with_an_empty_turn_are_left_out():
    assert (
        dialog._wiki_dialog({"title": "Rome", "utterances": ["Hi", "a", " "]}, "")
        is None
    )
    assert dialog._wiki_dialog({"title": "Rome", "utterances": ["Hi", "a"]}, "") is None
    assert dialog._qrecc(_qrecc(2, answer=""), "x") is None


BROKEN = {
    "code": "int main() {\n  x = 1;\n}",
    "errors": [{"line": 2, "message": "use of undeclared 'x'"}],
    "fixed": "int main() {\n  int x = 1;\n}",
}


def test_a_broken_program_is_shown_in_four_ways():
    message = "use of undeclared 'x'"
    shown = {
        "error_comments": f"int main() {{\n  x = 1;  // error: {message}\n}}",
        "line_numbers": f"1 int main() {{\n2   x = 1;\n3 }}\n\nline 2: {message}",
        "no_errors": BROKEN["code"],
        "plain_code": f"{BROKEN['code']}\n\n{message}",
    }
    for name, question in shown.items():
        fields = getattr(program_synthesis, f"_{name}")
        assert fields(BROKEN) == {"question": question, "answer": BROKEN["fixed"]}


def test_an_error_beyond_the_program_is_refused_and_one_at_its_end_is_not():
    at_end = {**BROKEN, "errors": [{"line": 4, "message": "expected '}'"}]}
    shown = program_synthesis._error_comments(at_end)["question"]
    assert shown.endswith("}  // error: expected '}'")
    beyond = {**BROKEN, "errors": [{"line": 9, "message": "no"}]}
    with pytest.raises(ValueError, match="line 9 of 3"):
        program_synthesis._line_numbers(beyond)


def test_code_contests_give_a_solution_in_python_3():
    row = {
        "description": "Add.",
        "solutions": {"language": [2, 3], "solution": ["c", "p"]},
    }
    assert program_synthesis._dmcc_python(row) == {"question": "Add.", "answer": "p"}
    row = {"description": "Add.", "solutions": {"language": [2], "solution": ["c"]}}
    assert program_synthesis._dmcc_python(row) is None
    plain = {"description": "Add.", "solutions": ["print()\n"]}
    assert program_synthesis._dmcc_python(plain)["answer"] == "print()"


@pytest.mark.parametrize("name", NAMES)
def test_a_base_has_ten_templates_and_the_opt_prompt_types(name):
    tasks = (dialog.BASES | program_synthesis.BASES)[name]
    assert tasks == (f"{name}_zs_opt", f"{name}_fs_opt", f"{name}_fs_opt_mix")
    info = task_info(tasks[0])
    assert (
        len(info["template_hashes"]) == 10 == len(set(info["template_hashes"].values()))
    )
    templates = TemplateFile(info["template_file"])[name].load()
    inverted = name.endswith("_inverted")
    usual = {True: "{dialog_lines}", False: "{answer}"}[inverted]
    if info["collection"] == "program_synthesis" and inverted:
        usual = "{question}"
    shown = "answer" if inverted else "dialog_"
    shown = shown if inverted or name in dialog.BASES else "question"
    for template in templates:
        assert template.targets == usual and shown in template.fields, template.id


@pytest.fixture
def own_rows(tmp_path, monkeypatch):
    """A data root with rows of every set, enough to reserve some."""
    numbers = range(215)
    rows = {
        "dialog/wiki_dialog": [_wiki(4, f"Topic {n}") for n in numbers],
        "dialog/qrecc": [_qrecc(4, question=f"Question {n}?") for n in numbers],
        "dialog/task_master": [_task_master(4) for n in numbers],
        "program_synthesis/dmcc_python": [
            {"description": f"Print {n}.", "solutions": [f"print({n})"]}
            for n in numbers
        ],
        "program_synthesis/dr_repair": [
            {**BROKEN, "code": f"// {n}\n{BROKEN['code']}"} for n in numbers
        ],
    }
    for row in rows["dialog/wiki_dialog"]:
        row["utterances"] = [f"{text} of {row['title']}" for text in row["utterances"]]
    for number, row in enumerate(rows["dialog/task_master"]):
        for utterance in row["utterances"]:
            utterance["text"] += f" of {number}"
    for folder, each in rows.items():
        (tmp_path / folder).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in each)
        (tmp_path / folder / "train.jsonl").write_text(text)
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_examples_have_inputs_targets_and_a_correct_gold(name, own_rows):
    for task in map(instruction_task, (dialog.BASES | program_synthesis.BASES)[name]):
        renderer = split_renderer(task, "train", 0, True, ByteVocabulary())
        examples = renderer.examples(0, min(20, len(renderer)))
        templates = {example["template_id"] for example in examples}
        assert len(templates) == min(10, len(examples))
        for example in examples:
            inputs, target = example["inputs"], example["targets"]
            assert inputs.strip() and exact_match(target, [target])
            assert not re.search(r"\{[a-z_]+\}", inputs + target)
            assert example["shot_ids"] or not task.is_few_shot
