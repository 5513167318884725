"""What an instruction task is, before SeqIO: rows, templates and the choices made.

`flanjax.data.tasks` registers these as SeqIO Tasks; nothing here needs TensorFlow.
"""

import dataclasses
from dataclasses import dataclass

from flanjax.data.faithful import active
from flanjax.data.fewshot import FewShot
from flanjax.data.identity import digest
from flanjax.data.sources import Source
from flanjax.data.templates import (
    OPTIONS,
    Template,
    TemplateGroup,
    check_no_options,
)
from flanjax.errors import DataError

# Part of every fingerprint: raise it when the same input gives other examples.
RENDER_VERSION = 2


@dataclass(frozen=True)
class TaskInfo:
    """What a task is about.

    Args:
      collection: the collection it belongs to, "flan2021".
      dataset: the dataset, "boolq"; held-out sets are held out by dataset.
      category: kind of task, "reading comprehension".
      languages: ISO codes.
      licence: of the data.
    """

    collection: str
    dataset: str
    category: str
    languages: tuple[str, ...] = ("en",)
    licence: str = "unknown"


@dataclass(frozen=True, eq=False)
class InstructionTask:
    """One form of one dataset; the fields are `add_instruction_task`'s.

    `mixes_templates` is true of the form in which each exemplar has its own template,
    `few_shot` then being what `mix_shots` was.
    """

    base: str
    prompt_type: str
    source: Source
    template_source: TemplateGroup | tuple[Template, ...]
    info: TaskInfo
    few_shot: FewShot
    exemplar_split: str | None
    option_style: str
    template_assignment: str
    has_options: bool
    cot: bool
    answer_field: str
    option_fields: tuple[str, ...]
    form: str = ""
    inline_shots: bool = False
    mixes_templates: bool = False
    many_options: str = "error"
    faithful: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the SeqIO Task."""
        parts = [self.base, self.prompt_type, self.form]
        parts.append("mix" if self.mixes_templates else "")
        return "_".join(part for part in parts if part)

    @property
    def is_few_shot(self) -> bool:
        """Whether prompts have exemplars."""
        return self.prompt_type.startswith("fs")

    @property
    def draws_shots(self) -> bool:
        """Whether exemplars are other rows, put before the query."""
        return self.is_few_shot and not self.inline_shots

    @property
    def draws_formats(self) -> bool:
        """Whether each example has its own format of options and dialogs."""
        return self.prompt_type == "zs_opt" and self.option_style == "random"

    def switches(self) -> frozenset[str]:
        """Returns the switches of `flanjax.data.faithful` that change this task now."""
        concerned = {
            "t0_newlines": self.info.collection == "t0_sf",
            "option_formats": self.draws_formats,
            "dialog_starts": self.draws_formats,
            "self_exemplars": self.draws_shots and not self.few_shot.in_order,
            "budget_without_delimiters": self.draws_shots,
            "drop_incomplete_round": self.template_assignment == "round_robin",
        }
        on = active() | set(self.faithful)
        return frozenset(name for name in on if concerned.get(name))

    def templates(self) -> tuple[Template, ...]:
        """Reads the templates of this prompt type.

        Raises:
          DataError: a bad file, none for this type, or a no-option form that would
            show options.
        """
        source = self.template_source
        loaded = source.load() if isinstance(source, TemplateGroup) else source
        templates = tuple(
            dataclasses.replace(t, header=t.header if self.is_few_shot else "")
            for t in loaded
            if self.prompt_type in t.prompt_types
            and (t.in_template_mix or not self.mixes_templates)
        )
        where = loaded[0].where if loaded else self.base
        if not templates:
            raise DataError(
                f"no template for {self.name}",
                where=where,
                fix=f'allow "{self.prompt_type}" in the prompt_types of a template',
            )
        if self.prompt_type.endswith("noopt"):
            templates = tuple(t.without_options() for t in templates)
            for template in templates:
                check_no_options(template, self.option_fields)
        elif self.has_options and not any(OPTIONS in t.fields for t in templates):
            raise DataError(
                f"no template of {self.name} shows the options",
                where=where,
                fix="write {options_} where they belong, or set has_options=False",
            )
        return templates

    def fingerprint(self, split: str) -> str:
        """Returns a digest of all that the rendered examples of a split depend on."""
        parts = [
            RENDER_VERSION,
            self.name,
            self.source.fingerprint(split),
            [template.hash for template in self.templates()],
            [self.template_assignment, self.cot, self.answer_field],
            [self.info.collection, self.many_options, sorted(self.switches())],
        ]
        if self.draws_shots:
            pool = self.source.fingerprint(self.exemplar_split or split)
            parts += [dataclasses.asdict(self.few_shot), pool, self.mixes_templates]
        if self.prompt_type == "zs_opt":
            parts.append(self.option_style)
        return digest(*parts)
