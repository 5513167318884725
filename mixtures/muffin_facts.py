"""The public code's table of the Muffin tasks: names, fields, counts, weights.

    facts()["rte"].capped_cases    # its weight in the mixture: 2,290
    facts()["rte"].fields          # ("premise", "hypothesis", "answer")

The table is `tables/muffin.tsv`; its first line says where the figures are from.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).parent / "tables" / "muffin.tsv"


@dataclass(frozen=True)
class MuffinFacts:
    """What the public code says of a task.

    Attributes:
      task: name of the SeqIO task there, base of the names here.
      cluster: key of its task cluster.
      tfds: name and version in TFDS; empty where the code has none.
      fields: those that its templates use.
      has_options: whether its templates show options.
      unusual_templates: how many of ten ask for something other than the answer.
      zero_shot_cases: examples in one round of its zero-shot form.
      x_shot_cases: the same of its few-shot form.
      capped_cases: its weight, the zero-shot cases up to 30,000.
      public: whether the public code has it; the paper counts one more.
    """

    task: str
    cluster: str
    tfds: str
    fields: tuple[str, ...]
    has_options: bool
    unusual_templates: int
    zero_shot_cases: int
    x_shot_cases: int
    capped_cases: int
    public: bool


@functools.cache
def facts() -> dict[str, MuffinFacts]:
    """Reads the table: task -> what the public code says of it."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()[2:]
    rows = [line.split("\t") for line in lines]
    return {row[0]: _facts(row) for row in rows}


def _facts(row: list[str]) -> MuffinFacts:
    task, cluster, tfds, fields, options, *numbers, public = row
    unusual, zero_shot, x_shot, capped = map(int, numbers)
    return MuffinFacts(
        task=task,
        cluster=cluster,
        tfds=tfds,
        fields=tuple(fields.split(",")),
        has_options=options == "yes",
        unusual_templates=unusual,
        zero_shot_cases=zero_shot,
        x_shot_cases=x_shot,
        capped_cases=capped,
        public=public == "yes",
    )
