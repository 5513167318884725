"""Templates as TensorFlow string operations: chosen rows in, prompts and targets out.

A set of templates becomes two small tables, of literal parts and of which field stands
between them; filling one is a gather and a join. The graph has the same few operations
for one template or fifty, for a query or a vector of exemplars.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flanjax.data.options import COUNTS_THROUGH, ENDS, ITEM_NAMES, STARTS
from flanjax.data.rows import RowTable
from flanjax.data.templates import OPTIONS, Template, parse

Example = dict[str, tf.Tensor]


class TextTable:
    """The texts of several templates, as literals and field numbers between them.

    Args:
      texts: one text with `{fields}` for each template.
      columns: names of the values, in the order `fill` gets them.
    """

    def __init__(self, texts: Sequence[str], columns: Sequence[str]):
        parsed = [parse(text) for text in texts]
        slots = max(len(parts) for parts in parsed) - 1
        literals = np.full((len(texts), slots + 1), "", object)
        numbers = np.full((len(texts), slots), columns.index(""), np.int32)
        for row, parts in enumerate(parsed):
            for column, (literal, field) in enumerate(parts):
                literals[row, column] = literal
                if field is not None:
                    numbers[row, column] = columns.index(field)
        self._literals, self._numbers = tf.constant(literals), tf.constant(numbers)

    def fill(self, template: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Returns texts [...] of values [..., columns] in one template."""
        literals = self._literals[template]
        parts = tf.gather(values, self._numbers[template], axis=-1)
        joined = tf.strings.reduce_join(_add(literals[:-1], parts), axis=-1)
        return _add(joined, literals[-1])


class Renderer:
    """Makes inputs, targets and what they would be for other answers.

    Args:
      templates: those of one prompt type.
      fields: names of the columns of `values` in the examples.
      answer_field: the field that options and references are alternatives of.
      choices: whether to say what the target would be for each option.
    """

    def __init__(
        self,
        templates: Sequence[Template],
        fields: Sequence[str],
        answer_field: str,
        choices: bool,
    ):
        columns = [*fields, OPTIONS, ""]
        self._inputs = TextTable([t.inputs for t in templates], columns)
        self._targets = TextTable([t.targets for t in templates], columns)
        self._answer = fields.index(answer_field) if answer_field in fields else None
        self._is_answer = tf.constant([name == answer_field for name in columns])
        answers = [answer_field in _target_fields(t) for t in templates]
        self._targets_answer = tf.constant(answers)
        self._shows_options = tf.constant([t.shows_options for t in templates])
        self._choices = choices
        self._ids = tf.constant([t.id for t in templates])
        self._items, self._counts = tf.constant(ITEM_NAMES), tf.constant(COUNTS_THROUGH)
        self._starts, self._ends = tf.constant(STARTS), tf.constant(ENDS)

    def query(self, example: Example) -> Example:
        """Returns inputs, targets, choices, references and template_id of a row."""
        template, style = example["template"], example["style"]
        options = example["options"][: example["num_options"]]
        values = self._with_options(
            example["values"], example["options"], example["num_options"], style
        )
        rendered = {
            "inputs": self._inputs.fill(template, values),
            "template_id": self._ids[template],
            "choices": tf.constant([], tf.string),
            "references": tf.constant([], tf.string),
        }
        if self._answer is not None:
            # Numbered options are answered by their number, bullets by their text.
            numbered = self._counts[style[1]] & self._shows_options[template]
            names = tf.strings.strip(self._items[style[1]][: tf.shape(options)[0]])
            labels = tf.where(numbered, names, options)
            answer = values[self._answer]
            same = tf.strings.strip(options) == tf.strings.strip(answer)
            answer = tf.concat([tf.boolean_mask(labels, same), [answer]], axis=0)[0]
            if self._choices:
                rendered["choices"] = self._for_answers(template, values, labels)
            references = example["references"]
            rendered["references"] = self._for_answers(template, values, references)
            values = self._replace_answer(values, answer)
        return {**rendered, "targets": self._targets.fill(template, values)}

    def shots(self, example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns inputs and targets [shots] of the exemplars, in the query's form."""
        values = self._with_options(
            example["shot_values"],
            example["shot_options"],
            example["shot_num_options"],
            example["style"],
        )
        template = example["template"]
        inputs = self._inputs.fill(template, values)
        return inputs, self._targets.fill(template, values)

    def _with_options(
        self, values: tf.Tensor, options: tf.Tensor, count: tf.Tensor, style: tf.Tensor
    ) -> tf.Tensor:
        """Appends the columns of the formatted options and of nothing."""
        width = options.shape[-1]
        items = _add(_add(self._items[style[1]][:width], options), self._ends[style[2]])
        items = tf.where(tf.range(width) < tf.expand_dims(count, -1), items, "")
        block = _add(self._starts[style[0]], tf.strings.reduce_join(items, axis=-1))
        block = tf.expand_dims(tf.where(count > 0, block, ""), -1)
        return tf.concat([values, block, tf.fill(tf.shape(block), "")], axis=-1)

    def _for_answers(
        self, template: tf.Tensor, values: tf.Tensor, answers: tf.Tensor
    ) -> tf.Tensor:
        """Returns the target for each of several answers; none if it does not say."""
        count = tf.where(self._targets_answer[template], tf.size(answers), 0)
        replaced = self._replace_answer(values, answers[:count])
        return self._targets.fill(template, replaced)

    def _replace_answer(self, values: tf.Tensor, answer: tf.Tensor) -> tf.Tensor:
        """Returns values [..., columns] for one row and answers [...]."""
        return tf.where(self._is_answer, tf.expand_dims(answer, -1), values)


class ShotAssembler:
    """Puts exemplars before a query, as many as fit.

    Args:
      templates: those of one prompt type; their delimiters count.
      max_tokens: tokens that exemplars and query may have together.
      vocabulary: what the tokens are counted with.
    """

    def __init__(
        self,
        templates: Sequence[Template],
        max_tokens: int,
        vocabulary: seqio.Vocabulary,
    ):
        parts = [
            (t.inputs_prefix, t.x_y_delimiter, t.targets_prefix, t.example_separator)
            for t in templates
        ]
        self._parts = tf.constant(parts)
        self._max_tokens, self._vocabulary = max_tokens, vocabulary

    def __call__(self, example: Example) -> Example:
        """Replaces shot_inputs and shot_targets by the assembled inputs."""
        example = dict(example)
        parts = self._parts[example.pop("template")]
        before, between, lead, after = (parts[i] for i in range(4))
        inputs, targets = example.pop("shot_inputs"), example.pop("shot_targets")
        answers = _add(lead, _add(tf.strings.strip(targets), after))
        shots = _add(before, _add(inputs, _add(between, answers)))
        lead = tf.strings.regex_replace(lead, r"\s+$", "")
        query = tf.strings.join([before, example["inputs"], between, lead])
        tokens = tf.numpy_function(
            self._count, [tf.concat([shots, [query]], axis=0)], tf.int32, stateful=False
        )
        fits = tf.cumsum(tokens[:-1]) + tokens[-1] <= self._max_tokens
        kept = tf.reduce_sum(tf.cast(fits, tf.int32))
        prompt = tf.strings.join([tf.strings.reduce_join(shots[:kept]), query])
        example["inputs"] = tf.strings.regex_replace(prompt, " +$", "")
        example["targets"] = tf.strings.strip(example["targets"])
        example["choices"] = tf.strings.strip(example["choices"])
        example["references"] = tf.strings.strip(example["references"])
        example["shot_ids"] = example["shot_ids"][:kept]
        return example

    def _count(self, texts: np.ndarray) -> np.ndarray:
        encode = self._vocabulary.encode
        return np.array([len(encode(t.decode("utf-8"))) for t in texts], np.int32)


def rows_dataset(
    table: RowTable,
    chosen: dict[str, np.ndarray],
    shots: np.ndarray | None,
    pool: RowTable | None,
) -> tf.data.Dataset:
    """Looks up chosen rows and their exemplars.

    Args:
      table: the rows.
      chosen: "row", "template" and "style" of each example, in the order wanted.
      shots: int32 [examples, most shots] into the pool, -1 where there is none.
      pool: rows that are exemplars.

    Returns:
      Examples of template, style, row_id, values [fields], options, num_options,
      references; with shots also shot_ids, shot_values [shots, fields], shot_options
      and shot_num_options.
    """
    rows = {
        "row_id": tf.constant(table.row_ids),
        "values": _strings(table.values),
        "options": _strings(table.options),
        "num_options": tf.constant(table.num_options),
    }
    references = _strings(table.references)
    ends = tf.constant(table.reference_ends)
    elements: dict[str, Any] = dict(chosen)
    shot_rows = {}
    if pool is not None:
        elements["shots"] = shots
        shot_rows = {
            "shot_ids": tf.constant(pool.row_ids),
            "shot_values": _strings(pool.values),
            "shot_options": _strings(pool.options),
            "shot_num_options": tf.constant(pool.num_options),
        }

    def look_up(choice: Example) -> Example:
        row = choice["row"]
        example = {name: tf.gather(column, row) for name, column in rows.items()}
        example["references"] = references[ends[row] : ends[row + 1]]
        if shot_rows:
            numbers = tf.boolean_mask(choice["shots"], choice["shots"] >= 0)
            for name, column in shot_rows.items():
                example[name] = tf.gather(column, numbers)
        return {
            "template": choice["template"],
            "style": choice["style"],
            **example,
        }

    return map_examples(_slices(elements), look_up)


def map_examples(
    dataset: tf.data.Dataset, function: Callable[[Example], Example]
) -> tf.data.Dataset:
    """Maps in parallel, in order; the function must be free of Python control flow."""
    # AutoGraph has nothing to do here, and its first use costs half a second.
    function = tf.autograph.experimental.do_not_convert(function)
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)


def _slices(elements: dict[str, Any]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(elements)  # pyright: ignore


def _strings(values: np.ndarray) -> tf.Tensor:
    # TensorFlow takes an array without elements for numbers.
    return tf.constant(values.tolist(), tf.string, shape=values.shape)


def _target_fields(template: Template) -> list[str | None]:
    return [field for _, field in parse(template.targets)]


def _add(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Joins strings elementwise with broadcasting, which tf.strings.join lacks."""
    return tf.raw_ops.Add(x=left, y=right)
