r"""Chain of thought: the nine sets of FLAN 2022, forward and turned around.

    cot_gsm8k_zs_opt            question -> rationale, closing phrase, answer
    cot_gsm8k_fs_opt            two or three exemplars of one template before it
    cot_gsm8k_fs_opt_mix        five exemplars, each of its own template
    cot_inverted_gsm8k_zs_opt   one part -> the others: input inversion

The files are FLAN's, `<data root>/cot/<set>_train.tsv`, also with .gz: question, answer
and chain of thought, separated by tabs, a literal \n for a newline:
https://github.com/google-research/FLAN/tree/main/flan/v2/cot_data

Options stand inside the questions, so tasks have the "opt" prompt types only. The
rationales of the two "stream" sets are of lower quality, and their templates ask for a
stream of thought; so it is in the paper's data: https://arxiv.org/abs/2210.11416, A.4
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from flanjax.data.fewshot import FewShot
from flanjax.data.located import data_root
from flanjax.data.readers import Row
from flanjax.data.sources import TsvSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile
from flanjax.errors import DataError

TEMPLATES = Path(__file__).parent / "templates"
_PUBLIC = "https://github.com/google-research/FLAN/tree/main/flan/v2/cot_data"


@dataclass(frozen=True)
class CotSet:
    """One of the nine.

    Attributes:
      base: base of the names of its forward tasks.
      category: of the public table of tasks.
      lines: of the public file.
      rounds_of: zero-shot templates; FLAN deals rows out to them in rounds and drops
        an incomplete last one, which flanjax does not.
      licence: of the set.
    """

    base: str
    category: str
    lines: int
    rounds_of: int
    licence: str

    @property
    def used(self) -> int:
        """Examples that FLAN and the paper (A.4) count."""
        return self.lines - self.lines % self.rounds_of


# Categories and lines: flan/v2/flan_collection_info.csv and constants.py of FLAN.
SETS: dict[str, CotSet] = {
    "gsm8k": CotSet("cot_gsm8k", "Grade School Math Word Problems", 7_473, 10, "MIT"),
    "strategyqa": CotSet("cot_strategyqa", "Question Answering", 2_061, 10, "MIT"),
    "creak": CotSet(
        "cot_creak", "Common Sense Reasoning over Entity Knowledge", 6_915, 10, "MIT"
    ),
    "qasc": CotSet("cot_qasc", "Question Answering", 1_084, 10, "CC BY 4.0"),
    "esnli": CotSet(
        "cot_esnli", "Natural Language Inference", 36_174, 10, "CC BY-SA 4.0"
    ),
    "ecqa": CotSet(
        "cot_ecqa",
        "Common Sense Reasoning Question Answering",
        7_112,
        10,
        "CDLA-Sharing-1.0",
    ),
    "sensemaking": CotSet(
        "cot_sensemaking", "Sense Making and Explanation", 6_070, 10, "unknown"
    ),
    "aqua": CotSet(
        "stream_aqua", "Algebraic Question Answering", 2_728, 15, "Apache-2.0"
    ),
    "qed": CotSet(
        "stream_qed",
        "Passage-Based Question Answering / NLI",
        5_154,
        15,
        "CC BY-SA 3.0",
    ),
}
COLUMNS = ("question", "answer", "rationale")
# FLAN's x-shot keeps those of 25 exemplars that have the query's template: two or three
# of each of ten templates, one or two of 15 or 18.
SHOTS, FEWER_SHOTS = FewShot(shots=(2, 3)), FewShot(shots=(1, 2))
MIX_SHOTS = FewShot(shots=5)


def source(name: str) -> TsvSource:
    """Rows of a set: question, answer and rationale, stripped."""
    return TsvSource(
        {"train": functools.partial(_file, name)}, columns=COLUMNS, fields=_fields
    )


def _file(name: str) -> Path:
    plain = data_root() / "cot" / f"{name}_train.tsv"
    packed = plain.with_name(f"{plain.name}.gz")
    for path in (plain, packed):
        if path.exists():
            return path
    raise DataError(
        f"no chain-of-thought file '{plain.name}' or '{packed.name}'",
        where=str(plain.parent),
        fix=f"copy it there from {_PUBLIC}, or set FLANJAX_DATA",
    )


def _fields(row: Row) -> Row | None:
    """None for a row that lacks a part; templates write the answer's full stop."""
    question, answer, rationale = (row[name].strip() for name in COLUMNS)
    if not (question and answer and rationale):
        return None
    return {
        "question": question,
        "answer": answer.removesuffix("."),
        "rationale": rationale,
    }


def _register(name: str, cot_set: CotSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = source(name)
    stream = cot_set.base.startswith("stream_")
    forward = add_instruction_task(
        cot_set.base,
        rows,
        TemplateFile(TEMPLATES / "cot.toml")[cot_set.base],
        TaskInfo("cot", cot_set.base, cot_set.category, licence=cot_set.licence),
        few_shot=FEWER_SHOTS if stream else SHOTS,
        mix_shots=MIX_SHOTS,
        cot=True,
    )
    inverted = add_instruction_task(
        f"cot_inverted_{name}",
        rows,
        TemplateFile(TEMPLATES / "cot_inverted.toml")["cot_inverted"],
        TaskInfo("cot", cot_set.base, "Input Inversion", licence=cot_set.licence),
        few_shot=FEWER_SHOTS,
        mix_shots=MIX_SHOTS,
        cot=True,
    )
    return forward, inverted


FORWARD: dict[str, tuple[str, ...]] = {}
INVERTED: dict[str, tuple[str, ...]] = {}
for _name, _set in SETS.items():
    FORWARD[_set.base], INVERTED[f"cot_inverted_{_name}"] = _register(_name, _set)
BASES = FORWARD | INVERTED
