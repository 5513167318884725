import pytest
import seqio

from flanjax.data.tasks import task_info
from flanjax.eval.suites import resolve_evals
from mixtures import tiny

TASKS = [name for name in tiny._TASKS]


@pytest.mark.parametrize("name", TASKS)
def test_every_tiny_task_renders_within_the_smoke_runs_lengths(name, first_examples):
    for split in ("train", "test"):
        examples = first_examples(name, split)
        assert len(examples) == 3
        for example in examples:
            assert 0 < len(example["inputs"]) < 128
            assert 0 < len(example["targets"]) < 40
            shots = len(example["shot_ids"])
            assert shots in (1, 2) if "_fs_" in name else shots == 0


def test_test_sentences_are_never_trained_on():
    for name in ("tiny_mood", "tiny_group", "tiny_even", "tiny_sum_cot"):
        form = next(task for task in TASKS if task.startswith(name))
        source = seqio.TaskRegistry.get(form).source._task.source
        texts = {
            split: {r["text"] for r in source.rows(split)} for split in source.splits
        }
        assert not texts["train"] & texts["test"]
        assert not texts["validation"] & (texts["train"] | texts["test"])
        assert len(texts["train"]) >= 200 and len(texts["test"]) >= tiny.TEST_ROWS


def test_the_suite_has_a_few_shot_and_a_chain_of_thought_eval():
    specs = resolve_evals(["tiny_heldout"])
    assert any("_fs_" in spec.task for spec in specs)
    assert any(spec.style == "cot" and task_info(spec.task)["cot"] for spec in specs)
    assert {spec.split for spec in specs} == {"test"}


def test_the_mixture_holds_every_tiny_task():
    mixture = seqio.MixtureRegistry.get("tiny")
    assert {task.name for task in mixture.tasks} == set(TASKS)
