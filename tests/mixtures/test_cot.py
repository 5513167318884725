"""Chain of thought: rows, templates of both directions, and what is read of targets."""

import collections
from typing import Any

import pytest
import seqio

from flanjax.data.tasks import instruction_task
from flanjax.data.templates import Template, load_templates, parse
from flanjax.errors import DataError
from flanjax.eval.extract import strict
from mixtures import cot

FORWARD = load_templates(cot.TEMPLATES / "cot.toml")
INVERTED = load_templates(cot.TEMPLATES / "cot_inverted.toml")["cot_inverted"]
FIELDS = frozenset({"question", "answer", "rationale"})
SHARED_LINES = {
    "gsm8k": 7_473,
    "creak": 6_915,
    "ecqa": 7_112,
    "sensemaking": 6_070,
    "aqua": 2_728,
}
LINES = "\n".join(
    rf"What is {n} + 1?\nOptions:\n- x	{n + 1}	First {n}.\nThen {n} + 1 = {n + 1}."
    for n in range(40)
)


def _fill(text: str, row: dict[str, str]) -> str:
    return "".join(literal + row.get(name or "", "") for literal, name in parse(text))


def _fields(text: str) -> set[str]:
    return {name for _, name in parse(text) if name}


def _of(base: str, prompt_type: str) -> list[Template]:
    return [t for t in FORWARD[base] if prompt_type in t.prompt_types]


def _answer_first(template: Template) -> bool:
    return template.targets.index("{answer}") < template.targets.index("{rationale}")


def _prompts(task):
    source: Any = seqio.TaskRegistry.get(task).source
    chunks = source.plain_examples("train", True, 0)
    return [example for chunk in chunks for example in chunk]


@pytest.fixture
def cot_folder(tmp_path, monkeypatch):
    """The folder of CoT files in an empty data root."""
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    (tmp_path / "cot").mkdir()
    return tmp_path / "cot"


def test_there_are_nine_sets_and_the_paper_uses_74730_of_their_lines():
    assert len(cot.FORWARD) == len(cot.INVERTED) == len(cot.SETS) == 9
    assert sum(each.used for each in cot.SETS.values()) == 74_730
    assert cot.SETS["gsm8k"].used == 7_470 and cot.SETS["aqua"].used == 2_715


def test_every_set_has_its_templates():
    assert set(FORWARD) == {each.base for each in cot.SETS.values()}
    for each in cot.SETS.values():
        assert len(_of(each.base, "zs_opt")) == each.rounds_of
        assert len(_of(each.base, "fs_opt")) == 10
        texts = [(t.inputs, t.targets) for t in _of(each.base, "zs_opt")]
        assert len(set(texts)) == each.rounds_of


def test_thirteen_few_shot_templates_put_the_answer_first_and_are_not_mixed():
    few_shot = [t for base in FORWARD for t in _of(base, "fs_opt")]
    first = [t for t in few_shot if _answer_first(t)]
    assert (len(few_shot), len(first)) == (90, 13)
    assert not any(t.in_template_mix for t in first)
    assert not any(_answer_first(t) for base in FORWARD for t in _of(base, "zs_opt"))


@pytest.mark.parametrize("answer", ["72", "-1,234.50", "(C)", "yes", "Sentence A",
                                    "it is not possible to tell"])  # fmt: skip
def test_the_answer_is_read_from_every_target(answer):
    row = {"question": "Q?", "answer": answer, "rationale": "One thing.\nThe other."}
    for template in (t for group in FORWARD.values() for t in group):
        target = _fill(template.targets, row)
        if _answer_first(template):
            assert target.removeprefix("The answer is ").startswith(answer)
        else:
            assert target.startswith(row["rationale"]), template.id
            assert strict(target, style="cot") == answer, template.id


def test_inversion_asks_for_each_part_in_the_public_proportions():
    kinds = collections.Counter(
        (frozenset(_fields(t.inputs)), frozenset(_fields(t.targets))) for t in INVERTED
    )
    part = {name: frozenset({name}) for name in FIELDS}
    assert kinds == {
        (part["rationale"], FIELDS - part["rationale"]): 6,
        (FIELDS - part["rationale"], part["rationale"]): 5,
        (part["answer"], FIELDS - part["answer"]): 4,
        (FIELDS - part["question"], part["question"]): 3,
    }


def test_a_prompt_holds_the_question_and_a_target_the_rationale(cot_folder):
    (cot_folder / "gsm8k_train.tsv").write_text(LINES)
    zero_shot = _prompts("cot_gsm8k_zs_opt")
    assert len(zero_shot) == 40 and len({e["template_id"] for e in zero_shot}) == 10
    for e in zero_shot:
        answer = strict(e["targets"], style="cot")
        assert (
            answer and f"What is {int(answer) - 1} + 1?\nOptions:\n- x" in e["inputs"]
        )
        assert f"\nThen {int(answer) - 1} + 1 = {answer}." in e["targets"]
        assert "Then" not in e["inputs"] and not e["choices"]
    for form, fewest, most in (("fs_opt", 2, 3), ("fs_opt_mix", 5, 5)):
        for e in _prompts(f"cot_gsm8k_{form}"):
            assert fewest <= e["inputs"].count("\nThen") <= most
            assert e["row_id"] not in e["shot_ids"]


def test_an_inverted_task_asks_for_what_it_does_not_show(cot_folder):
    (cot_folder / "gsm8k_train.tsv").write_text(LINES)
    examples = _prompts("cot_inverted_gsm8k_zs_opt")
    assert len({e["template_id"] for e in examples}) == 18
    for e in examples:
        for part in ("What is", "Then"):
            assert (part in e["inputs"]) != (part in e["targets"]), e["template_id"]


def test_rows_that_lack_a_part_are_passed_over(cot_folder):
    lines = ["Q1\tA\tR", "Q2\t\tR", "Q3\tA\t ", "\tA\tR", r"Q5\n	A.	R"]
    (cot_folder / "qed_train.tsv").write_text("\n".join(lines))
    rows = list(cot.source("qed").rows("train"))
    assert [(row["question"], row["answer"]) for row in rows] == [
        ("Q1", "A"),
        ("Q5", "A"),
    ]


def test_a_line_of_two_columns_is_an_error_that_names_it(cot_folder):
    (cot_folder / "qed_train.tsv").write_text("Q1\tA\tR\nQ2\tA")
    with pytest.raises(DataError, match="2 columns, expected 3") as caught:
        list(cot.source("qed").rows("train"))
    assert "qed_train.tsv:2" in str(caught.value)


def test_a_missing_file_is_an_error_that_says_where_it_is_from(cot_folder):
    with pytest.raises(
        DataError, match="'esnli_train.tsv' or 'esnli_train.tsv.gz'"
    ) as e:
        instruction_task("cot_esnli_zs_opt").fingerprint("train")
    assert "google-research/FLAN" in str(e.value) and str(cot_folder) in str(e.value)


@pytest.mark.parametrize("name", SHARED_LINES)
def test_the_public_files_have_the_stated_lines(name, shared, data_root):
    rows = list(cot.source(name).rows("train"))
    assert len(rows) == cot.SETS[name].lines == SHARED_LINES[name]
    templates = _of(cot.SETS[name].base, "zs_opt")
    for number, row in enumerate(rows):
        target = _fill(templates[number % len(templates)].targets, row)
        assert strict(target, style="cot") == row["answer"], row["row_id"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED_LINES)
def test_the_public_files_render_in_every_form(name, shared, data_root):
    for base in (cot.SETS[name].base, f"cot_inverted_{name}"):
        for task in cot.BASES[base]:
            examples = _prompts(task)
            assert len(examples) > 1000
            assert all(e["inputs"].strip() and e["targets"].strip() for e in examples)
