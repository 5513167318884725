import pytest

from flanjax.eval.scorers import (
    SCORERS,
    choice_accuracy,
    exact_match,
    exact_match_flexible,
    f1,
    number_match,
)


@pytest.mark.parametrize("name", SCORERS)
def test_a_gold_answer_scores_one_and_no_answer_scores_zero(name):
    assert SCORERS[name]("12", ["11", "12"]) == 1.0
    assert SCORERS[name](None, ["11", "12"]) == 0.0
    assert SCORERS[name]("13", ["11", "12"]) == 0.0
    assert SCORERS[name]("12", []) == 0.0


@pytest.mark.parametrize(
    "answer, reference, value",
    [("Paris", "Paris", 1), (" Paris\n", "Paris", 1), ("paris", "Paris", 0)],
)
def test_exact_match_strips_whitespace_and_minds_case(answer, reference, value):
    assert exact_match(answer, [reference]) == value


@pytest.mark.parametrize(
    "answer, reference, value",
    [
        ("the paris.", "Paris", 1),
        ("A", "A", 1),
        ("A", "B", 0),
        ("the", "a", 0),
        ("1.5", "15", 0),
        ("-3", "3", 0),
        ("7.0", "7", 1),
        ("$1,234", "1234", 1),
        ("U.S.", "us", 1),
        ("nan", "NaN", 1),
        ("", "...", 1),
    ],
)
def test_flexible_match_normalises_words_and_compares_numbers(answer, reference, value):
    assert exact_match_flexible(answer, [reference]) == value


@pytest.mark.parametrize(
    "answer, reference, value",
    [("7.0", "7", 1), ("2,125", "2125", 1), ("50 %", "50", 1), ("seven", "7", 0)],
)
def test_numbers_are_equal_however_they_are_spelt(answer, reference, value):
    assert number_match(answer, [reference]) == value


def test_token_f1_is_that_of_squad_and_takes_the_best_reference():
    assert f1("in Paris, France", ["Paris"]) == pytest.approx(0.5)
    assert f1("in Paris, France", ["Rome", "Paris France"]) == pytest.approx(0.8)
    assert f1("b b", ["b"]) == pytest.approx(2 / 3)


def test_the_most_probable_option_is_chosen_and_the_first_of_a_tie():
    assert choice_accuracy([-3.0, -1.0, -2.0], 1) == 1.0
    assert choice_accuracy([-1.0, -1.0], 0) == 1.0
    assert choice_accuracy([-1.0, -1.0], 1) == 0.0
