"""Rows of one T0-SF prompt: P3's own rendering, else the dataset under our wording.

    source = T0Source(PROMPTS["sciq_Multiple_Choice"])
    next(source.rows("train"))   # question, answer and, where there are any, options

First P3 is looked for, as `p3/<prompt>` below the data root or prepared by TFDS; its
rows hold the finished question. Where there is none, the original dataset is, as
`t0/<dataset>`; then the prompt is one of ours, of `templates/t0_sf_*.toml`. P3: Sanh et
al. 2021, "Multitask prompted training enables zero-shot task generalization"
(https://arxiv.org/abs/2110.08207).
"""

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flanjax.data.identity import digest, function_identity
from flanjax.data.located import DatasetSource
from flanjax.data.options import MAX_OPTIONS
from flanjax.data.readers import Row
from flanjax.data.templates import Template, TemplateFile, parse
from flanjax.errors import DataError
from mixtures.t0_sf_choice import CHOICE
from mixtures.t0_sf_open import OPEN
from mixtures.t0_sf_raw import LETTERS, RawDataset, bullets

RAW: dict[str, RawDataset] = {**CHOICE, **OPEN}

QUESTION_ANSWER = "question_answer"
MULTIPLE_CHOICE = "multiple_choice"
SEPARATED = "multiple_choice_separated"

# Most rows kept of a prompt: a capped task weighs 20,000, and rows are held in memory.
MAX_ROWS = 200_000

_FOLDER = Path(__file__).parent
_END = "<|endoftext|>"
# Rows whose answers stand in where a file of rendered prompts has no choices.
_LENDING_ROWS, _BORROWED = 1000, 3


@dataclass(frozen=True)
class Prompt:
    """One prompt of P3, a task of T0-SF; the columns of `tables/t0_sf.tsv`.

    Attributes:
      name: in P3, "sciq_Multiple_Choice".
      dataset: key of `RAW`.
      kind: "question_answer"; "multiple_choice", whose question names the choices; or
        "multiple_choice_separated", to whose question they are added.
      answers: "options" or "letters" for those of the row, fixed ones as "No|Yes", ""
        without choices.
      category: of the task.
      max_cases: most training rows that one of the dataset's prompts has.
      x_shot_fraction: of these, how many are left after long exemplars are dropped.
    """

    name: str
    dataset: str
    kind: str
    answers: str
    category: str
    max_cases: int
    x_shot_fraction: float

    @property
    def has_options(self) -> bool:
        """Whether the choices are added to the question."""
        return self.kind == SEPARATED

    @property
    def fixed_answers(self) -> list[str]:
        """The choices, if they are the same in every row."""
        return self.answers.split("|") if "|" in self.answers else []

    def template(self) -> Template:
        """Returns the own-worded prompt; reads its file.

        Raises:
          DataError: there is none, or the file is bad.
        """
        dataset = RAW[self.dataset]
        group = self.name.removeprefix(f"{self.dataset}_")
        group = f"{dataset.templates or self.dataset}_{group}".replace(".", "_")
        part = "choice" if self.dataset in CHOICE else "open"
        path = _FOLDER / "templates" / f"t0_sf_{part}.toml"
        (template,) = TemplateFile(path)[group].load()
        return template


def load_prompts() -> dict[str, Prompt]:
    """Reads the table of prompts; names in the order of the public table."""
    lines = (_FOLDER / "tables/t0_sf.tsv").read_text(encoding="utf-8").splitlines()
    prompts = {}
    for line in lines[2:]:
        name, dataset, kind, answers, category, cases, fraction = line.split("\t")
        prompts[name] = Prompt(
            name, dataset, kind, answers, category, int(cases), float(fraction)
        )
    return prompts


@dataclass(frozen=True, eq=False)
class T0Source:
    """Training rows of a prompt: `question`, `answer`, `options` where there are any.

    Args:
      prompt: which.
    """

    prompt: Prompt
    _p3: DatasetSource = field(init=False, repr=False)
    _raw: DatasetSource = field(init=False, repr=False)

    def __post_init__(self):
        name, dataset = self.prompt.name, self.prompt.dataset
        p3 = p3_source(name, self.prompt.kind, self.prompt.answers)
        raw = DatasetSource(
            f"t0/{dataset}",
            {"train": "train"},
            fields=RAW[dataset].fields,
            tfds=RAW[dataset].tfds,
            limit=MAX_ROWS,
        )
        object.__setattr__(self, "_p3", p3)
        object.__setattr__(self, "_raw", raw)

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source`."""
        return self._p3.splits

    def rows(self, split: str) -> Iterator[Row]:
        """See `Source`."""
        chosen = self._chosen(split)
        rows = chosen.rows(split)
        if chosen is self._raw:
            rows = _worded(rows, self.prompt)
        return _with_borrowed_options(rows) if self.prompt.has_options else rows

    def fingerprint(self, split: str) -> str:
        """See `Source`."""
        chosen = self._chosen(split)
        content = chosen.fingerprint(split)
        if chosen is self._p3:
            return digest(content, function_identity(_with_borrowed_options))
        wording = [self.prompt.template().hash, function_identity(_worded)]
        return digest(content, wording, self.prompt.kind, self.prompt.answers)

    def present(self, split: str) -> bool:
        """Whether there is data of either kind; opens no file."""
        return self._p3.present(split) or self._raw.present(split)

    def where(self, split: str) -> str:
        """See `Source`; says which of the two it is."""
        if self._p3.present(split) or not self._raw.present(split):
            return f"{self._p3.where(split)} (P3)"
        return f"{self._raw.where(split)} (own wording)"

    def _chosen(self, split: str) -> DatasetSource:
        if self._p3.present(split):
            return self._p3
        if self._raw.present(split):
            return self._raw
        places = [*self._p3.places(split), *self._raw.places(split)]
        raise DataError(
            f"no data for {self.prompt.name}, neither P3's rendering nor the dataset "
            "itself; looked for\n    " + "\n    ".join(places),
            where=f"T0-SF prompt {self.prompt.name}",
            fix=f"P3: {self._p3.advice(split)}. Or the dataset: "
            f"{self._raw.advice(split)}",
        )


def p3_source(
    name: str, kind: str = QUESTION_ANSWER, answers: str = ""
) -> DatasetSource:
    """Returns the rows of any prompt of P3, rendered by P3.

    Args:
      name: of the prompt; its rows lie in `p3/<name>`.
      kind: as in `Prompt`.
      answers: as in `Prompt`.
    """
    return DatasetSource(
        f"p3/{name}",
        {"train": "train"},
        fields=functools.partial(p3_row, kind=kind, answers=answers),
        tfds=f"huggingface:bigscience__p3/{name}",
        limit=MAX_ROWS,
    )


def p3_row(row: Row, kind: str, answers: str) -> Row | None:
    """Returns question, answer and options of a row rendered by P3.

    Rows have the fields of P3 (inputs_pretokenized, targets_pretokenized,
    answer_choices) or of Self-Instruct's sample of it (prompt, completion). Newlines
    inside of texts stay. Rows with an empty side are skipped.
    """
    question, answer = (
        (row["inputs_pretokenized"], row["targets_pretokenized"])
        if "inputs_pretokenized" in row
        else (row["prompt"], row["completion"].removesuffix(_END))
    )
    question, answer = question.strip(), answer.strip()
    if not question or not answer:
        return None
    options = [str(each).strip() for each in row.get("answer_choices") or ()]
    fixed = answers.split("|") if "|" in answers else []
    return _asked(question, answer, kind, options or fixed)


def _worded(rows: Iterator[Row], prompt: Prompt) -> Iterator[Row]:
    """Yields a dataset's rows in our wording, without those that cannot be asked."""
    template = prompt.template()
    for texts in rows:
        row = own_row(texts, prompt, template)
        if row is not None:
            yield {"row_id": texts["row_id"], **row}


def own_row(texts: Row, prompt: Prompt, template: Template) -> Row | None:
    """Returns question, answer and options of an original row, in our wording.

    A row that lacks one of the texts that the prompt names is skipped.

    Args:
      texts: what `RawDataset.fields` of the prompt's dataset makes of the row.
      prompt: which.
      template: `prompt.template()`.
    """
    texts = dict(texts)
    if "options" in texts:
        texts |= listings(texts["options"])
    options = prompt.fixed_answers
    if options:
        texts |= {"choice": options[texts["verdict"]], "fixed_list": _spoken(options)}
    elif prompt.answers:  # Those of the row.
        options = texts["options"]
        if prompt.answers == "letters":
            options = list(LETTERS[: len(options)])
        texts["choice"] = options[texts["label"]]
    if not all(str(texts[name]).strip() for name in template.fields):
        return None
    question = _filled(template.inputs, texts)
    answer = _filled(template.targets, texts)
    asked = _asked(question, answer, prompt.kind, options)
    known = texts.get("references", ())
    if asked and template.targets == "{answer}" and len(known) > 1:
        asked["references"] = known
    return asked


# Texts that rows with choices have beside those of their dataset.
LISTINGS = ("bulleted", "lettered", "spoken")


def listings(options: list[str]) -> Row:
    """Returns choices as text: a list, a list with letters, a part of a sentence."""
    lettered = [f"({x}) {each}" for x, each in zip(LETTERS, options, strict=False)]
    texts = (bullets(options), "\n".join(lettered), _spoken(options))
    return dict(zip(LISTINGS, texts, strict=True))


def _spoken(options: list[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def _filled(text: str, texts: Row) -> str:
    parts = parse(text)
    return "".join(lead + (str(texts[name]) if name else "") for lead, name in parts)


def _asked(question: str, answer: str, kind: str, options: list[str]) -> Row | None:
    """Returns the row; None if choices must be added and the answer is none of them."""
    row: Row = {"question": question, "answer": answer}
    # More than can be named, or without the answer, are as good as none where the
    # question lists them itself.
    usable = answer in options and len(options) <= MAX_OPTIONS
    if kind == QUESTION_ANSWER or kind == MULTIPLE_CHOICE and not usable:
        return row
    if options and not usable:
        return None
    return {**row, "options": options} if options else row


def _with_borrowed_options(rows: Iterator[Row]) -> Iterator[Row]:
    """Gives choices to rows that need them and have none.

    Self-Instruct's sample of P3 leaves the choices out. There the wrong ones are right
    answers of other rows of the same prompt, drawn by the row's id.
    """
    first = list(itertools.islice(rows, _LENDING_ROWS))
    lenders = list(dict.fromkeys(row["answer"] for row in first))
    for row in itertools.chain(first, rows):
        if "options" not in row:
            rng = random.Random(row["row_id"])
            others = [each for each in lenders if each != row["answer"]]
            drawn = rng.sample(others, min(_BORROWED, len(others)))
            options = [*drawn, row["answer"]]
            rng.shuffle(options)
            row = {**row, "options": options}
        yield row
