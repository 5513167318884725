"""A realistic run directory in the format that training writes, made from a seed."""

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flanjax.eval.records import rescore, score_record, write_records
from flanjax.train.metrics import MetricWriter

STEPS, EVAL_PERIOD, TASK_COUNT = 300, 100, 14
EVALS = {
    "boolq_heldout": ("yes_no", ["yes", "no"], 0.31, 0.62),
    "commonsense_qa_heldout": (
        "choice",
        ["river", "bank", "moon", "desk", "cat"],
        0.1,
        0.34,
    ),
    "nq_open_heldout": ("open", [], 0.02, 0.07),
    "asdiv_heldout": ("arithmetic", [], 0.04, 0.12),
}
EXTRACTORS = {
    "yes_no": "yes_no",
    "choice": "choice",
    "open": "text",
    "arithmetic": "number",
}
DATASETS = ("hellaswag", "piqa", "siqa", "openbookqa", "logiqa", "truthfulqa", "xsum")
CONFIG = """\
import flanjax.config
MODEL_DIR = 'runs/quickstart'
TRAIN_STEPS = 300

# Parameters for RunConfig:
# ==============================================================================
RunConfig.model = @DecoderConfig()
RunConfig.initial_checkpoint = 'gguf:smollm2'
RunConfig.train_steps = %TRAIN_STEPS
RunConfig.model_dir = %MODEL_DIR
RunConfig.seed = 0
DataConfig.batch_size = 8
DataConfig.feature_lengths = \\
    {'inputs': 192, 'targets': 64}
OptimizerConfig.name = 'adamw'
ScheduleConfig.base_learning_rate = 0.001
LoraConfig.rank = 16
PrepareConfig.mixture = 'starter'
"""


def _answer(rng: random.Random, kind: str, gold: str, wrong: str, right: bool) -> str:
    """A right answer in the asked form; a wrong one rambles or says nothing."""
    if right:
        return gold
    if kind in ("choice", "yes_no") and rng.random() < 0.5:
        return f"The answer is {gold if rng.random() < 0.6 else wrong}."
    return rng.choice([wrong, "", f"I think that {wrong}", "Let me explain"])


def records(name: str, step: int, n: int = 60) -> list[dict[str, Any]]:
    """Scored records of one eval; the same questions at every step."""
    kind, options, start, end = EVALS[name]
    questions, answers = random.Random(name), random.Random(f"{name}{step}")
    rate = start + (end - start) * (1 - math.exp(-3 * step / STEPS))
    made = []
    for i in range(n):
        gold = questions.choice(options or ["17", "42", "1912", "90"])
        wrong = questions.choice([o for o in options if o != gold] or ["23", "eight"])
        ease = questions.random()
        right = ease < rate + answers.uniform(-0.08, 0.08)
        made.append(
            score_record(
                {
                    "eval": name,
                    "kind": kind,
                    "index": i,
                    "row_id": f"{name}:{i + 1}",
                    "prompt": "Answer the question.\n\n"
                    + "Q: Is rain wet? A: yes\n\n" * 24
                    + f"Q: Passage {i} tells of a river and a bank. What is it? A:",
                    "output": _answer(answers, kind, gold, wrong, right),
                    "gold": [gold],
                    "extractor": EXTRACTORS[kind],
                    "style": "direct",
                    "scorers": ["exact_match", "exact_match_flexible"]
                    + (["f1"] if kind == "open" else []),
                    "choices": options,
                    "choice_logprobs": [
                        answers.gauss(0.4 if o == gold else 0, 1) - 3 for o in options
                    ],
                    "choice_lengths": [1 for _ in options],
                    "template_id": f"{name.removesuffix('_heldout')}/{i % 5}",
                    "prompt_type": "fs_opt",
                    "prompt_hash": f"{i:08x}",
                    "shot_ids": ["train:3", "train:8"],
                    "truncated": name.startswith("nq") and i < 4,
                    "finished": i % 9 > 0,
                }
            )
        )
    return made


def ledger(steps: int) -> dict[str, Any]:
    """Fourteen tasks of seven datasets; one small dataset is repeated too often."""
    rng, rows = random.Random(1), []
    names = [f"{d}_{p}" for d in DATASETS for p in ("zs_opt", "fs_opt")]
    rates = [rng.randint(40, 400) for _ in names]
    for name, rate in zip(names, rates, strict=True):
        dataset, prompt_type = name.split("_", 1)
        share, examples = rate / sum(rates), rng.randint(900, 9000)
        if dataset == "piqa":
            examples = 60
        rows.append(
            {
                "task": name,
                "collection": "starter" if dataset != "xsum" else "starter, summaries",
                "dataset": dataset,
                "category": "commonsense" if dataset != "xsum" else "summarisation",
                "licence": "Apache-2.0" if dataset < "p" else "CC BY 4.0",
                "prompt_type": prompt_type,
                "rate": rate,
                "share": share,
                "token_share": share,
                "cap": 3000,
                "examples": examples,
                "expected_examples": 8 * 3.1 * STEPS * share,
                "epochs": 8 * 3.1 * STEPS * share / examples,
                "realised_examples": round(
                    8 * 3.1 * steps * share + rng.uniform(-1, 1)
                ),
                "realised_share": share + rng.uniform(-0.0008, 0.0008),
                "inputs_truncated": 0.031 if dataset == "xsum" else 0.0,
                "targets_truncated": 0.004 if name == "xsum_fs_opt" else 0.0,
            }
        )
    return {"mixture": "starter", "members": rows}


def _write_metrics(run_dir: Path, steps: int) -> None:
    rng = random.Random(2)
    writer = MetricWriter(run_dir)
    # TensorBoard files are not what is tested here, and slow to write.
    writer._write_board = lambda *_: None
    for step in range(0, steps + 1):
        if step:
            loss = 1.1 + 2.3 * math.exp(-step / 45)
            writer.write(
                step,
                "train",
                {
                    "loss": loss + rng.gauss(0, 0.16),
                    "learning_rate": 1e-3
                    * min(1, step / 30)
                    * (1 - 0.9 * step / STEPS),
                    "tokens": 1500 + rng.randint(-80, 80),
                    "tokens_per_second": 1080 + rng.gauss(0, 40),
                    "data_wait_seconds": abs(rng.gauss(0.004, 0.003)),
                    "step_seconds": 1.4 + rng.gauss(0, 0.03),
                    "grad_norm": 0.8 + math.exp(-step / 20) + abs(rng.gauss(0, 0.2)),
                    "mfu": 0.31,
                    "batch_hash": "ab12",
                },
            )
        if step % EVAL_PERIOD == 0:
            losses = {
                f"validation/{d}_zs_opt/loss": 1.0
                + 0.1 * i
                + (1.6 + 0.1 * i) * math.exp(-step / 80)
                for i, d in enumerate(DATASETS)
            }
            losses["validation/all/loss"] = sum(losses.values()) / len(losses)
            writer.write(step, "validation", losses)
    if steps > 150:
        writer.write(150, "event", {"event": "resumed", "from": "checkpoint 150"})
    writer.close()


def make_run(run_dir: Path, state: str = "finished", steps: int = STEPS) -> Path:
    """Writes a run directory as training leaves it after `steps` steps."""
    run_dir.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for step in range(0, steps + 1, EVAL_PERIOD):
        results[str(step)] = {
            "validation/piqa_zs_opt": {"loss": {"value": 1.2, "n": 9}}
        }
        for name in EVALS:
            made = records(name, step)
            write_records(run_dir / "records" / str(step) / f"{name}.jsonl.zst", made)
            results[str(step)][name] = {
                metric: dataclasses.asdict(score)
                for metric, score in rescore(made).items()
            }
    files = {
        "results.json": results,
        "ledger.json": ledger(steps),
        "status.json": {
            "state": state,
            "steps_done": steps,
            "steps_total": STEPS,
            "started": time.time() - 700,
            "seconds": {
                "training": 421.3,
                "evaluating": 150.2,
                "compiling the train step": 38.4,
                "fetching": 9.1,
                "writing the report": 0.6,
            },
            "message": "" if state == "finished" else "stopped by SIGTERM",
        },
        "environment.json": {
            "flanjax": "0.1.0",
            "python": "3.13.1",
            "packages": {"jax": "0.12.0", "flax": "0.12.12", "numpy": "2.3.1"},
            "platform": "Linux-6.1-x86_64",
            "cpu_count": 2,
            "command": "/home/u/flanjax/.venv/bin/flanjax train "
            "--gin_file=gin/recipes/quickstart.gin",
            "git": {"commit": "0361d89a", "changed_files": 2},
            "model": {"embed": 576},
            "parameters": 134_515_008,
            "trainable_parameters": 4_884_480,
            "devices": "1 x cpu",
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "peak_flops": 6.4e10,
        },
    }
    for name, value in files.items():
        (run_dir / name).write_text(json.dumps(value))
    (run_dir / "config.gin").write_text(CONFIG)
    _write_metrics(run_dir, steps)
    return run_dir


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it must copy it."""
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes run directories: new_run(state="interrupted", steps=120)."""
    return lambda **options: make_run(tmp_path / "run", **options)
