"""Planted leaks are found and quoted; texts that merely look alike are not."""

import random

import numpy as np
import pytest

from flanjax.data.contamination import HeldOutIndex, RowTexts
from flanjax.data.ngrams import hash_ngrams, normalise

WORDS = [f"word{number}" for number in range(3000)]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


@pytest.fixture(scope="module")
def held_out() -> list[RowTexts]:
    rng = random.Random(0)
    return [RowTexts(f"held:{i}", (sentence(rng, 30),), ("yes",)) for i in range(200)]


@pytest.fixture(scope="module")
def clean() -> list[RowTexts]:
    rng = random.Random(1)
    return [RowTexts(f"train:{i}", (sentence(rng, 90),)) for i in range(500)]


@pytest.fixture(scope="module")
def index(held_out) -> HeldOutIndex:
    return HeldOutIndex({"exam": held_out})


def test_clean_rows_give_no_alarm(index, clean):
    assert index.compare("clean", clean) == []


def test_a_renamed_task_with_the_same_rows_is_found_whole(index, held_out):
    renamed = [RowTexts(f"new:{i}", row.inputs) for i, row in enumerate(held_out)]
    (overlap,) = index.compare("some_other_name", renamed)
    assert overlap.exact_rows == len(held_out) == overlap.held_out_rows
    assert overlap.failed(0.01)


def test_one_copied_row_is_found_and_quoted(index, clean, held_out):
    copy = RowTexts("train:copy", held_out[7].inputs)
    (overlap,) = index.compare("task", [*clean, copy])
    assert (overlap.exact_rows, overlap.held_out_rows) == (1, 1)
    assert overlap.quotes[0].training_row == "train:copy"
    assert overlap.quotes[0].held_out_row == "held:7"
    quoted = overlap.quotes[0].text.removesuffix(" ...")
    assert held_out[7].inputs[0].startswith(quoted) and len(quoted) > 200


def test_case_spacing_and_punctuation_do_not_hide_a_row(index, clean, held_out):
    text = held_out[9].inputs[0].upper().replace(" ", " ,  ") + "!"
    (overlap,) = index.compare("task", [*clean, RowTexts("train:loud", (text,))])
    assert overlap.exact_rows == 1


def test_a_shared_run_of_words_is_found_and_quoted(index, clean, held_out):
    words = held_out[3].inputs[0].split()
    row = RowTexts("train:run", ("before it " + " ".join(words[4:18]) + " after it",))
    (overlap,) = index.compare("task", [*clean, row])
    assert (overlap.exact_rows, overlap.shared_rows) == (0, 1)
    assert overlap.quotes[0].text == " ".join(words[4:17])
    assert not overlap.failed(0.01) and overlap.failed(0.001)


def test_twelve_words_are_not_thirteen(index, held_out):
    words = held_out[3].inputs[0].split()
    row = RowTexts("train:short", ("before " + " ".join(words[4:16]) + " after",))
    assert index.compare("task", [row]) == []


def test_a_short_held_out_question_counts_whole(clean):
    question = "which of these four animals can also fly backwards"
    index = HeldOutIndex({"quiz": [RowTexts("quiz:0", (question,))]})
    row = RowTexts("train:0", (f"A quiz asked: {question}? Nobody knew it, alas.",))
    (overlap,) = index.compare("task", [*clean, row])
    assert overlap.shared_rows == 1
    assert overlap.quotes[0].text == question


def test_wording_that_many_held_out_rows_have_is_not_content():
    rng = random.Random(2)
    wording = "the paragraphs below each describe a set of three objects in some order "
    rows = [RowTexts(f"h:{i}", (wording + sentence(rng, 20),)) for i in range(100)]
    index = HeldOutIndex({"puzzles": rows})
    other = RowTexts("train:0", (wording + sentence(rng, 20),))
    assert index.compare("task", [other]) == []
    assert index.compare("task", [rows[5]])[0].exact_rows == 1


def test_field_names_and_their_order_do_not_matter():
    row = RowTexts("h:0", ("a passage of words", "what is it about"))
    index = HeldOutIndex({"exam": [row]})
    turned = RowTexts("t:0", ("What is it about?", "A passage of words."))
    assert index.compare("task", [turned])[0].exact_rows == 1


def test_scripts_without_spaces_are_compared_by_character():
    text = "猫は窓のそばで静かに眠っていました"
    index = HeldOutIndex({"ja": [RowTexts("h:0", (text,))]})
    row = RowTexts("t:0", (f"昨日の朝、{text}。それから起きた。",))
    assert index.compare("task", [row])[0].shared_rows == 1


@pytest.mark.parametrize("words", [1, 3, 13])
def test_ngram_hashes_depend_on_the_words_alone(words):
    rng = random.Random(words)
    text = sentence(rng, 40)
    grams = hash_ngrams([text], words)
    pieces = text.split()
    expected = [" ".join(pieces[i : i + words]) for i in range(40 - words + 1)]
    assert [grams.words(i) for i in range(len(grams.hashes))] == expected
    alone = [hash_ngrams(["", "other text", piece], words) for piece in expected]
    last = [int(a.hashes[-1]) for a in alone]
    assert last == grams.hashes.tolist()
    assert all(a.texts[-1] == 2 for a in alone)


def test_no_run_crosses_from_one_text_into_the_next():
    grams = hash_ngrams(["a b c", "d e f"], 3)
    assert [grams.words(i) for i in range(2)] == ["a b c", "d e f"]
    assert np.array_equal(grams.texts, [0, 1])


def test_texts_without_a_word_are_no_match():
    assert normalise(" .,!?_ ") == ""
    index = HeldOutIndex(
        {"exam": [RowTexts("h:0", ("?!",)), RowTexts("h:1", ("a b",))]}
    )
    rows = [RowTexts("t:0", ("...",)), RowTexts("t:1", ("A, b",)), RowTexts("t:2", ())]
    assert index.compare("task", rows) == []
