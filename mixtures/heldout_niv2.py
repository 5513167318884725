"""Super-NaturalInstructions, the official test split: 119 tasks never trained on there.

    niv2_test_task1388_cb_entailment_fs_noopt

As in the official evaluation (https://arxiv.org/abs/2204.07705), a prompt is the
definition and two positive examples, and of each task the first 100 instances count.
FLAN trains on most of these tasks: for a model of it they are not held out.

Files: `niv2/tasks/*.json` of the data root, those of `mixtures.niv2`.
"""

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

from flanjax.data.located import data_root
from flanjax.data.natural_instructions import EXAMPLES, NaturalInstructionsSource
from mixtures.heldout_files import HeldOut, templates

INSTANCES = 100
_TABLE = Path(__file__).parent / "tables" / "niv2.tsv"


def test_tasks() -> dict[str, dict[str, str]]:
    """Returns the test tasks: name without hyphens -> a line of `tables/niv2.tsv`.

    Names there are cut at the first dot, and one task is listed in two spellings.
    """
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        next(stream)  # Where the facts are from.
        lines = csv.DictReader(stream, delimiter="\t")
        tests = sorted(
            (line for line in lines if line["split"] == "test"),
            key=lambda line: line["name"],
            reverse=True,
        )
    return {line["name"].replace("-", "_"): line for line in tests}


def held_out() -> Iterator[HeldOut]:
    """Yields the test tasks, in the order of their names."""
    lines = test_tasks()
    for name in sorted(lines):
        path = functools.partial(_file, lines[name]["name"])
        yield HeldOut(
            base=f"niv2_test_{name}",
            suite="niv2_test",
            source=NaturalInstructionsSource(path, "test", INSTANCES),
            templates=templates("niv2", "niv2"),
            prompt_type="fs_noopt",
            shots=2,
            exemplars=EXAMPLES,
            dataset=name,
            category=lines[name]["category"],
            languages=tuple(lines[name]["languages"].split(",")),
            licence="Apache-2.0",
            kind="open",
            extractor="text",
            scorers=("exact_match", "exact_match_flexible", "f1"),
            max_decode_tokens=128,
            stop=("\n\nInput:",),
            answer_field="output",
        )


def _file(name: str) -> Path:
    """Path of a task's file, in whose own name a dot and more may follow."""
    folder = data_root() / "niv2" / "tasks"
    found = sorted(folder.glob(f"{name}.*json"))
    return found[0] if found else folder / f"{name}.json"
