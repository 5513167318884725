"""What an instruction task is, before SeqIO: rows, templates and the choices made.

`flanjax.data.tasks` registers these as SeqIO Tasks; nothing here needs TensorFlow.
"""

from dataclasses import asdict, dataclass

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
RENDER_VERSION = 1


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
    """One prompt type of one dataset; the fields are `add_instruction_task`'s."""

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

    @property
    def name(self) -> str:
        """Name of the SeqIO Task."""
        return f"{self.base}_{self.prompt_type}"

    @property
    def is_few_shot(self) -> bool:
        """Whether prompts have exemplars."""
        return self.prompt_type.startswith("fs")

    def templates(self) -> tuple[Template, ...]:
        """Reads the templates of this prompt type.

        Raises:
          DataError: a bad file, none for this type, or a no-option form that would
            show options.
        """
        source = self.template_source
        loaded = source.load() if isinstance(source, TemplateGroup) else source
        templates = tuple(t for t in loaded if self.prompt_type in t.prompt_types)
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
        ]
        if self.is_few_shot:
            pool = self.source.fingerprint(self.exemplar_split or split)
            parts += [asdict(self.few_shot), pool]
        if self.prompt_type == "zs_opt":
            parts.append(self.option_style)
        return digest(*parts)
