"""The choices made for each example: its row, template, formats and exemplars.

Everything random about a task's examples is drawn here with NumPy, keyed by (seed,
task, split). What follows, the rendering, is a pure function of it, so that two builds
with one seed are equal.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from flanjax.data.dialog_formats import (
    FIXED_DIALOG,
    FUSED_STARTS,
    STARTS,
    draw_dialog_styles,
)
from flanjax.data.fewshot import choose_shots, draw_shot_templates
from flanjax.data.instruction import InstructionTask
from flanjax.data.options import FIXED_STYLE, MAX_OPTIONS, draw_styles, with_bullets
from flanjax.data.rows import RowTable

# Between exemplars with a template each, one for the whole task.
SEPARATORS = ("\n", "\n\n", "\n\n\n")


@dataclass(frozen=True)
class Choices:
    """What is shown in each example, as numbers.

    Attributes:
      rows: int32 [examples], row of the table.
      templates: int32 [examples].
      option_styles: int32 [examples, 3].
      dialog_styles: int32 [examples, 3].
      shots: int32 [examples, most exemplars] into the pool, -1 where there is none;
        None where none are drawn.
      shot_templates: int32 [examples, most exemplars]; None where it is the query's.
      separator: between exemplars; None for that of the template.
    """

    rows: np.ndarray
    templates: np.ndarray
    option_styles: np.ndarray
    dialog_styles: np.ndarray
    shots: np.ndarray | None
    shot_templates: np.ndarray | None
    separator: str | None

    def __len__(self) -> int:
        return len(self.rows)


def make_choices(
    task: InstructionTask,
    table: RowTable,
    pool: RowTable | None,
    num_templates: int,
    split: str,
    seed: int,
    shuffle: bool,
) -> Choices:
    """Draws all that is drawn for a split of a task.

    Args:
      task: what to draw for.
      table: its rows.
      pool: rows that may be exemplars; None if none are drawn.
      num_templates: of its prompt type.
      split: that the rows are from.
      seed: of all draws.
      shuffle: whether examples come in shuffled order, or in the rows' own.
    """
    rng, switches = task_rng(seed, task.name, split), task.switches()
    rows, templates, order = assign_templates(
        len(table.row_ids),
        num_templates,
        task.template_assignment,
        rng,
        "drop_incomplete_round" in switches,
    )
    option_styles = np.tile(np.array(FIXED_STYLE, np.int32), (len(rows), 1))
    dialog_styles = np.tile(np.array(FIXED_DIALOG, np.int32), (len(rows), 1))
    if task.draws_formats:
        option_styles = draw_styles(len(rows), rng)
        for index, row in enumerate(rows):
            if len(table.options[row]) > MAX_OPTIONS:
                option_styles[index] = with_bullets(option_styles[index])
    shots = shot_templates = separator = None
    if pool is not None:
        shots = choose_shots(
            [table.keys[row] for row in rows],
            pool.keys,
            [table.groups[row] for row in rows],
            pool.groups,
            task.few_shot,
            rng,
            "self_exemplars" in switches,
        )
    if shots is not None and task.mixes_templates:
        shot_templates = draw_shot_templates(shots.shape, num_templates, rng)
        draw = task_rng(seed, task.name, "").integers(len(SEPARATORS))
        separator = SEPARATORS[draw]
    if task.draws_formats and table.dialogs and table.dialogs[0]:
        starts = FUSED_STARTS if "dialog_starts" in switches else STARTS
        dialog_styles = draw_dialog_styles(len(rows), rng, starts)
    order = order if shuffle else np.sort(order)
    return Choices(
        rows=rows[order],
        templates=templates[order],
        option_styles=option_styles[order],
        dialog_styles=dialog_styles[order],
        shots=None if shots is None else shots[order],
        shot_templates=None if shot_templates is None else shot_templates[order],
        separator=separator,
    )


def task_rng(seed: int, task: str, split: str) -> np.random.Generator:
    """Returns the generator of a task's choices."""
    keys = [seed, zlib.crc32(task.encode()), zlib.crc32(split.encode())]
    return np.random.default_rng(keys)


def assign_templates(
    num_rows: int,
    num_templates: int,
    assignment: str,
    rng: np.random.Generator,
    whole_rounds: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives templates to rows.

    Args:
      num_rows: how many rows there are.
      num_templates: how many templates there are.
      assignment: "round_robin" (position in a shuffled order, modulo the number of
        templates), "random", or "all" (each row once with every template).
      rng: where the shuffle comes from.
      whole_rounds: whether the last rows of the shuffled order, too few to have each
        template once more, are left out (the switch "drop_incomplete_round").

    Returns:
      int32 (rows, templates, order): example i is row rows[i] with templates[i];
      `order` lists the examples in shuffled order.
    """
    copies = num_templates if assignment == "all" else 1
    rows = np.repeat(np.arange(num_rows, dtype=np.int32), copies)
    order = rng.permutation(len(rows)).astype(np.int32)
    if assignment == "all":
        templates = np.tile(np.arange(num_templates, dtype=np.int32), num_rows)
    elif assignment == "random":
        templates = rng.integers(num_templates, size=num_rows).astype(np.int32)
    else:
        templates = np.empty(num_rows, np.int32)
        templates[order] = np.arange(num_rows, dtype=np.int32) % num_templates
        if whole_rounds:
            order = order[: num_rows - num_rows % num_templates]
    return rows, templates, order
