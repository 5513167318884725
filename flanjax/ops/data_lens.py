"""Examples of a task or mixture, rendered now, and packed as a batch would be.

    look = look_at("tiny", "train", 12, seqio.TaskRegistry, seqio.MixtureRegistry,
                   load_vocabulary("bytes"))
    look.examples[0].task, look.examples[0].share
    packed(look.examples, layout, most=8)

No store is needed: each member chosen renders its split in Python, with the choices
that preparing makes (first pass, seed 0), and gives examples evenly spread over it. Of
a mixture, members are shown by share. Shares need every member's number of examples:
they are those of the prepared mixture if there is one, else rows are counted, and for
mixtures too large for that all tasks count as equally large (`exact` is False).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from flanjax.data.catalog import has_data
from flanjax.data.examples import ExampleRenderer, split_renderer
from flanjax.data.layout import Layout
from flanjax.data.mixing import Node, Registry, read_tree, resolve_shares
from flanjax.data.packing import pack
from flanjax.data.problems import Problem, listed
from flanjax.data.store import ResolvedMixture
from flanjax.data.tasks import instruction_task, task_examples, task_names
from flanjax.data.vocabulary import Vocabulary
from flanjax.errors import ConfigError, DataError, UserError
from flanjax.report.shown import PackedRow, Shown, packed_row

# Mixtures of more members are not counted: it would mean reading all their rows.
_COUNTED_MEMBERS = 48
# A few-shot query that no exemplar fits gives no example; the next rows are tried.
_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found.

    Attributes:
      name: of the task or mixture.
      is_mixture: whether it has members.
      members: tasks it is made of.
      examples: of a mixture, one of each member, then the second of each, ...
      exact: whether shares come from numbers of examples.
      left_out: a text for each cause why members could not be shown.
    """

    name: str
    is_mixture: bool
    members: int
    examples: list[Shown]
    exact: bool
    left_out: list[str]


def look_at(
    name: str,
    split: str,
    num: int,
    tasks: Registry,
    mixtures: Registry,
    vocabulary: Vocabulary,
    prepared: ResolvedMixture | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Look:
    """Renders examples of a task, or of the members of a mixture by share.

    Args:
      name: of the task or mixture.
      split: of every member.
      num: examples in all; each member has one if they suffice.
      tasks: `seqio.TaskRegistry`.
      mixtures: `seqio.MixtureRegistry`.
      vocabulary: what they are tokenised with.
      prepared: the prepared mixture, if there is one that is up to date.
      progress: told which member is rendered.

    Raises:
      ConfigError: an unknown name or split, or `num` is not positive.
      DataError: no member has data.
    """
    if num < 1:
        raise ConfigError(f"--num {num} shows nothing", fix="give a positive number")
    root = read_tree(name, tasks, mixtures)
    if not root.children:
        examples = _Member(root, split, vocabulary).examples(num)
        return Look(name, False, 1, examples, True, [])
    problems: list[Problem] = []
    shares, exact = _shares(root, split, prepared, problems)
    nodes = {node.name: node for node in root.tasks()}
    members: dict[str, _Member] = {}
    while shares:
        wanted = allocate(list(shares.values()), num)
        plan = {n: count for n, count in zip(shares, wanted, strict=True) if count}
        failed = None
        for member in (n for n in plan if n not in members):
            progress(f"rendering {member}")
            try:
                members[member] = _Member(nodes[member], split, vocabulary)
            except DataError as error:
                failed = member
                problems.append(_problem(member, split, error))
                break
        if failed is None:
            found = [
                [
                    dataclasses.replace(example, share=shares[member])
                    for example in members[member].examples(count)
                ]
                for member, count in plan.items()
            ]
            turns = itertools.zip_longest(*found)
            examples = [e for turn in turns for e in turn if e is not None]
            return Look(name, True, len(nodes), examples, exact, listed(problems))
        del shares[failed]
    lines = "\n  ".join(listed(problems))
    raise DataError(
        f"no member of mixture '{name}' can be shown:\n  {lines}",
        fix=problems[0].fix if problems else "prepare it",
    )


def allocate(shares: Sequence[float], num: int) -> list[int]:
    """Divides `num` examples among members by share.

    Each has one before any has two, if they suffice; otherwise they are spread evenly
    over the cumulative share. allocate([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    """
    first = 1 if num >= len(shares) else 0
    ends = np.cumsum(shares) / np.sum(shares) * (num - first * len(shares))
    ends = np.floor(ends + 0.5)
    return [first + int(n) for n in np.diff(ends, prepend=0)]


def _shares(
    root: Node,
    split: str,
    prepared: ResolvedMixture | None,
    problems: list[Problem],
) -> tuple[dict[str, float], bool]:
    """Shares of the members that have data, and whether they are exact."""
    if prepared is not None:
        problems += [Problem(**entry) for entry in prepared.missing]
        return {member.name: member.share for member in prepared.members}, True
    present = [n for n in root.tasks() if not _is_missing(n.name, split, problems)]
    exact = len(present) <= _COUNTED_MEMBERS
    counts: dict[str, int] = {}
    for node in present:
        try:
            number = node.task.num_input_examples(split) if exact else _MANY
            counts[node.name] = int(number or 1)
        except DataError as error:
            problems.append(_problem(node.name, split, error))
    if not counts:
        return {}, exact
    return {s.name: s.share for s in resolve_shares(root, counts)}, exact


# More than any cap, so that each task counts at its cap.
_MANY = 1 << 40


def _is_missing(name: str, split: str, problems: list[Problem]) -> bool:
    """Whether a member has no data; opens no file of those that have."""
    if name not in task_names():
        return False
    source = instruction_task(name).source
    if split in source.splits and has_data(source, split):
        return False
    try:
        _check_split(name, source.splits, split)
        source.fingerprint(split)
    except UserError as error:
        problems.append(_problem(name, split, error))
        return True
    return False


def _check_split(name: str, splits: Sequence[str], split: str) -> None:
    if split not in splits:
        raise ConfigError(
            f"there is no split '{split}', only {', '.join(splits)}",
            where=f"task {name}",
            fix="name one of these: --split",
        )


def _problem(name: str, split: str, error: UserError) -> Problem:
    collection = ""
    if name in task_names():
        collection = instruction_task(name).info.collection
    return Problem(name, split, error.what, error.where, error.fix, collection)


class _Member:
    """A task that can give examples.

    Raises:
      ConfigError: it has no such split.
      DataError: its data or a template is bad.
    """

    def __init__(self, node: Node, split: str, vocabulary: Vocabulary):
        self._name, self._split, self._vocabulary = node.name, split, vocabulary
        _check_split(node.name, node.task.splits, split)
        self._renderer: ExampleRenderer | None = None
        if node.name in task_names():
            task = instruction_task(node.name)
            self._renderer = split_renderer(task, split, 0, False, vocabulary)

    def examples(self, num: int) -> list[Shown]:
        """Returns `num` examples, fewer if there are no more."""
        if self._renderer is None:
            return [
                self._shown(e, e.get("inputs_pretokenized"), e["targets_pretokenized"])
                for e in task_examples(self._name, self._split, num)
            ]
        return [
            self._shown(example, example["inputs"], example["targets"], own)
            for example, own in self._spread(self._renderer, num)
        ]

    def _spread(
        self, renderer: ExampleRenderer, num: int
    ) -> list[tuple[dict[str, Any], str]]:
        """Examples evenly spread over the split, each with its own row's prompt."""
        found: dict[int, tuple[dict[str, Any], str]] = {}
        num = min(num, len(renderer))
        # Tasks made of the same rows begin at different ones.
        phase = crc32(self._name.encode()) / 2**32
        for number in range(num):
            place = int((number + phase) / num * len(renderer))
            for index in range(place, min(place + _TRIES, len(renderer))):
                made = renderer.examples(index, index + 1)
                if made and index not in found:
                    found[index] = made[0], renderer.own_prompt(index)
                    break
        return list(found.values())

    def _shown(
        self, features: Mapping[str, Any], inputs: Any, targets: str, own: str = ""
    ) -> Shown:
        inputs = inputs or ""
        ids = self._vocabulary.encode_batch([inputs, targets])
        has_shots = bool(features.get("shot_ids")) and own
        dataset = ""
        if self._renderer is not None:
            dataset = instruction_task(self._name).info.dataset
        return Shown.of(
            features,
            task=self._name,
            split=self._split,
            dataset=dataset,
            inputs=inputs,
            targets=targets,
            input_ids=ids[0],
            target_ids=ids[1],
            query_start=max(inputs.rfind(own), 0) if has_shots else 0,
        )


class _Tokens(NamedTuple):
    inputs: np.ndarray
    targets: np.ndarray


def packed(examples: Sequence[Shown], layout: Layout, most: int) -> list[PackedRow]:
    """Packs examples into rows and returns some of them, evenly spread.

    Args:
      examples: what to pack.
      layout: of the rows.
      most: rows to return at most.
    """
    raw = np.array([[len(e.input_ids), len(e.target_ids)] for e in examples])
    order, starts = pack(layout.sizes(raw), layout.limits)
    rows = [order[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
    count = min(most, len(rows))
    rows = [rows[number * len(rows) // count] for number in range(count)]
    features = layout.batch([[_tokens(examples[i]) for i in row] for row in rows])
    return [packed_row(features, n, row) for n, row in enumerate(rows)]


def _tokens(example: Shown) -> _Tokens:
    return _Tokens(
        np.array(example.input_ids, np.int32), np.array(example.target_ids, np.int32)
    )
