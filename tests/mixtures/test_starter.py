import re
from pathlib import Path

import pytest
import seqio

from flanjax.data.fetch import fetched_path
from flanjax.data.tasks import task_info
from flanjax.data.templates import load_templates
from flanjax.errors import DataError
from flanjax.eval.suites import resolve_evals
from mixtures import starter, starter_fields
from mixtures.starter_datasets import HELD_OUT, TRAINED

TEMPLATES = Path(starter.__file__).parent / "templates"
STARTER_TASKS = sorted(
    name
    for name in seqio.TaskRegistry.names()
    if name.startswith(("starter_", "quick_"))
)
MIXTURES = ("starter", "starter_quick")


def _fetched(name: str) -> bool:
    try:
        return fetched_path(name).is_file()
    except DataError:
        return False


needs_archive = pytest.mark.skipif(
    not _fetched("starter"), reason="`flanjax data fetch starter` has not been run"
)


@pytest.fixture(scope="module")
def rows():
    """Dataset -> all its rows of the full mixture's length."""
    return {
        name: list(dataset.source(starter.LONGEST, {"all": None}).rows("all"))
        for name, dataset in {**TRAINED, **HELD_OUT}.items()
    }


def _question(row: dict) -> str:
    keys = ("question", "sentence", "brand", "passage", "dialogue", "review")
    text = next(row[key] for key in keys if key in row)
    return " ".join(re.findall(r"\w+", text.lower()))


# --- without the archive --------------------------------------------------------------


def test_at_least_twenty_datasets_with_five_templates_each():
    assert len(TRAINED) >= 20 and len(HELD_OUT) >= 4
    assert not set(TRAINED) & set(HELD_OUT)
    for name, dataset in {**TRAINED, **HELD_OUT}.items():
        group = load_templates(TEMPLATES / f"starter_{dataset.category}.toml")[name]
        assert len(group) >= 5
        assert len({template.hash for template in group}) == len(group)
        assert len({template.inputs for template in group}) == len(group)
        for form in dataset.forms:
            ours = [t for t in group if form in t.prompt_types]
            assert len(ours) >= 5, f"{name} {form}"


def test_no_option_forms_neither_show_nor_mention_options():
    words = re.compile(
        r"\b(options?|choices?|choose|choosing|select|pick|which of)\b", re.I
    )
    for path in TEMPLATES.glob("starter_*.toml"):
        for group in load_templates(path).values():
            for template in group:
                if set(template.prompt_types) & {"zs_noopt", "fs_noopt"}:
                    bare = template.without_options()
                    assert "options" not in bare.fields and not bare.shows_options
                    assert not words.search(bare.inputs), bare


def test_every_mixture_trains_on_training_datasets_only():
    for name in MIXTURES:
        for task in seqio.MixtureRegistry.get(name).tasks:
            dataset = task_info(task.name)["dataset"]
            generated = dataset.startswith("generated_arithmetic")
            assert dataset in TRAINED or generated, task.name
            assert dataset not in HELD_OUT


def test_rates_are_shares_by_kind_and_every_kind_is_there():
    for name, rates in zip(MIXTURES, (starter.RATES, starter.QUICK_RATES), strict=True):
        assert sum(rates.values()) == pytest.approx(1)
        kinds = {f"{name}_{kind}" for kind in rates}
        assert set(seqio.MixtureRegistry.get(name).rate_per_task_name) == kinds


def test_the_suites_ask_held_out_datasets_for_four_kinds_of_answer():
    specs = resolve_evals(["starter_heldout"])
    assert [spec.kind for spec in specs] == ["choice", "yes_no", "open", "arithmetic"]
    for spec in (*specs, *resolve_evals(["starter_heldout_more"])):
        info = task_info(spec.task)
        assert info["dataset"] in HELD_OUT
        assert spec.split == "test" and info["exemplar_split"] == "train"
        assert info["prompt_type"].startswith("fs")


def test_every_task_states_collection_category_and_licence():
    for name in STARTER_TASKS:
        info = task_info(name)
        assert info["collection"] == "starter"
        assert info["category"] in starter.RATES
        assert info["licence"] not in ("", "unknown")


def test_fields_leave_out_rows_that_are_broken():
    choice = starter_fields.choice()
    row = {"question": "Where?", "options": "\nA. here\nB. there", "answer": "B. there"}
    assert choice(row)["answer"] == "there"
    assert choice(row)["options"] == ["here", "there"]
    assert choice({**row, "answer": "C. nowhere"}) is None
    assert choice({**row, "options": "A. here\nB. here"}) is None
    assert choice({**row, "question": "x" * 2000}) is None
    number = starter_fields.number_answer()
    problem = {"passage": "Two and 2.", "question": "How many?", "answer": "4 apples"}
    assert number(problem)["answer"] == "4"
    assert number({**problem, "answer": "4 years old; 5 years old"}) is None
    assert number({**problem, "answer": "4:30"}) is None


def test_pronouns_do_not_follow_the_stereotype_of_the_row():
    row = {
        "text": "[The CEO] told the baker [MASK] was late.",
        "pro_stereotyped": "he",
    }
    one, other = (
        starter_fields.pronoun()({**row, "pro_stereotyped": word})
        for word in ("he", "she")
    )
    assert one == other
    assert one["options"] == ["the CEO", "the baker"] and one["answer"] == "the CEO"


# --- with the archive -----------------------------------------------------------------


@needs_archive
def test_every_dataset_has_rows_with_an_answer_among_its_options(rows):
    for name, dataset in {**TRAINED, **HELD_OUT}.items():
        assert len(rows[name]) >= 50, name
        ids = [row["row_id"] for row in rows[name]]
        assert len(set(ids)) == len(ids), name
        for row in rows[name]:
            assert row["answer"], name
            if dataset.has_options:
                assert row["answer"] in row["options"], name


@needs_archive
def test_no_held_out_question_is_trained_on(rows):
    trained = {_question(row): name for name in TRAINED for row in rows[name]}
    pairs = {
        (_question(row), row["answer"].lower())
        for name in TRAINED
        for row in rows[name]
    }
    for name in HELD_OUT:
        for row in rows[name]:
            question = _question(row)
            assert (question, row["answer"].lower()) not in pairs, (name, question)
            # Shorter ones are phrases of exams: "Which of the following is true?"
            if len(question.split()) > 6:
                assert question not in trained, (name, trained[question], question)


@needs_archive
def test_splits_share_no_question(rows):
    for tables, parts in (
        (TRAINED, {"validation": starter.VALIDATION_ROWS, "train": None}),
        (HELD_OUT, starter._EVAL_PARTS),
    ):
        for name, dataset in tables.items():
            source = dataset.source(starter.LONGEST, parts)
            first, second = (
                {_question(row) + str(row["answer"]) for row in source.rows(split)}
                for split in parts
            )
            assert first and second, name
            if dataset.by != "passage":
                assert not first & second, name


@needs_archive
@pytest.mark.slow
@pytest.mark.parametrize("name", STARTER_TASKS)
def test_every_starter_task_renders(name, first_examples):
    vocabulary = "gguf:smollm2" if _fetched("smollm2") else "bytes"
    if name.startswith("quick_") and "_fs_" in name and vocabulary == "bytes":
        pytest.skip("few-shot budgets of the quick tasks are SmolLM2's tokens")
    info = task_info(name)
    for split in info["splits"]:
        if split == "train" and "test" in info["splits"]:
            continue  # Exemplars only.
        examples = first_examples(name, split, vocabulary)
        assert len(examples) >= (1 if split == "validation" else 3), split
        for example in examples:
            assert len(example["inputs"]) and len(example["targets"])
            assert example["inputs_pretokenized"].strip()
            assert example["targets_pretokenized"].strip()
