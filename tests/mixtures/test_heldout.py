"""Held-out sets, on tiny files in the published formats, worded for these tests."""

import ast
import gzip
import json
import re
import time
from pathlib import Path

import pytest
import seqio

from flanjax.errors import DataError
from flanjax.eval.suites import resolve_evals
from mixtures import (
    heldout,
    heldout_bbh,
    heldout_mmlu,
)
from mixtures.heldout_files import EXEMPLARS, read_exemplars

TASKS = list(heldout.held_out())
BY_BASE = {task.base: task for task in TASKS}

MMLU = [("Which is red?", "grass", "blood", "milk", "coal", "B"),
        ("Two\nlines, a comma?", "one", "two", "three", "four", "A"),
        ("Which flies?", "cow", "cat", "gull", "ant", "C"),
        ("Two\nlines, a query?", "one", "two", "three", "four", "D")]  # fmt: skip
MMLU_COT = """The following are multiple choice questions (with answers) about anatomy.

Q: Which has toes?
(A) a foot (B) an ear (C) a lung (D) a tongue
A: Let's think step by step. Toes grow at the end of it. The answer is (A).

Q: First line of two.
Which one hears?
(A) a foot (B) an ear (C) a lung (D) a tongue
A: Let's think step by step. Hearing is done
with it. The answer is (B)."""
BBH_PROMPT = """DO NOT TRAIN ON THIS FILE
-----
Find the odd word.

Q: Which is odd?
Options:
(A) red
(B) dog
A: Let's think step by step.
Red is a colour.
A dog is not. So the answer is (B).

Q: Which is odd?
Options:
(A) one
(B) owl
A: Let's think step by step.
An owl is no number. So the answer is (B)."""
BBH_ITEMS = [("Which is odd?\nOptions:\n(A) up\n(B) cup", "(B)"),
             ("Which is odd?\nOptions:\n(A) fork", "(A)"),
             ("Which is odd?\nOptions:\n(A) a\n(B) b\n(C) c", "a, b")]  # fmt: skip
SPORTS_PROMPT = BBH_PROMPT.replace("step.\n", "step. ")
GERMAN = {
    "1": {"q": "Frage: Wie viel ist 2 und 3?",
          "a": "Antwort: Das sind 2 + 3 = 5. Es sind 5."},
    "2": {"q": "Frage: Wie viel ist 4 mal 2?", "a": "Antwort: 4 * 2 = 8. Es sind 8."},
}  # fmt: skip
NIV2 = {
    "Definition": ["Say whether the second word is made of the first."],
    "Positive Examples": [
        {"input": "bread, flour", "output": "yes", "explanation": "It is."},
        {"input": "bread, iron", "output": "no", "explanation": "It is not."},
        {"input": "ice, water", "output": "yes", "explanation": "It is."},
    ],
    "Instances": [
        {"id": f"t-{n}", "input": f"thing {n}, stuff", "output": ["no", "not"]}
        for n in range(120)
    ],
}


def _questions(language: str, number: int) -> dict:
    qas = [
        {
            "id": f"{language}-{number}-{n}",
            "question": f"Who is number {n}?",
            "answers": [{"text": "Ada", "answer_start": 0}] * 2
            + [{"text": "Ada Bo", "answer_start": 0}],
        }
        for n in range(2)
    ]
    return {"title": "x", "paragraphs": [{"context": f"Ada Bo {number}.", "qas": qas}]}


def _write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_tiny_sets(root: Path) -> None:
    """Writes two or three rows of each kind of set below a data root."""
    csv = [",".join(f'"{c}"' for c in row) + "\n" for row in MMLU]
    files = {
        "mmlu/dev/anatomy_dev.csv": "".join(csv[:2]),
        "mmlu/test/anatomy_test.csv": "".join(csv[2:]),
        "mmlu/flan_cot_prompts.json.gz": {"anatomy": MMLU_COT},
        "bbh/cot-prompts/snarks.txt": BBH_PROMPT,
        "bbh/cot-prompts/sports_understanding.txt": SPORTS_PROMPT,
        "bbh/data/snarks.json": {
            "canary": "x",
            "examples": [{"input": q, "target": a} for q, a in BBH_ITEMS],
        },
        "bbh/data/sports_understanding.json": {
            "examples": [{"input": "Is it so?", "target": "no"}]
        },
        "tydiqa_goldp/korean_dev.json.gz": {"data": [_questions("korean", 7)]},
        "tydiqa_goldp/korean_train.json": {"data": [_questions("korean", 1)]},
        "tydiqa_goldp/finnish_dev.json": {"data": [_questions("finnish", 1)]},
        "mgsm/exemplars.json": {"MGSM_EXEMPLARS": {"de": GERMAN}},
        "mgsm/mgsm_de.tsv": "Wie viel ist 1 und 1?\t2\nWie viel sind es?\t2,125\n",
        "SVAMP.json": [{"Body": "Al has 3 eggs", "Question": "How many?",
                        "Answer": 3.0}],
        "asdiv.jsonl.gz": _lines([{"input": "One and one? ", "target": 2}]),
        "gsm8k_test.jsonl": _lines([{"question": "So?",
                                     "answer": "It is <<1+1=2>>2.\n#### 1,234"}]),
        "aqua_test.jsonl": _lines([{"question": "So?", "correct": "B",
                                    "options": ["A)1", "B) 2", "C)3", "D)4", "E)5"]}]),
        "commonsenseqa_dev_rand_split.jsonl": _lines(
            [{"answerKey": "C", "id": "x", "question": {"stem": "Where?", "choices": [
                {"label": letter, "text": f"place {letter}"} for letter in "ABCDE"]}}]
        ),
    }  # fmt: skip
    for name, content in files.items():
        _write(root / "eval" / name, content)
    _write(root / "niv2" / "tasks" / "task1388_cb_entailment.json", NIV2)
    _write(root / "niv2" / "tasks" / "task1529_scitail1.1_classification.json", NIV2)


@pytest.fixture
def tiny_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_sets(tmp_path)
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    return tmp_path


def _rows(base: str, split: str = "test") -> list[dict]:
    return list(BY_BASE[base].source.rows(split))


def _prompts(first_examples, task: str, count: int = 3) -> list[tuple[str, str]]:
    examples = first_examples(task, "test", count=count)
    texts = ("inputs_pretokenized", "targets_pretokenized")
    return sorted(tuple(e[name].decode() for name in texts) for e in examples)


# --- names ----------------------------------------------------------------------------


def test_suites_have_the_published_number_of_tasks_and_english_stays_out():
    sizes = {"mmlu": 57, "mmlu_cot": 57, "bbh": 27, "bbh_cot": 27, "tydiqa": 8,
             "tydiqa_zero_shot": 8, "mgsm": 10, "svamp": 2, "asdiv": 2, "gsm8k": 2,
             "aqua": 2, "commonsense_qa": 2, "niv2_test": 119}  # fmt: skip
    for suite, size in sizes.items():
        names = [spec.name for spec in resolve_evals([suite])]
        assert len(names) == size and not any(name.endswith("_en") for name in names)
    assert len(resolve_evals(["heldout"])) == sum(sizes.values()) - 8
    assert resolve_evals(["tydiqa_en", "mgsm_en"])


def test_bbh_has_twelve_language_and_fifteen_algorithmic_subtasks():
    assert (len(heldout_bbh.NLP), len(heldout_bbh.ALGORITHMIC)) == (12, 15)
    assert len(set(heldout_bbh.SUBTASKS)) == 27
    assert [len(names) for names in heldout_mmlu.SUBJECTS.values()] == [18, 13, 12, 14]


def test_every_eval_has_its_task_and_every_base_is_named_as_held_out():
    registered = set(seqio.TaskRegistry.names())
    for spec in resolve_evals(["heldout", "tydiqa_zero_shot"]):
        assert spec.task in registered
    assert set(BY_BASE) == heldout.HELD_OUT_BASES
    tasks = [name for names in heldout.BASES.values() for name in names]
    assert len(tasks) == len(set(tasks)) and set(tasks) <= registered


def test_declaring_everything_takes_no_time_and_no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path / "nothing"))
    start = time.perf_counter()
    bases = {task.base for task in heldout.held_out()}
    assert time.perf_counter() - start < 1.0
    assert bases == heldout.HELD_OUT_BASES


# --- prompts --------------------------------------------------------------------------

PROMPTS = {
    "mmlu_anatomy_fs_opt": (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "Q: Which is red?\n(A) grass (B) blood (C) milk (D) coal\nA: (B)\n\n"
        "Q: Two\nlines, a comma?\n(A) one (B) two (C) three (D) four\nA: (A)\n\n"
        "Q: Two\nlines, a query?\n(A) one (B) two (C) three (D) four\nA:",
        "(D)",
    ),
    "mmlu_cot_anatomy_fs_opt": (
        MMLU_COT + "\n\nQ: Two\nlines, a query?\n(A) one (B) two (C) three (D) four\n"
        "A: Let's think step by step.",
        "The answer is (D).",
    ),
    "bbh_sports_understanding_fs_opt": (
        "Find the odd word.\n\n"
        "Q: Which is odd?\nOptions:\n(A) red\n(B) dog\nA: (B)\n\n"
        "Q: Which is odd?\nOptions:\n(A) one\n(B) owl\nA: (B)\n\n"
        "Q: Is it so?\nA:",
        "no",
    ),
    "bbh_cot_sports_understanding_fs_opt": (
        SPORTS_PROMPT.split("-----\n")[1] + "\n\nQ: Is it so?\n"
        "A: Let's think step by step.",
        "So the answer is no.",
    ),
    "bbh_cot_snarks_fs_opt": (
        BBH_PROMPT.split("-----\n")[1] + "\n\nQ: Which is odd?\nOptions:\n(A) fork\n"
        "A: Let's think step by step.",
        "So the answer is (A).",
    ),
    "tydiqa_ko_fs_noopt": (
        "글을 읽고 글에 나온 말로 질문에 답하세요.\n\n"
        "글: Ada Bo 1.\n질문: Who is number 0?\n답: Ada\n\n"
        "글: Ada Bo 7.\n질문: Who is number 0?\n답:",
        "Ada",
    ),
    "tydiqa_fi_zs_noopt": (
        "Lue teksti ja vastaa kysymykseen siitä poimituilla sanoilla.\n\n"
        "Teksti: Ada Bo 1.\nKysymys: Who is number 0?\nVastaus:",
        "Ada",
    ),
    "mgsm_de_fs_opt": (
        "Frage: Wie viel ist 2 und 3?\nAntwort: Das sind 2 + 3 = 5. Es sind 5.\n\n"
        "Frage: Wie viel ist 4 mal 2?\nAntwort: 4 * 2 = 8. Es sind 8.\n\n"
        "Frage: Wie viel ist 1 und 1?\nAntwort:",
        "2",
    ),
    "niv2_test_task1529_scitail1_fs_noopt": (
        "Say whether the second word is made of the first.\n\n"
        "Input: bread, flour\nOutput: yes\n\nInput: bread, iron\nOutput: no\n\n"
        "Input: thing 0, stuff\nOutput:",
        "no",
    ),
}


@pytest.mark.parametrize("task", PROMPTS)
def test_a_prompt_is_header_exemplars_in_order_and_the_query(
    tiny_root, first_examples, task
):
    found = _prompts(first_examples, task, count=200)
    assert PROMPTS[task] in found


def test_own_exemplars_stand_before_questions_with_and_without_rationale(
    tiny_root, first_examples
):
    [(direct, target)] = _prompts(first_examples, "gsm8k_fs_noopt")
    own = list(read_exemplars(EXEMPLARS, group="word_problems"))
    shots = [f"Q: {row['question']}\nA: {row['answer']}\n\n" for row in own]
    assert (direct, target) == ("".join(shots) + "Q: So?\nA:", "1234")
    [(cot, target)] = _prompts(first_examples, "commonsense_qa_heldout_cot_fs_opt")
    assert cot.count("The answer is (") == 7 and target == "The answer is (C)."
    assert cot.endswith(
        "Q: Where?\n(A) place A (B) place B (C) place C (D) place D (E) place E\nA:"
    )
    [(_, target)] = _prompts(first_examples, "aqua_fs_opt")
    assert target == "(B)"
    [(prompt, target)] = _prompts(first_examples, "svamp_cot_fs_opt")
    assert prompt.endswith("Q: Al has 3 eggs. How many?\nA:")
    assert target == "The answer is 3."


def test_a_long_question_loses_exemplars_but_is_kept(tiny_root, first_examples):
    path = tiny_root / "eval" / "mmlu" / "test" / "anatomy_test.csv"
    path.write_text(f'"{"long " * 1000}?","a","b","c","d","A"\n')
    [example] = first_examples("mmlu_anatomy_fs_opt", "test")
    assert len(example["shot_ids"]) == 0
    assert example["inputs_pretokenized"].decode().startswith("The following are")


def test_options_have_a_likelihood_where_the_prompt_lists_them(
    tiny_root, first_examples
):
    [example] = first_examples("bbh_sports_understanding_fs_opt", "test")
    assert [choice.decode() for choice in example["choices"]] == ["yes", "no"]
    [example] = first_examples("bbh_cot_sports_understanding_fs_opt", "test")
    assert not len(example["choices"])
    direct, cot = resolve_evals(["bbh_snarks", "bbh_cot_snarks"])
    assert direct.score_choices and not cot.score_choices


# --- reading --------------------------------------------------------------------------


def test_references_and_ids_of_gold_passages_are_the_published_ones(tiny_root):
    first = _rows("tydiqa_ko")[0]
    assert first["references"] == ["Ada", "Ada Bo"]
    assert first["row_id"] == "korean-7-0"


def test_one_file_of_all_languages_does_instead_of_one_for_each(tiny_root):
    folder = tiny_root / "eval" / "tydiqa_goldp"
    both = [_questions("korean", 3), _questions("finnish", 4)]
    _write(folder / "tydiqa-goldp-v1.1-train.json", {"data": both})
    assert [row["row_id"] for row in _rows("tydiqa_fi", "train")] == [
        "finnish-4-0",
        "finnish-4-1",
    ]
    assert _rows("tydiqa_ko", "train")[0]["row_id"] == "korean-1-0"


def test_published_exemplars_in_python_are_read_and_never_run(tiny_root):
    folder = tiny_root / "eval" / "mgsm"
    before = _rows("mgsm_de", "exemplars")
    (folder / "exemplars.json").unlink()
    text = f"import os\nos.abort()\nMGSM_EXEMPLARS = {{'de': {GERMAN!r}}}\n"
    assert ast.parse(text)
    (folder / "exemplars.py").write_text(text)
    after = _rows("mgsm_de", "exemplars")
    assert [dict(row, row_id="") for row in after] == [
        dict(row, row_id="") for row in before
    ]


def test_numbers_with_a_thousands_comma_become_digits(tiny_root):
    assert [row["solution"] for row in _rows("mgsm_de")] == ["2", "2125"]
    assert _rows("gsm8k")[0]["answer"] == "1234"


def test_the_official_hundred_instances_of_a_task_count(tiny_root):
    rows = _rows("niv2_test_task1388_cb_entailment")
    assert [row["row_id"] for row in rows] == [f"t-{n}" for n in range(100)]
    assert rows[0]["references"] == ["no", "not"]


def test_flawed_items_are_found_by_rule(tiny_root):
    rows = _rows("bbh_snarks")
    assert [heldout_bbh.flaw(row, 2) for row in rows] == [
        None,
        "a single option",
        "the answer is not an option",
    ]
    fewer = {**rows[0], "answer": "(A)"}
    assert heldout_bbh.flaw(fewer, 4) == "2 options, the others have 4 or more"


def test_a_missing_file_is_named_with_its_place_and_source_when_it_is_used(tiny_root):
    with pytest.raises(DataError, match="val/anatomy_val.csv") as error:
        _rows("mmlu_anatomy", "validation")
    assert "hendrycks/test" in str(error.value)
    with pytest.raises(DataError) as error:
        _rows("tydiqa_fi", "train")
    for name in ("finnish_train.json", "tydiqa-goldp-v1.1-train.json", "FLANJAX_DATA"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "file, content, base",
    [
        ("mmlu/test/anatomy_test.csv", '"q","a","b","c","d","E"\n', "mmlu_anatomy"),
        ("mmlu/flan_cot_prompts.json.gz", {"anatomy": "h\n\nQ: ?"}, "mmlu_cot_anatomy"),
        ("bbh/cot-prompts/snarks.txt", "no canary", "bbh_snarks"),
        ("bbh/data/snarks.json", "{", "bbh_snarks"),
        ("mgsm/mgsm_de.tsv", "Wie viel?\teins\n", "mgsm_de"),
        ("SVAMP.json", [{"Body": "x"}], "svamp"),
    ],
)
def test_a_file_that_is_not_as_published_is_named(tiny_root, file, content, base):
    _write(tiny_root / "eval" / file, content)
    with pytest.raises(DataError) as error:
        _rows(base)
    assert file.rsplit("/", 1)[-1].split(".")[0] in str(error.value)


def test_a_changed_file_changes_the_fingerprint(tiny_root):
    source = BY_BASE["svamp"].source
    before = source.fingerprint("test")
    assert before == source.fingerprint("test")
    item = {"Body": "b", "Question": "q?", "Answer": 12.0}
    _write(tiny_root / "eval" / "SVAMP.json", [item])
    assert source.fingerprint("test") != before


def test_our_exemplars_are_right():
    for row in read_exemplars(EXEMPLARS, group="word_problems"):
        sums = re.findall(r"(\d+) ([*/+-]) (\d+) = (\d+)", row["rationale"])
        for left, sign, right, result in sums:
            a, b = int(left), int(right)
            value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
            assert value == int(result)
        assert sums[-1][-1] == row["answer"]
    for group, count in (("commonsense", 7), ("algebra", 4)):
        rows = list(read_exemplars(EXEMPLARS, group=group))
        assert len(rows) == count
        assert all(row["answer"] in row["options"] for row in rows)
        assert all(len(row["options"]) == 5 for row in rows)


def test_no_canary_of_a_held_out_set_is_in_this_package():
    folder = Path(heldout.__file__).parent
    for path in [
        *folder.rglob("*.toml"),
        *folder.rglob("*.tsv"),
        *folder.rglob("*.py"),
    ]:
        assert not re.search(r"GUID\W+\w{8}-\w{4}", path.read_text(encoding="utf-8"))
