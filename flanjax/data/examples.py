"""Examples of a split of a task, as plain Python: rows, choices, rendering, exemplars.

    renderer = split_renderer(task, "train", seed=0, shuffle=False, vocabulary)
    renderer.examples(0, 100)            # the first hundred, dicts of texts

`flanjax.data.render` makes a TensorFlow dataset of the same.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from flanjax.data.choices import Choices, make_choices
from flanjax.data.instruction import InstructionTask
from flanjax.data.prompt_text import Rendered, Renderer
from flanjax.data.rows import RowTable, load_table
from flanjax.data.shot_text import ShotAssembler, ShotPrompt
from flanjax.data.vocabulary import Vocabulary

TEXTS = (
    "inputs",
    "targets",
    "row_id",
    "template_id",
    "prompt_type",
    "task_name",
    "collection",
)
LISTS = ("choices", "references", "shot_ids")

Example = dict[str, Any]


class ExampleRenderer:
    """Renders a split of a task by the choices made for it.

    Args:
      task: what to render.
      table: its rows.
      pool: rows that are exemplars; None if none are drawn.
      choices: from `make_choices`.
      vocabulary: what the few-shot budget is counted with.
    """

    def __init__(
        self,
        task: InstructionTask,
        table: RowTable,
        pool: RowTable | None,
        choices: Choices,
        vocabulary: Vocabulary,
    ):
        self._task, self._templates = task, task.templates()
        self._table, self._pool, self._choices = table, pool, choices
        switches = task.switches()
        self._renderer = Renderer(
            self._templates, table.fields, task.answer_field, not task.cot, switches
        )
        self._assembler = ShotAssembler(
            task.few_shot.max_tokens,
            lambda texts: list(map(len, vocabulary.encode_batch(list(texts)))),
            choices.separator,
            "budget_without_delimiters" not in switches,
        )

    def __len__(self) -> int:
        return len(self._choices)

    def examples(self, begin: int, end: int) -> list[Example]:
        """Returns some of the examples; fewer where no exemplar fits."""
        queries = [self._query(i) for i in range(begin, end)]
        if self._pool is None:
            return [self._example(i, q) for i, q in enumerate(queries, begin)]
        return list(self._with_shots(begin, queries, self._pool))

    def own_prompt(self, index: int) -> str:
        """Returns the prompt of an example's own row as it stands after exemplars."""
        template = self._templates[self._choices.templates[index]]
        return template.inputs_prefix + self._query(index).inputs

    def _query(self, index: int) -> Rendered:
        choices = self._choices
        return self._renderer.query(
            self._table,
            choices.rows[index],
            choices.templates[index],
            choices.option_styles[index],
            choices.dialog_styles[index],
        )

    def _example(self, index: int, rendered: Rendered) -> Example:
        task, choices = self._task, self._choices
        inline = task.is_few_shot
        return {
            "inputs": rendered.header + rendered.inputs if inline else rendered.inputs,
            "targets": rendered.targets,
            "row_id": self._table.row_ids[choices.rows[index]],
            "template_id": self._templates[choices.templates[index]].id,
            "prompt_type": task.prompt_type,
            "task_name": task.name,
            "collection": task.info.collection,
            "choices": rendered.choices,
            "references": rendered.references,
            "shot_ids": (),
        }

    def _with_shots(
        self, begin: int, queries: Sequence[Rendered], pool: RowTable
    ) -> Iterator[Example]:
        chosen = [self._shots(i) for i in range(begin, begin + len(queries))]
        prompts = []
        for index, (query, shots) in enumerate(zip(queries, chosen, strict=True)):
            template = self._templates[self._choices.templates[begin + index]]
            rendered = [
                (self._renderer.exemplar(pool, row, t), self._templates[t])
                for row, t in shots
            ]
            prompts.append(ShotPrompt(query, template, rendered))
        joined = self._assembler.join(prompts)
        for index, (text, kept) in enumerate(joined):
            if not kept and not self._task.few_shot.in_order:
                continue
            query, shots = queries[index], chosen[index]
            yield {
                **self._example(begin + index, query),
                "inputs": text,
                "targets": query.targets.strip(),
                "choices": [choice.strip() for choice in query.choices],
                "references": [each.strip() for each in query.references],
                "shot_ids": [pool.row_ids[row] for row, _ in shots[:kept]],
            }

    def _shots(self, index: int) -> list[tuple[int, int]]:
        """Returns row and template of each exemplar of a query."""
        choices = self._choices
        rows = choices.shots[index] if choices.shots is not None else ()
        templates = [choices.templates[index]] * len(rows)
        if choices.shot_templates is not None:
            templates = choices.shot_templates[index]
        return [(row, t) for row, t in zip(rows, templates, strict=True) if row >= 0]


def split_renderer(
    task: InstructionTask, split: str, seed: int, shuffle: bool, vocabulary: Vocabulary
) -> ExampleRenderer:
    """Reads a split, draws all choices and returns what renders it.

    Args:
      task: what to render.
      split: of its source.
      seed: of all draws.
      shuffle: whether examples come in shuffled order, or in the rows' own.
      vocabulary: what the few-shot budget is counted with.

    Raises:
      DataError: the data or a template is bad.
    """
    table, pool = _table(task, split), None
    if task.draws_shots:
        pool_split = task.exemplar_split or split
        pool = table if pool_split == split else _table(task, pool_split)
    count = len(task.templates())
    choices = make_choices(task, table, pool, count, split, seed, shuffle)
    return ExampleRenderer(task, table, pool, choices, vocabulary)


def shortest_prompt(task: InstructionTask, split: str, vocabulary: Vocabulary) -> int:
    """Returns the tokens of the shortest query with one exemplar, for messages."""
    one = dataclasses.replace(task.few_shot, shots=1, max_tokens=sys.maxsize)
    task = dataclasses.replace(task, few_shot=one)
    renderer = split_renderer(task, split, 0, False, vocabulary)
    texts = [e["inputs"] for e in renderer.examples(0, len(renderer))]
    return min(map(len, vocabulary.encode_batch(texts)), default=0)


def _table(task: InstructionTask, split: str) -> RowTable:
    return load_table(
        task.source,
        split,
        task.templates(),
        task.answer_field,
        task.many_options,
        "t0_newlines" in task.switches(),
    )
