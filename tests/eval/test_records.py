import pytest

from flanjax.errors import DataError
from flanjax.eval.records import read_records, rescore, score_record, write_records
from flanjax.eval.scorers import SCORERS


def record(output, gold, **changes):
    return {
        "index": 0,
        "prompt": "Is it so? Ünïcode",
        "output": output,
        "gold": gold if isinstance(gold, list) else [gold],
        "extractor": "text",
        "style": "direct",
        "scorers": ["exact_match", "exact_match_flexible", "f1"],
        "choices": [],
        **changes,
    }


@pytest.mark.parametrize(
    "gold, changes",
    [
        ("yes", {"extractor": "yes_no"}),
        ("(B) the dog", {"extractor": "choice", "choices": ["(A) it", "(B) the dog"]}),
        ("1,234.50", {"extractor": "number"}),
        ("an answer without a number", {"extractor": "number"}),
        ("So the answer is Up, up.", {"extractor": "choice", "style": "cot"}),
        ("Adam has 7. The answer is 7.", {"extractor": "number", "style": "cot"}),
        ("It barks. So the answer is a dog.", {"style": "cot"}),
        ("Paris, the capital.", {}),
    ],
)
def test_a_gold_answer_as_output_scores_one_by_every_scorer(gold, changes):
    names = [n for n in SCORERS if n != "number_match" or any(map(str.isdigit, gold))]
    scores = score_record(record(gold, gold, scorers=names, **changes))["scores"]
    assert all(scores[name] == 1.0 for name in names), scores


def test_strict_and_flexible_differ_in_form_only():
    scored = score_record(record("The answer is yes.", "Yes", extractor="yes_no"))
    assert scored["strict"] == "The answer is yes."
    assert scored["flexible"] == "yes"
    assert scored["scores"]["exact_match"] == 0.0
    assert scored["scores"]["exact_match_flexible"] == 1.0
    assert scored["scores"]["parse_failures"] == 0.0


def test_an_output_without_an_answer_is_wrong_and_a_parse_failure():
    for output in ("", "I cannot say"):
        scores = score_record(record(output, "7", extractor="number"))["scores"]
        assert scores["exact_match_flexible"] == 0.0
        assert scores["parse_failures"] == 1.0


def test_any_reference_may_match():
    scores = score_record(record("NYC", ["New York", "NYC"]))["scores"]
    assert scores["exact_match"] == 1.0


def test_options_are_compared_raw_and_per_token():
    values = {
        "choices": ["no", "yes of course"],
        "choice_logprobs": [-2.0, -3.0],
        "choice_lengths": [1, 3],
    }
    scored = score_record(record("maybe", "yes of course", **values))
    assert scored["choice_prediction"] == 1
    assert scored["scores"]["choice_accuracy"] == 1.0
    assert scored["scores"]["choice_accuracy_raw"] == 0.0
    absent = score_record(record("maybe", "neither", **values))
    assert "choice_accuracy" not in absent["scores"]


def test_scores_from_a_file_equal_live_scores_bit_for_bit(tmp_path):
    records = [
        score_record(
            record(
                f"a b {i}",
                f"b {i % 3}",
                choices=["b 0", "b 1", "b 2"],
                choice_logprobs=[-i / 3, -1 / 7, -(i**0.5)],
                choice_lengths=[1, 2, 3],
            )
        )
        for i in range(20)
    ]
    path = tmp_path / "records" / "5" / "e.jsonl.zst"
    write_records(path, records)
    again = list(read_records(path))
    assert again == records
    assert rescore(again) == rescore(records)
    assert rescore(again)["f1"].n == 20
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_cut_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "e.jsonl.zst"
    write_records(path, [record(str(i), "x" * i) for i in range(3000)])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="e.jsonl.zst"):
        list(read_records(path))
    with pytest.raises(DataError, match="missing.jsonl.zst:1"):
        list(read_records(tmp_path / "missing.jsonl.zst"))
