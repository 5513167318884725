import pytest

from flanjax.eval.extract import flexible, strict


@pytest.mark.parametrize(
    "text, answer",
    [
        ("yes", "yes"),
        ("  yes \n", "yes"),
        ("Yes.", "Yes."),
        ("The answer is yes", "The answer is yes"),
        ("", None),
        (" \n", None),
    ],
)
def test_strict_reading_of_a_direct_answer_is_the_whole_output(text, answer):
    assert strict(text) == answer


@pytest.mark.parametrize(
    "phrase", ["the answer is", "the answer:", "the final answer:", "final answer:"]
)
@pytest.mark.parametrize("lead", ["", "so ", "Therefore, ", "thus "])
@pytest.mark.parametrize("joiner", [" ", "\n"])
def test_strict_reading_accepts_every_closing_phrase_of_the_templates(
    phrase, lead, joiner
):
    closing = (lead + phrase)[0].upper() + (lead + phrase)[1:]
    assert strict(f"3 + 4 = 7.{joiner}{closing} 7.", "cot") == "7"
    assert strict(f"3 + 4 = 7.{joiner}{lead}{phrase} (b) two.", "cot") == "(b) two"


@pytest.mark.parametrize(
    "text, answer",
    [
        ("It is 7.", None),
        ("The answer is", None),
        ("The answer is.", None),
        ("Answer: 7", None),  # Not the trained form; flexible reading takes it.
        ("The answer is 3. No, the answer is 4.", "4"),
        ("THE ANSWER IS 4", "4"),
        ("The final answer is: 4.5.", "4.5"),
        ("Here the answer isn't clear", None),
        ("So the answer is 8.\n\nQ: next", "8.\n\nQ: next"),
    ],
)
def test_strict_reading_of_a_chain_of_thought_needs_the_closing_phrase(text, answer):
    assert strict(text, "cot") == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        ("7", "7"),
        ("$1,234.00", "1234"),
        ("-$5.50 in all", "-5.5"),
        ("\u22125", "-5"),
        ("$ 12", "12"),
        ("50%", "50"),
        ("50 %.", "50"),
        ("It costs 3.0.", "3"),
        ("0.050", "0.05"),
        (".5", "0.5"),
        ("-0", "0"),
        ("100", "100"),
        ("1,000,000", "1000000"),
        ("1,2345", "1"),
        ("1, 2, 3", "1"),
        ("10-5", "10"),
        ("- 5 apples", "5"),
        ("5kg", "5"),
        ("x=5", "5"),
        ("GPT4 says seven", None),
        ("no number", None),
        ("", None),
        ("Sure!\n\nIt is 9", "9"),
        ("8\n\nQ: another\nAnswer: 9", "8"),
        ("3 and 4 make 7. The answer is 7", "7"),
        ("\u09e7\u09e8", "12"),
    ],
)
def test_first_number_of_a_direct_answer(text, answer):
    assert flexible(text, "number") == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        ("3 + 4 = 7", "7"),
        ("3 + 4 = 7. The answer is 8 apples, not 9.", "8"),
        ("Answer: 4. So the answer is unclear, 3 or 5", "3"),
        ("He has 5. The answer is", "5"),
        ("He has 5, 6 and 2,125.", "2125"),
        ("3+2で5台の車がある。答えは15です。", "15"),
        ("答案是2,125。", "2125"),
        ("উত্তর হল 11।", "11"),
        ("nothing", None),
    ],
)
def test_number_after_the_last_closing_phrase_else_the_last_number(text, answer):
    assert flexible(text, "number", style="cot") == answer


ANIMALS = ("a cat", "a dog", "a hot dog")


@pytest.mark.parametrize(
    "text, answer",
    [
        ("a dog", "a dog"),
        ("A dog.", "a dog"),
        ('"A Dog"', "a dog"),
        ("(B)", "a dog"),
        ("(b).", "a dog"),
        ("B.", "a dog"),
        ("B", "a dog"),
        ("b", "a dog"),
        ("**C**", "a hot dog"),
        ("**C.** because", "a hot dog"),
        ("A) it meows", "a cat"),
        ("Answer: C", "a hot dog"),
        ("The correct answer is (A), of course", "a cat"),
        ("I think it is a hot dog", "a hot dog"),
        ("It may be a cat or a dog", "a cat"),
        ("Option B", "a dog"),
        ("(Z)", None),
        ("I do not know", None),
        ("a bird", None),
        ("", None),
    ],
)
def test_choice_by_text_letter_or_mention(text, answer):
    assert flexible(text, "choice", choices=ANIMALS) == answer


@pytest.mark.parametrize(
    "text, choices, answer",
    [
        ("C because", ("(A)", "(B)", "(C)"), "(C)"),
        ("(A)", ("(A)", "(B)"), "(A)"),
        ("A bird", ("(A)", "(B)"), None),
        ("b).", ("a).", "b)."), "b)."),
        ("Vitamin C.", ("Vitamin A", "Vitamin C", "none"), "Vitamin C"),
        ("It is -5", ("5", "-5"), "-5"),
        ("it is 3", ("3", "7"), "3"),
        ("It\u2019s entailment", ("entailment", "not entailment"), "entailment"),
        ("not entailment", ("entailment", "not entailment"), "not entailment"),
        ("D", (), "D"),
        ("(x)", ("", "yes"), None),
    ],
)
def test_choice_among_letters_numbers_and_nested_texts(text, choices, answer):
    assert flexible(text, "choice", choices=choices) == answer


def test_the_last_option_counts_in_a_chain_of_thought_without_closing_phrase():
    text = "It could be a cat.\nBut it barks, so a hot dog is out; it is a dog"
    assert flexible(text, "choice", style="cot", choices=ANIMALS) == "a dog"


@pytest.mark.parametrize(
    "text, answer",
    [
        ("yes", "yes"),
        ("No, it is not.", "no"),
        ("**Yes**", "yes"),
        ("True", "yes"),
        ("It is false", "no"),
        ("I know nothing", None),
        ("not", None),
        ("The answer is no. Yes!", "no"),
        ("", None),
    ],
)
def test_first_yes_or_no(text, answer):
    assert flexible(text, "yes_no") == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Paris", "Paris"),
        ("\n\n Paris.\nIt is the capital.", "Paris"),
        ('"Paris."', "Paris"),
        ("\u201cParis\u201d", "Paris"),
        ("**Paris**", "Paris"),
        ("A: Paris.", "Paris"),
        ("Answer:\nParis", "Paris"),
        ("The answer is Paris.", "Paris"),
        ("the answer is: Paris", "Paris"),
        ("The answer is", "The answer is"),
        ("...", ".."),
        (" ", None),
    ],
)
def test_first_line_without_quotes_and_full_stop(text, answer):
    assert flexible(text, "text") == answer
