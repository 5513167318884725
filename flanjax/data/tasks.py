"""Instruction tasks: rows and templates as SeqIO Tasks, one for each prompt type.

    add_instruction_task(
        "boolq", source, TemplateFile(path)["boolq"],
        TaskInfo("starter", "boolq", "yes_no", licence="CC BY-SA 3.0"),
        has_options=True)
    seqio.get_mixture_or_task("boolq_fs_opt").get_dataset(None, "train", seed=0)

Registering reads nothing; files are opened when a dataset is built. The prompt types
are FLAN's: zero-shot and few-shot, with the options shown or not. Chain-of-thought
tasks are tasks whose templates put a rationale into the target.

Examples hold, beside SeqIO's inputs and targets: row_id, template_id, prompt_type,
task_name, collection, shot_ids, choices (what the target would be for each option; none
when `cot`, where it would give the rationale away) and references (for each accepted
answer). All tasks have the same features, so that any of them can be mixed.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from flanjax.data.examples import ExampleRenderer, shortest_prompt, split_renderer
from flanjax.data.faithful import known_switches
from flanjax.data.fewshot import FewShot
from flanjax.data.instruction import InstructionTask, TaskInfo
from flanjax.data.render import examples_dataset
from flanjax.data.rows import MANY_OPTIONS, read_rows
from flanjax.data.seqio_vocabulary import LazyVocabulary
from flanjax.data.sources import Source
from flanjax.data.templates import PROMPT_TYPES, Template, TemplateGroup
from flanjax.errors import ConfigError, nearest

_ASSIGNMENTS = ("round_robin", "random", "all")
_STYLES = ("fixed", "random")
_PLAIN_CHUNK = 256

_TASKS: dict[str, InstructionTask] = {}


def add_instruction_task(
    name: str,
    source: Source,
    templates: TemplateGroup | Sequence[Template],
    info: TaskInfo,
    *,
    has_options: bool = False,
    prompt_types: Sequence[str] | None = None,
    few_shot: FewShot | None = None,
    exemplar_split: str | None = None,
    option_style: str = "fixed",
    template_assignment: str = "round_robin",
    cot: bool = False,
    answer_field: str = "answer",
    option_fields: Sequence[str] = (),
    form: str = "",
    inline_shots: bool = False,
    mix_shots: FewShot | None = None,
    many_options: str = "error",
    faithful: Sequence[str] = (),
) -> tuple[str, ...]:
    """Registers a dataset as SeqIO Tasks named `<name>_<prompt type>[_<form>]`.

    Args:
      name: base of the tasks' names.
      source: where rows come from; each split of it is a split of the tasks.
      templates: `TemplateFile(path)[group]`, or templates made in Python.
      info: what it is about.
      has_options: whether rows have `options` that templates show. The answer must be
        one of them; the public code lets it be another, here that is an error.
      prompt_types: of zs_opt, zs_noopt, fs_opt, fs_noopt. By default, as in FLAN: all
        four with options, zs_opt and fs_opt with `cot`, else zs_noopt and fs_noopt.
      few_shot: number of exemplars and token budget; default `FewShot()`.
      exemplar_split: split that exemplars come from; default the query's own.
      option_style: "fixed", or "random" for a format of options and dialogs drawn for
        each example of zs_opt (exemplars and their queries always have the fixed one).
      template_assignment: "round_robin" over the shuffled rows, "random", or "all".
      cot: whether targets hold a rationale.
      answer_field: the field that `options` and `references` are alternatives of.
      option_fields: other fields that give the options away; no-option templates must
        not use them.
      form: ends the names, where a dataset has several forms of one prompt type.
      inline_shots: the few-shot templates hold their exemplar themselves, as fields of
        the query's row; none are drawn.
      mix_shots: adds `<name>_fs_opt[_<form>]_mix`, in which each exemplar has its own
        template among those with `in_template_mix`, and one separator drawn for the
        task stands between them (FLAN's mix_five_shot is `FewShot(shots=5)`).
      many_options: of rows with more than 26 options, whose names run out: "error", or
        "bullets" to write them with bullets only.
      faithful: switches of `flanjax.data.faithful` that are always on here.

    Returns:
      Names of the registered tasks.

    Raises:
      ConfigError: an unknown choice, or a name that is taken.
    """
    prompt_types = prompt_types or _usual_types(has_options, cot)
    for value in prompt_types:
        _one_of(value, PROMPT_TYPES, "prompt type", name)
    _one_of(option_style, _STYLES, "option_style", name)
    _one_of(template_assignment, _ASSIGNMENTS, "template_assignment", name)
    _one_of(many_options, MANY_OPTIONS, "many_options", name)
    if exemplar_split is not None:
        _one_of(exemplar_split, source.splits, "exemplar_split", name)
    if mix_shots is not None:
        _one_of("fs_opt", prompt_types, "prompt type for mix_shots", name)
    if not isinstance(templates, TemplateGroup):
        templates = tuple(templates)
    forms = [(prompt_type, False) for prompt_type in prompt_types]
    forms += [("fs_opt", True)] if mix_shots is not None else []
    return tuple(
        _register(
            InstructionTask(
                base=name,
                prompt_type=prompt_type,
                source=source,
                template_source=templates,
                info=info,
                few_shot=(mix_shots if mixes else few_shot) or FewShot(),
                exemplar_split=exemplar_split,
                option_style=option_style,
                template_assignment=template_assignment,
                has_options=has_options,
                cot=cot,
                answer_field=answer_field,
                option_fields=tuple(option_fields),
                form=form,
                inline_shots=inline_shots,
                mixes_templates=mixes,
                many_options=many_options,
                faithful=known_switches(faithful, f"task {name}"),
            )
        )
        for prompt_type, mixes in forms
    )


def _usual_types(has_options: bool, cot: bool) -> Sequence[str]:
    if cot:
        return ("zs_opt", "fs_opt")
    return PROMPT_TYPES if has_options else ("zs_noopt", "fs_noopt")


def task_names() -> tuple[str, ...]:
    """Returns the names of all registered instruction tasks, in order."""
    return tuple(_TASKS)


def task_info(name: str) -> dict[str, Any]:
    """Returns what is known about a task; reads its templates, but no rows.

    Raises:
      ConfigError: there is no such task.
    """
    task = instruction_task(name)
    return {
        "name": name,
        "base": task.base,
        "prompt_type": task.prompt_type,
        "form": task.form,
        **asdict(task.info),
        "splits": task.source.splits,
        "cot": task.cot,
        "few_shot": asdict(task.few_shot) if task.draws_shots else None,
        "inline_shots": task.inline_shots and task.is_few_shot,
        "mixes_templates": task.mixes_templates,
        "exemplar_split": task.exemplar_split,
        "option_style": "random" if task.draws_formats else "fixed",
        "many_options": task.many_options,
        "faithful": sorted(task.switches()),
        "template_assignment": task.template_assignment,
        "template_file": str(getattr(task.template_source, "path", "")) or None,
        "template_hashes": {t.id: t.hash for t in task.templates()},
        "fingerprint": task.fingerprint,
        "where": task.source.where,
    }


def import_mixtures(modules: Sequence[str]) -> None:
    """Imports the modules that register tasks and mixtures.

    They may lie in the working directory, which an installed command does not search.

    Raises:
      ConfigError: there is no such module, or it registers a name twice or a mixture
        of unknown members.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise  # Something that the module itself imports.
            raise ConfigError(
                f"no module '{module}'",
                fix="start where its folder lies, or put that on PYTHONPATH",
            ) from error
        except ValueError as error:
            frames = traceback.extract_tb(error.__traceback__)
            if os.path.dirname(seqio.__file__) not in frames[-1].filename:
                raise
            seen = [f for f in frames if f.filename != __file__]
            own = [f for f in seen if "seqio" not in Path(f.filename).parts]
            raise ConfigError(
                f"SeqIO refuses what module '{module}' registers: {error}",
                where=f"{own[-1].filename}:{own[-1].lineno}",
                fix="give every task and mixture a name of its own, and register the "
                "members of a mixture before it; a mixture cannot hold itself",
            ) from error


def task_examples(
    name: str, split: str, num: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the first examples of a SeqIO task or mixture, to look at.

    Returns:
      Dicts that JSON can write: the features of the module's docstring, with ids in
      inputs and targets and the texts beside them (`inputs_pretokenized`, ...).

    Raises:
      ConfigError: an unknown name or split.
      DataError: the data or a template is bad.
    """
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if name not in known:
        raise ConfigError(
            f"no task or mixture '{name}'.{nearest(name, known)}",
            fix="list them with `flanjax tasks`; `--mixtures` names their module",
        )
    provider = seqio.get_mixture_or_task(name)
    dataset = provider.get_dataset(None, split, shuffle=False, seed=seed)
    examples = dataset.take(num).as_numpy_iterator()
    return [
        {key: _plain(np.asarray(value).tolist()) for key, value in e.items()}
        for e in examples
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return [_plain(each) for each in value] if isinstance(value, list) else value


def instruction_task(name: str) -> InstructionTask:
    """Returns what stands behind a SeqIO task of this module.

    Raises:
      ConfigError: there is no such task.
    """
    if name not in _TASKS:
        raise ConfigError(
            f"no instruction task '{name}'.{nearest(name, _TASKS)}",
            fix="import the module that registers it, or correct the name",
        )
    return _TASKS[name]


def _one_of(value: str, known: Sequence[str], what: str, task: str) -> None:
    if value not in known:
        raise ConfigError(
            f"unknown {what} '{value}'.{nearest(value, known)}",
            where=f"task {task}",
            fix=f"use one of: {', '.join(known)}",
        )


def _register(task: InstructionTask) -> str:
    if task.name in seqio.TaskRegistry.names():
        raise ConfigError(
            f"a task named '{task.name}' exists already",
            where=f"task {task.base}",
            fix="choose another name",
        )
    feature = seqio.Feature(LazyVocabulary(), add_eos=True)
    seqio.TaskRegistry.add(
        task.name,
        source=_RenderedSource(task),
        output_features={"inputs": feature, "targets": feature},
        preprocessors=[
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
    )
    _TASKS[task.name] = task
    return task.name


class _RenderedSource(seqio.DataSource):
    """SeqIO's view of a task: a source of prompts and targets."""

    def __init__(self, task: InstructionTask):
        super().__init__(splits=task.source.splits)
        self._task = task

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def num_input_examples(self, split: str) -> int:
        task, rows = self._task, len(read_rows(self._task.source, split))
        templates = len(task.templates())
        if "drop_incomplete_round" in task.switches():
            return rows - rows % templates
        return rows * (templates if task.template_assignment == "all" else 1)

    def get_dataset(
        self, split="train", shuffle=True, seed=None, shard_info=None, **unused
    ) -> tf.data.Dataset:
        """Makes the dataset; the same seed gives the same, None counts as 0."""
        del shard_info, unused  # SeqIO shards the examples of a single shard itself.
        return examples_dataset(self._renderer(split, shuffle, seed))

    def plain_examples(
        self, split: str, shuffle: bool, seed: int | None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields the dataset's examples as dicts of texts, some hundreds at a time.

        The same function renders both; what SeqIO and TensorFlow do besides takes ten
        times as long. See `flanjax.data.examples`.
        """
        renderer = self._renderer(split, shuffle, seed)
        for begin in range(0, len(renderer), _PLAIN_CHUNK):
            end = min(begin + _PLAIN_CHUNK, len(renderer))
            yield renderer.examples(begin, end)

    def shortest_prompt(self, split: str) -> int:
        """See `flanjax.data.examples.shortest_prompt`."""
        return shortest_prompt(self._task, split, LazyVocabulary().vocabulary)

    def _renderer(self, split: str, shuffle: bool, seed: Any) -> ExampleRenderer:
        seed = 0 if seed is None else int(seed)
        vocabulary = LazyVocabulary().vocabulary
        return split_renderer(self._task, split, seed, shuffle, vocabulary)
