"""Muffin, first part: a row of every dataset becomes the fields of its templates."""

from typing import Any

import pytest

from flanjax.data.examples import split_renderer
from flanjax.data.fewshot import FewShot
from flanjax.data.instruction import InstructionTask, TaskInfo
from flanjax.data.sources import FunctionSource
from flanjax.data.templates import PROMPT_TYPES
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.eval.scorers import exact_match
from mixtures import muffin_datasets, muffin_more
from mixtures.muffin_dataset import label

# The other datasets are test_muffin_more.py's.
DATASETS = {
    name: data
    for name, data in muffin_datasets.DATASETS.items()
    if name not in muffin_more.DATASETS
}
GROUPS = muffin_datasets.GROUPS

# Made-up rows with the features of TFDS.
SQUAD = {
    "id": "1",
    "title": "River_Otters",
    "context": "Otters eat fish. They live by the river.",
    "question": "What do otters eat?",
    "answers": {"text": ["fish", "fish", "Fish "], "answer_start": [11, 11, 11]},
}
ARC = {
    "id": "7",
    "question": "Which of these is a metal?",
    "choices": {"text": ["iron", "wood", "salt", "air"], "label": [0, 1, 2, 3]},
    "answerKey": 0,
}
PAIR = {"sentence1": "It rained all day.", "sentence2": "All day it rained."}
CRAWL = {"en": "Dear Anna, the Danes won!", "da": "Kære Anna, danskerne vandt!"}
NO_YES, SENTIMENTS = ["no", "yes"], ["negative", "positive"]

# Task -> (row, fields that must come out of it).
TFDS_ROWS: dict[str, tuple[dict, dict]] = {
    "aeslc": (
        {"email_body": "Shall we meet at noon?\n", "subject_line": "Lunch"},
        {"body": "Shall we meet at noon?", "subject": "Lunch"},
    ),
    "cnn_dailymail": (
        {
            "id": "a",
            "article": "A dog ran off. It came back.",
            "highlights": "Dog ran off .\nIt is back .",
            "publisher": "",
        },
        {"text": "A dog ran off. It came back.",
         "highlights": "Dog ran off .\nIt is back ."},
    ),
    "gigaword": (
        {"document": "the dog came back on monday .", "summary": "dog is back"},
        {"text": "the dog came back on monday .", "summary": "dog is back"},
    ),
    "multi_news": (
        {"document": "One report. ||||| Another report.", "summary": "– Two reports."},
        {"text": "One report.\n\nAnother report.", "summary": "Two reports."},
    ),
    "newsroom": (
        {"text": "It snowed.", "summary": "Snow.", "title": "Winter", "url": "", "date":
         "", "density_bin": "", "coverage_bin": "", "compression_bin": "",
         "density": 1.0, "coverage": 1.0, "compression": 2.0},
        {"title": "Winter", "text": "It snowed.", "summary": "Snow."},
    ),
    "samsum": (
        {"id": "1", "dialogue": "Al: Tea?\r\nBo: Yes.", "summary": "Bo wants tea."},
        {"dialogue": "Al: Tea?\nBo: Yes.", "summary": "Bo wants tea."},
    ),
    "xsum": (
        {"id": "1", "document": "The bridge is shut.", "summary": "A bridge is shut."},
        {"text": "The bridge is shut.", "summary": "A bridge is shut."},
    ),
    "ag_news_subset": (
        {"title": "Oil up", "label": 2,
         "description": "Oil #39;s price\\rose to  #36;9 &lt;B&gt;now&lt;/B&gt;."},
        {"title": "Oil up", "text": "Oil's price rose to $9 now.", "answer": "Business",
         "options": ["World", "Sports", "Business", "Science/Tech"]},
    ),
    "opinion_abstracts_rotten_tomatoes": (
        {
            "_movie_id": "m",
            "_movie_name": "The Pond",
            "_critic_consensus": "Calm, <em>slow</em> and pretty.",
            "_critics": {"key": ["1", "2"], "value": ["Slow.", "Pretty."]},
        },
        {"numbered_reviews": "1. Slow.\n2. Pretty.", "first_review": "Slow.",
         "critic_consensus": "Calm, slow and pretty.", "movie": "The Pond"},
    ),
    "opinion_abstracts_idebate": (
        {
            "_claim_id": "c",
            "_debate_name": "This House would ban cars",
            "_claim": "Cars are loud",
            "_argument_sentences": [{"key": "1", "value": "One hears them."},
                                    {"key": "2", "value": "They wake people."}],
        },
        {"argument_sentences": "One hears them.\nThey wake people.",
         "claim": "Cars are loud", "debate_name": "This House would ban cars"},
    ),
    "wiki_lingua_english_en": (
        {"gem_id": "g", "gem_parent_id": "g", "source": "Boil water first.",
         "target": "Boil water.", "source_aligned": {"en": "Boil water first."},
         "target_aligned": {"en": "Boil water."}, "references": []},
        {"source": "Boil water first.", "target": "Boil water."},
    ),
    "web_nlg_en": (
        {"gem_id": "g", "input": ["Oslo | country | Norway", "Norway | seat | Oslo_S"],
         "target": "Oslo is in Norway.", "category": "City", "references": []},
        {"input_string": "Oslo | country | Norway; Norway | seat | Oslo S",
         "target": "Oslo is in Norway."},
    ),
    "common_gen": (
        {"gem_id": "g", "concept_set_id": 1, "concepts": ["dog", "ball"],
         "target": "The dog has a ball.", "references": []},
        {"concepts": "dog, ball", "concepts_newline": "dog\nball",
         "target": "The dog has a ball."},
    ),
    "e2e_nlg": (
        {"gem_id": "g", "meaning_representation": "name[Zizzi], area[riverside]",
         "target": "Zizzi is by the river.", "references": []},
        {"meaning_representation": "name = Zizzi, area = riverside",
         "target": "Zizzi is by the river."},
    ),
    "dart": (
        {"gem_id": "g", "dart_id": 1, "tripleset": ["Mars YEAR 1973", "Mars CITY Ulm"],
         "subtree_was_extended": False, "target_sources": ["x"],
         "target": "Mars, of Ulm, in 1973.", "references": []},
        {"tripleset": "Mars YEAR 1973; Mars CITY Ulm",
         "tripleset_newline": "Mars YEAR 1973\nMars CITY Ulm",
         "target": "Mars, of Ulm, in 1973."},
    ),
    "squad_v1": (
        SQUAD,
        {"title": "River Otters", "context": SQUAD["context"], "answer": "fish",
         "question": SQUAD["question"], "references": ["fish", "Fish"]},
    ),
    "squad_v2": (
        {**SQUAD, "is_impossible": True, "answers": {"text": [], "answer_start": []},
         "plausible_answers": {"text": ["river"], "answer_start": [34]}},
        {"answer": "unanswerable", "references": ["unanswerable"],
         "title": "River Otters"},
    ),
    "drop": (
        {"passage": "He ran 3 miles, then 4.", "question": "How many miles in all?",
         "answer": "7", "validated_answers": ["7", "7 miles"], "query_id": "q"},
        {"context": "He ran 3 miles, then 4.", "question": "How many miles in all?",
         "answer": "7", "references": ["7", "7 miles"]},
    ),
    "multirc": (
        {"paragraph": "Ann fed the cat.", "question": "Who fed it?", "answer": "Ann",
         "label": 1, "idx": {"paragraph": 0, "question": 0, "answer": 0}},
        {"paragraph": "Ann fed the cat.", "response": "Ann", "answer": "yes",
         "options": NO_YES},
    ),
    "openbookqa": (
        {"question": {"stem": "Stars are", "choice_A": "cold", "choice_B": "gas",
                      "choice_C": "small", "choice_D": "square"},
         "fact1": "a star is made of gas", "humanScore": 1.0, "clarity": 2.0,
         "turkIdAnonymized": "t", "answerKey": 1},
        {"fact": "A star is made of gas.\n", "question": "Stars are", "answer": "gas",
         "options": ["cold", "gas", "small", "square"]},
    ),
    "bool_q": (
        {"question": "is iron a metal", "passage": "Iron is a metal.", "answer": True,
         "title": "Iron"},
        {"text": "Iron is a metal.", "question": "Is iron a metal?", "title": "Iron",
         "answer": "yes", "options": NO_YES},
    ),
    "trivia_qa": (
        {"question": "Who wrote Emma?", "question_id": "t", "question_source": "",
         "entity_pages": {}, "search_results": {},
         "answer": {"value": "Jane Austen", "aliases": ["Austen", "Jane Austen"],
                    "normalized_value": "jane austen", "type": "WikipediaEntity"}},
        {"question": "Who wrote Emma?", "answer": "Jane Austen",
         "references": ["Jane Austen", "Austen"]},
    ),
    "natural_questions": (
        {"question": "who wrote emma", "answer": ["Jane Austen", "Austen"]},
        {"question": "Who wrote emma?", "answer": "Jane Austen",
         "references": ["Jane Austen", "Austen"]},
    ),
    "arc_challenge": (
        {**ARC, "answerKey": 3},
        {"question": ARC["question"], "answer": "air",
         "options": ["iron", "wood", "salt", "air"]},
    ),
    "arc_easy": (ARC, {"question": ARC["question"], "answer": "iron"}),
    "glue_mrpc": ({**PAIR, "idx": 3, "label": 1}, {"answer": "yes", "options": NO_YES}),
    "glue_qqp": (
        {"question1": "Why?", "question2": "How?", "label": 0, "idx": 1},
        {"question1": "Why?", "question2": "How?", "answer": "no", "options": NO_YES},
    ),
    "paws_wiki": ({**PAIR, "label": 0}, {"answer": "no", "options": NO_YES}),
    "stsb": (
        {**PAIR, "label": 3.6000000},
        {"answer": "4", "options": ["0", "1", "2", "3", "4", "5"]},
    ),
    "imdb_reviews": (
        {"text": "Dull.<br /><br />Very dull.", "label": 0},
        {"text": "Dull.\nVery dull.", "answer": "negative", "options": SENTIMENTS},
    ),
    "sentiment140": (
        {"text": "tea &amp; cake  :)", "polarity": 4, "date": "", "query": "",
         "user": ""},
        {"text": "tea & cake :)", "answer": "positive", "options": SENTIMENTS},
    ),
    "yelp_polarity_reviews": (
        {"text": "A \\\"real\\\" gem.\\nGo!", "label": 1},
        {"text": 'A "real" gem.\nGo!', "answer": "positive", "options": SENTIMENTS},
    ),
    "sst2": (
        {"sentence": "a quiet joy ", "label": 1, "idx": 4},
        {"sentence": "a quiet joy", "answer": "positive", "options": SENTIMENTS},
    ),
    "true_case": (
        CRAWL, {"lower": "dear anna, the danes won!", "answer": CRAWL["en"]},
    ),
    "fix_punct": (
        CRAWL, {"no_punct": "Dear Anna the Danes won", "answer": CRAWL["en"]},
    ),
    "word_segment": (
        CRAWL, {"no_space": "DearAnna,theDaneswon!", "answer": CRAWL["en"]},
    ),
}  # fmt: skip

# Task, a row as other collections of files have it, fields that must come out of it.
OTHER_ROWS: list[tuple[str, dict, dict]] = [
    ("ag_news_subset", {"title": "T", "description": "D", "label": "Sci/Tech"},
     {"answer": "Science/Tech"}),
    ("bool_q", {"question": "is it", "passage": "Ice -- Ice floats.", "answer": "True"},
     {"title": "Ice", "text": "Ice floats.", "answer": "yes"}),
    ("e2e_nlg", {"mr": "name[A, B], food[x]", "ref": "It is A, B."},
     {"meaning_representation": "name = A, B, food = x", "target": "It is A, B."}),
    ("squad_v1", {**SQUAD, "answers": [{"text": "fish", "answer_start": 11}]},
     {"answer": "fish", "references": ["fish"]}),
    ("squad_v2", SQUAD, {"answer": "fish", "references": ["fish", "Fish"]}),
    ("squad_v2", {**SQUAD, "answers": []}, {"answer": "unanswerable"}),
    ("openbookqa", {"question": "Stars are", "choices": list("wxyz"), "label": 2},
     {"fact": "", "answer": "y"}),
    ("arc_easy", {"question": "Q", "choices": list("wxyz"), "label": 1},
     {"answer": "x"}),
    ("arc_easy", {**ARC, "answerKey": "2", "choices": {
        "text": list("wxyz"), "label": ["1", "2", "3", "4"]}}, {"answer": "x"}),
    ("arc_easy", {**ARC, "answerKey": "B"}, {"answer": "wood"}),
    ("glue_qqp", {"question1": "a", "question2": "b", "label": "True"},
     {"answer": "yes"}),
    ("glue_mrpc", {**PAIR, "label": "not_equivalent"}, {"answer": "no"}),
    ("stsb", {**PAIR, "label": "0.4"}, {"answer": "0"}),
    ("imdb_reviews", {"text": "x", "label": "Good"}, {"answer": "positive"}),
    ("sst2", {"sentence": "x", "label": "negative"}, {"answer": "negative"}),
    ("sentiment140", {"text": "x", "polarity": 0}, {"answer": "negative"}),
    ("multirc", {"paragraph": "p", "question": "q", "answer": "a", "label": False},
     {"answer": "no", "response": "a"}),
    ("trivia_qa", {"question": "q", "answer": ["a", "b"]}, {"references": ["a", "b"]}),
    ("true_case", {"translation": CRAWL}, {"answer": CRAWL["en"]}),
    ("dart", {"tripleset": [["A", "IS", "B"]], "target": "A is B."},
     {"tripleset": "A | IS | B"}),
    ("common_gen", {"concepts": "dog#ball", "target": "t"}, {"concepts": "dog, ball"}),
]  # fmt: skip

# Task, a row that must be left out.
LEFT_OUT: list[tuple[str, dict]] = [
    ("gigaword", {"document": "a UNK came .", "summary": "it came"}),
    ("gigaword", {"document": "it came on may # .", "summary": "it came"}),
    ("gigaword", {"document": "it came .", "summary": "# came"}),
    ("arc_easy", {**ARC, "choices": {"text": list("wxyzv"), "label": list(range(5))}}),
    ("arc_challenge", {"question": "Q", "choices": list("wxy"), "label": 1}),
    ("true_case", {"en": "all lower already"}),
    ("fix_punct", {"en": "No marks in this"}),
    ("sentiment140", {"text": "so so", "polarity": 2}),
    ("xsum", {"document": " ", "summary": "s"}),
    ("squad_v1", {**SQUAD, "answers": []}),
]


def test_there_is_a_row_of_each_of_the_36_datasets():
    assert set(TFDS_ROWS) == set(DATASETS) and len(DATASETS) == 36


@pytest.mark.parametrize("task", TFDS_ROWS)
def test_a_row_of_tfds_gives_all_fields_of_the_templates(task):
    row, wanted = TFDS_ROWS[task]
    fields = DATASETS[task].fields(row)
    assert fields is not None
    assert {name: fields[name] for name in wanted} == wanted
    for template in GROUPS[DATASETS[task].templates or task].load():
        for name in set(template.fields) - {"options_"}:
            assert fields[name].strip(), (template.id, name)


@pytest.mark.parametrize(("task", "row", "wanted"), OTHER_ROWS)
def test_rows_of_other_files_give_the_same_fields(task, row, wanted):
    fields = DATASETS[task].fields(row)
    assert fields is not None
    assert {name: fields[name] for name in wanted} == wanted


@pytest.mark.parametrize(("task", "row"), LEFT_OUT)
def test_rows_that_the_filters_name_are_left_out(task, row):
    assert DATASETS[task].fields(row) is None


def test_a_label_is_read_however_it_is_written():
    names = ["no", "yes"]
    assert [label(v, names) for v in (1, "1", "Yes", True, 1.0)] == [1] * 5
    assert label("True", names, {"true": 1}) == 1
    assert label("2", ["0", "1", "2"]) == 2
    for bad in (2, -1, "maybe", "²", None, 0.5):
        with pytest.raises(ValueError, match="no label of: no, yes"):
            label(bad, names)


def _task(name: str, prompt_type: str) -> InstructionTask:
    """The task as `mixtures.muffin` has it, on three rows, each in every template."""
    data = DATASETS[name]

    def rows(split):
        fields = data.fields(TFDS_ROWS[name][0])
        for number in range(3):
            marked = {
                key: f"{value} ({number})"
                for key, value in fields.items()
                if isinstance(value, str) and key != "answer"
            }
            yield {**fields, **marked}

    return InstructionTask(
        base=name,
        prompt_type=prompt_type,
        source=FunctionSource(rows, ("train",), name),
        template_source=GROUPS[data.templates or name],
        info=TaskInfo("muffin", name, data.category),
        few_shot=FewShot(shots=1, max_tokens=10_000),
        exemplar_split=None,
        option_style="random",
        template_assignment="all",
        has_options=data.has_options,
        cot=False,
        answer_field=data.answer_field,
        option_fields=data.option_fields,
    )


@pytest.mark.parametrize("name", TFDS_ROWS)
def test_every_template_renders_in_all_four_forms_and_gold_is_right(name):
    data = DATASETS[name]
    for prompt_type in PROMPT_TYPES:
        task = _task(name, prompt_type)
        renderer = split_renderer(task, "train", 0, False, ByteVocabulary())
        examples = renderer.examples(0, len(renderer))
        assert len(examples) == 3 * len(task.templates())
        for example in examples:
            targets = example["targets"]
            assert targets.strip() and example["inputs"].strip()
            assert example["inputs"] == example["inputs"].lstrip()
            assert exact_match(targets, example["references"] or [targets]) == 1
            if data.has_options and example["choices"]:
                assert targets in example["choices"]
            if prompt_type.endswith("noopt"):
                assert "OPTIONS:" not in example["inputs"]
        assert (
            any("OPTIONS:" in e["inputs"] for e in examples)
            == (data.has_options and prompt_type == "fs_opt")
            or prompt_type == "zs_opt"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TFDS_ROWS if n != "xsum"])
def test_the_made_up_rows_have_the_features_that_tfds_declares(name, tmp_path):
    import tensorflow_datasets as tfds

    # Of any version: TFDS no longer builds multi_news 1.0.0, with the same features.
    dataset = DATASETS[name].tfds.partition(":")[0]
    builder = tfds.builder(dataset, data_dir=tmp_path, try_gcs=False)
    features: Any = builder.info.features
    assert set(TFDS_ROWS[name][0]) <= set(features)
