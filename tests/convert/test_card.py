"""A model card claims what the run's files say, and nothing else."""

import json
import re

from flanjax.convert.card import model_card
from flanjax.data.vocabulary import load_vocabulary


def score(value, low, high, n):
    return {"value": value, "n": n, "stderr": 0.01, "low": low, "high": high}


def write_run(directory):
    directory.mkdir()
    results = {
        "0": {"held_out": {"exact_match": score(0.125, 0.0625, 0.1875, 64)}},
        "30": {"held_out": {"exact_match": score(0.75, 0.6875, 0.8125, 64)}},
    }
    (directory / "results.json").write_text(json.dumps(results))
    row = {"task": "copy_zs_opt", "share": 0.375, "licence": "CC BY 4.0"}
    ledger = {"mixture": "tiny_mixture", "members": [row]}
    (directory / "ledger.json").write_text(json.dumps(ledger))
    status = {"state": "finished", "steps_done": 30}
    (directory / "status.json").write_text(json.dumps(status))
    (directory / "config.gin").write_text("TRAIN_STEPS = 30\n")
    return directory


def test_a_card_without_a_run_has_no_results(llama_config):
    card = model_card(llama_config, None)
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "not trained" in card
    assert "Results" not in card


def test_every_number_of_the_results_is_in_the_runs_files(llama_config, tmp_path):
    run = write_run(tmp_path / "first_run")
    card = model_card(llama_config, load_vocabulary("bytes"), run)
    assert "# first_run" in card
    assert "Fine-tuned for 30 steps; the run's state is 'finished'" in card
    assert "Mixture `tiny_mixture`" in card
    assert "| copy_zs_opt | 0.375 | CC BY 4.0 |" in card
    evidence = "".join(path.read_text() for path in run.iterdir())
    table = card[card.index("## Results") : card.index("## Configuration")]
    for number in re.findall(r"\d+\.\d+|n=\d+", table):
        number = number.removeprefix("n=")
        assert number in evidence, number
    assert "0.125 [0.0625, 0.1875], n=64 | 0.75 [0.6875, 0.8125], n=64" in table


def test_a_run_cut_short_gives_a_card_that_says_what_is_missing(llama_config, tmp_path):
    card = model_card(llama_config, None, tmp_path)
    assert "no evaluation results" in card
    assert "no ledger.json" in card
