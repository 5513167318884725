"""What a run trains on, by arithmetic: rate -> share -> expected examples -> epochs.

    rows = ledger(resolved, steps=1000, batch_size=32, plan=plan)
    rows[0]["expected_examples"], rows[0]["epochs"]      # 8012.4, 0.85

`flanjax mixture show` prints it, a run keeps it as ledger.json, and the report sets the
realised counts beside it.
"""

import numpy as np

from flanjax.data.plan import Plan
from flanjax.data.problems import Problem, listed
from flanjax.data.store import Member, ResolvedMixture

# Blocks packed to estimate how many examples a row holds.
_ESTIMATE_BLOCKS = 2
_INFO_KEYS = ("collection", "dataset", "category", "prompt_type", "licence")


def ledger(
    resolved: ResolvedMixture,
    steps: int = 0,
    batch_size: int = 0,
    plan: Plan | None = None,
) -> list[dict]:
    """Returns one JSON-able row per task of a mixture.

    Args:
      resolved: the prepared mixture.
      steps: training steps.
      batch_size: rows of a batch.
      plan: its plan; without one, what needs a run is left out.

    Returns:
      Rows with task, collection, dataset, category, prompt_type, licence, rate, share,
      cap, examples (in the store), mean_inputs and mean_targets (tokens); with a plan
      also expected_examples, epochs (of source rows), expected_tokens (inputs and
      targets after trimming, EOS included) and token_share (of all expected target
      tokens, which is what the loss sees).
    """
    rows = [_prepared(member) for member in resolved.members]
    if plan is None:
        return rows
    total = steps * batch_size * examples_per_row(plan)
    lengths = [plan.layout.lengths(member.lengths) for member in plan.members]
    means = np.array([each.mean(axis=0) for each in lengths])
    loss_tokens = plan.shares * means[:, 1]
    for index, row in enumerate(rows):
        expected = total * row["share"]
        row["expected_examples"] = round(expected, 1)
        row["epochs"] = round(epochs(resolved, row, expected), 4)
        row["expected_tokens"] = round(expected * means[index].sum())
        row["token_share"] = float(loss_tokens[index] / loss_tokens.sum())
    return rows


def left_out(resolved: ResolvedMixture) -> list[str]:
    """Returns a text for each cause why tasks of the mixture are not in it."""
    return listed(Problem(**entry) for entry in resolved.missing)


def epochs(resolved: ResolvedMixture, row: dict, expected: float) -> float:
    """How often each source row of a task is seen when it gives `expected` examples.

    The store holds every row once per pass, with another template or other shots each
    time: a model that has seen all of two passes has seen each row twice.
    """
    return expected * resolved.passes / max(row["examples"], 1)


def examples_per_row(plan: Plan) -> float:
    """Mean examples in a packed row, from the first blocks."""
    blocks = [plan.block(number) for number in range(_ESTIMATE_BLOCKS)]
    examples = sum(len(block.members) for block in blocks)
    return examples / sum(block.num_rows for block in blocks)


def realised(rows: list[dict], counts: np.ndarray) -> list[dict]:
    """Returns ledger rows with realised_examples and realised_share of a run.

    Args:
      rows: from `ledger`.
      counts: int [members], the sum of `Batch.counts` over the run.
    """
    total = max(int(np.sum(counts)), 1)
    return [
        {**row, "realised_examples": int(count), "realised_share": int(count) / total}
        for row, count in zip(rows, counts, strict=True)
    ]


def _prepared(member: Member) -> dict:
    examples = member.num_examples
    return {
        "task": member.name,
        **{key: member.info.get(key) for key in _INFO_KEYS},
        "rate": member.rate,
        "share": member.share,
        "cap": member.cap,
        "examples": examples,
        "mean_inputs": round(member.info["inputs_tokens"] / max(examples, 1), 1),
        "mean_targets": round(member.info["targets_tokens"] / max(examples, 1), 1),
    }
