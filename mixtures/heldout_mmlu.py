r"""MMLU: 57 subjects, answered directly or after a chain of thought.

Files, in the folder `eval/mmlu` of the data root:

    {dev,val,test}/<subject>_{dev,val,test}.csv   https://github.com/hendrycks/test
    flan_cot_prompts.json                         https://github.com/jasonwei20/flan-2

The direct prompt has the five rows of `dev` in their order, under the header sentence
of https://github.com/hendrycks/test/blob/master/evaluate.py, in the layout of the
published chain-of-thought prompts: options "(A) ... (B) ..." on one line, answers
"(C)". The chain-of-thought prompt is the published text, character by character, so
that scores can be compared with published ones. That text has flaws, which are left:
four exemplars instead of five for college_chemistry, formal_logic and human_aging, and
for college_physics a first one that comes twice (here once);
LaTeX commands whose backslash and next letter were read as a control character
("\frac" became a form feed or a newline and "rac") in abstract_algebra,
college_biology, college_chemistry, college_mathematics and high_school_chemistry; and,
in abstract_algebra, the end of the first rationale at the start of the second question.

Papers report the test split or (Chung et al. 2022, most tables) validation:
`dataclasses.replace(spec, split="validation")`. https://arxiv.org/abs/2009.03300
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from flanjax.data.readers import Row, open_file, read_csv
from mixtures.heldout_files import (
    EvalFiles,
    HeldOut,
    Part,
    lettered,
    parse_exemplars,
    read_json,
    templates,
)

# The four groups of https://github.com/hendrycks/test/blob/master/categories.py
SUBJECTS: dict[str, tuple[str, ...]] = {
    "STEM": (
        "abstract_algebra",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "social sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "other": (
        "anatomy",
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}
_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_PROMPTS = "mmlu/flan_cot_prompts.json"
_EXEMPLAR = re.compile(
    r"Q: (?P<question>.*?)\n(?P<lettered>\(A\) .*?)\n"
    r"A: Let's think step by step\. (?P<rationale>.*?) ?"
    r"The answer is (?P<answer>\([A-Z]\))\.\s*",
    re.DOTALL,
)


def read_questions(
    path: Path, prompts: Path | None = None, *, subject: str
) -> Iterator[Row]:
    """Yields the rows of a subject's file.

    Args:
      path: CSV without a header line: question, four options, letter.
      prompts: file of the chain-of-thought prompts, whose header line the rows then
        have as `heading`.
      subject: name with underscores.
    """
    named = {"subject": subject.replace("_", " ")}
    if prompts is not None:
        named = {"heading": parse_prompt(read_json(prompts)[subject])[0]}
    with open_file(path) as stream:
        for _, row in read_csv(stream, str(path), _COLUMNS):
            options = lettered([row[letter].strip() for letter in "ABCD"])
            answer = f"({row['answer'].strip()})"
            if answer not in options["options"]:
                raise ValueError(f"the answer {row['answer']!r} is no letter A to D")
            question = row["question"].strip()
            yield {"question": question, "answer": answer, "rationale": "",
                   **options, **named}  # fmt: skip


def read_cot_exemplars(prompts: Path, *, subject: str) -> Iterator[Row]:
    """Yields the exemplars of a subject's published chain-of-thought prompt."""
    heading, exemplars = parse_prompt(read_json(prompts)[subject])
    return ({"heading": heading, **row} for row in exemplars)


def parse_prompt(text: str) -> tuple[str, list[Row]]:
    """Takes a published prompt apart.

    Returns:
      The header line, and question, lettered (options), rationale and answer ("(C)")
      of each exemplar, as they stand there.

    Raises:
      ValueError: a part of it is no exemplar.
    """
    return parse_exemplars(text.strip("\n"), _EXEMPLAR)


def held_out() -> Iterator[HeldOut]:
    """Yields all subjects, direct and with chain of thought."""
    pairs = [(subject, group) for group, names in SUBJECTS.items() for subject in names]
    for cot in (False, True):
        for subject, group in pairs:
            yield _subject(subject, group, cot)


def _subject(subject: str, group: str, cot: bool) -> HeldOut:
    suite = "mmlu_cot" if cot else "mmlu"
    read = functools.partial(read_questions, subject=subject)
    more = (_PROMPTS,) if cot else ()
    parts = {
        "test": Part(read, f"mmlu/test/{subject}_test.csv", *more),
        "validation": Part(read, f"mmlu/val/{subject}_val.csv", *more),
    }
    if cot:
        own = functools.partial(read_cot_exemplars, subject=subject)
        parts["exemplars"] = Part(own, _PROMPTS)
    else:
        parts["dev"] = Part(read, f"mmlu/dev/{subject}_dev.csv")
    return HeldOut(
        base=f"{suite}_{subject}",
        suite=suite,
        source=EvalFiles(
            parts,
            "https://github.com/jasonwei20/flan-2 (the prompts) or "
            "https://github.com/hendrycks/test (the questions)",
        ),
        templates=templates("choice", suite),
        prompt_type="fs_opt",
        cot=cot,
        shots=5,
        exemplars="exemplars" if cot else "dev",
        dataset="mmlu",
        category=f"knowledge, {group}",
        licence="MIT",
        kind="cot" if cot else "choice",
        extractor="choice",
        max_decode_tokens=256 if cot else 8,
        stop=("\n\nQ:",) if cot else ("\n",),
    )
