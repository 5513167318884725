"""Held-out sets: the real files, in the numbers that their authors publish."""

import re

import pytest

from flanjax.errors import DataError
from flanjax.eval.records import score_record
from flanjax.eval.suites import resolve_evals
from mixtures import (
    heldout,
    heldout_bbh,
    heldout_mmlu,
    heldout_multilingual,
)
from mixtures.heldout_files import EXEMPLARS, read_exemplars, read_json, read_text

TASKS = list(heldout.held_out())
BY_BASE = {task.base: task for task in TASKS}


def _rows(base: str, split: str = "test") -> list[dict]:
    return list(BY_BASE[base].source.rows(split))


def test_the_real_sets_have_their_published_sizes(data_root):
    sizes = {}
    for task in TASKS:
        if not task.base.startswith("niv2_test"):
            rows = list(task.source.rows("test"))
            assert len({row["row_id"] for row in rows}) == len(rows)
            sizes[task.base] = len(rows)
    by_suite: dict[str, int] = {}
    for base, size in sizes.items():
        suite = BY_BASE[base].suite
        by_suite[suite] = by_suite.get(suite, 0) + size
    odd = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
    for subtask in heldout_bbh.SUBTASKS:
        assert sizes[f"bbh_{subtask}"] == odd.get(subtask, 250)
    tydiqa = {"ar": 921, "bn": 113, "fi": 782, "id": 565, "ko": 276, "ru": 812,
              "sw": 499, "te": 669, "en": 440}  # fmt: skip
    assert {code: sizes[f"tydiqa_{code}"] for code in tydiqa} == tydiqa
    assert all(sizes[f"mgsm_{code}"] == 250 for code in heldout_multilingual.MGSM)
    # Twice: direct and with chain of thought.
    assert {suite: by_suite[suite] for suite in by_suite if suite not in
            ("tydiqa", "mgsm")} == {
        "mmlu": 14042, "mmlu_cot": 14042, "bbh": 6511, "bbh_cot": 6511,
        "svamp": 2 * 1000, "asdiv": 2 * 2096, "gsm8k": 2 * 1319, "aqua": 2 * 254,
        "commonsense_qa": 2 * 1221}  # fmt: skip
    assert len(_rows("aqua", "dev")) == 254


def test_the_real_exemplars_have_their_published_numbers(data_root):
    subjects = [name for group in heldout_mmlu.SUBJECTS.values() for name in group]
    assert sum(len(_rows(f"mmlu_{name}", "dev")) for name in subjects) == 285
    four = {
        name for name in subjects if len(_rows(f"mmlu_cot_{name}", "exemplars")) != 5
    }
    assert four == {"college_chemistry", "formal_logic", "human_aging"}
    for subtask in heldout_bbh.SUBTASKS:
        assert len(_rows(f"bbh_cot_{subtask}", "exemplars")) == 3
    for code in heldout_multilingual.MGSM:
        assert len(_rows(f"mgsm_{code}", "exemplars")) == 8


def test_flawed_items_of_the_real_bbh_are_those_listed(data_root):
    found: dict[str, dict[int, str]] = {}
    for subtask in heldout_bbh.SUBTASKS:
        rows = _rows(f"bbh_{subtask}")
        counts = sorted(len(row["options"]) for row in rows)
        for number, row in enumerate(rows, start=1):
            fewest = counts[1] if len(row["options"]) == counts[0] else counts[0]
            what = heldout_bbh.flaw(row, fewest)
            if what:
                found.setdefault(subtask, {})[number] = what
    assert found == heldout_bbh.FLAWED


def test_our_exemplars_are_in_none_of_the_sets(data_root):
    own = {
        _words(row["question"])
        for group in ("word_problems", "commonsense", "algebra")
        for row in read_exemplars(EXEMPLARS, group=group)
    }
    for base in ("svamp", "asdiv", "gsm8k", "aqua", "commonsense_qa_heldout"):
        assert not own & {_words(row["question"]) for row in _rows(base)}


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _present(task) -> bool:
    try:
        next(task.source.rows("test"))
    except DataError:
        return False
    return True


def test_every_gold_answer_of_the_real_sets_scores_as_right(data_root):
    """All rows of all sets: the rendered target is what its eval calls right."""
    tasks = [task for task in TASKS if _present(task)]
    assert len(tasks) > 215
    for task in tasks:
        [spec] = resolve_evals([task.evaluation or task.base])
        [template] = [
            t for t in task.templates.load() if task.prompt_type in t.prompt_types
        ]

        def fill(row, answer, template=template, field=task.answer_field):
            return template.targets.format(**{**row, field: answer}).strip()

        for row in task.source.rows("test"):
            target = fill(row, row[task.answer_field])
            golds = [target, *(fill(row, a) for a in row.get("references", ()))]
            options = () if task.cot else row.get("options", ())
            scores = score_record(
                {
                    "output": target.split(spec.stop[0])[0],
                    "gold": list(dict.fromkeys(golds)),
                    "choices": [fill(row, option) for option in options],
                    "extractor": spec.extractor,
                    "style": spec.style,
                    "scorers": spec.scorers,
                }
            )["scores"]
            wrong = [name for name in spec.scorers if scores[name] != 1.0]
            assert not wrong, (task.base, row["row_id"], target, wrong)


@pytest.mark.slow
def test_real_prompts_are_the_published_texts(data_root, shared, first_examples):
    """Character by character, as long as they fit into the token budget."""
    vocabulary = f"sentencepiece:{shared}/data/tokenizer/t5_spiece_rebuilt.model"
    folder = data_root / "eval"
    mmlu = read_json(folder / "mmlu" / "flan_cot_prompts.json.gz")
    published = {f"mmlu_cot_{name}": text for name, text in mmlu.items()}
    for subtask in heldout_bbh.SUBTASKS:
        text = read_text(folder / "bbh" / "cot-prompts" / f"{subtask}.txt")
        published[f"bbh_cot_{subtask}"] = text.split("\n-----\n")[1]
    whole = 0
    for base, text in published.items():
        [example] = first_examples(f"{base}_fs_opt", "test", vocabulary, count=1)
        prompt = example["inputs_pretokenized"].decode()
        # One subject has an exemplar twice.
        heading, *blocks = dict.fromkeys(re.split(r"\n\n(?=Q: )", text.strip()))
        kept = blocks[: len(example["shot_ids"])]
        whole += kept == blocks
        assert prompt.startswith("\n\n".join([heading, *kept]) + "\n\nQ: ")
        assert prompt.endswith("\nA: Let's think step by step.")
        assert len(example["inputs"]) <= heldout.MAX_PROMPT_TOKENS
    assert whole >= len(published) - 6  # History and law have long texts.
