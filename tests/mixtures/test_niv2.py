"""NIv2: which files become tasks, what a prompt of each form holds, and the counts."""

import gzip
import json
from typing import Any

import pytest
import seqio

from flanjax.data import seqio_vocabulary
from flanjax.data.catalog import has_data
from flanjax.data.natural_instructions import (
    EXAMPLES,
    NaturalInstructionsSource,
    is_mmlu,
)
from flanjax.data.tasks import instruction_task, task_info
from flanjax.errors import DataError
from mixtures import niv2

DEFINITION = "Say what the animal says."
FORMS = ("zs_opt", "fs_opt_explained", "fs_opt")


def _content(count=12, explanations=True):
    examples = [
        {"input": f"beast {n}", "output": f"roar {n}", "explanation": f"because {n}"}
        for n in range(3)
    ]
    if not explanations:
        examples = [{**each, "explanation": ""} for each in examples]
    return {
        "Definition": [DEFINITION],
        "Positive Examples": examples,
        "Negative Examples": [],
        "Instances": [
            {"id": f"i{n}", "input": f"animal {n}", "output": [f"sound {n}"]}
            for n in range(count)
        ],
    }


def _write(folder, name, content=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content or _content()))
    return path


def _prompts(task):
    source: Any = seqio.TaskRegistry.get(task).source
    chunks = source.plain_examples("train", True, 0)
    return [example for chunk in chunks for example in chunk]


@pytest.fixture
def tasks_folder(tmp_path, monkeypatch):
    """An empty data root's folder of task files."""
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    return tmp_path / "niv2" / "tasks"


def test_the_table_has_the_public_codes_names_and_counts():
    table = niv2.table()
    assert len(table) == niv2.PUBLIC_NAMES == 1_597
    assert sum(task.examples for task in table) == 5_154_704
    capped = sum(min(task.examples, niv2.MOST_INSTANCES) for task in table)
    assert capped == 4_340_288
    assert not any(is_mmlu(task.name) for task in table)
    assert sum(task.listed for task in table) == len(niv2.BASES) == 1_556
    assert all(("-" in task.name) != task.listed for task in table)


def test_a_second_spelling_is_the_task_of_the_first():
    table = niv2.table()
    listed = {task.base: task for task in table if task.listed}
    second = [task for task in table if not task.listed]
    assert len(second) == 41
    assert all(listed[task.base].examples == task.examples for task in second)


def test_the_paper_counts_all_listed_tasks_but_the_two_smallest():
    left_out = [t.examples for t in niv2.table() if t.listed and not t.paper]
    rest = [t.examples for t in niv2.table() if t.paper]
    assert len(rest) == 1_554 and sorted(left_out) == [26, 29]
    assert max(left_out) < min(rest)


def test_the_table_names_split_category_and_languages():
    listed = [task for task in niv2.table() if task.listed]
    assert sum(task.split == "test" for task in listed) == 119
    assert len({task.category for task in listed}) == 108
    assert sum(task.languages == ("en",) for task in listed) == 980
    assert len({code for task in listed for code in task.languages}) == 60
    info = task_info("niv2_task1619_menyo20k_mt_en_yo_translation_zs_opt")
    assert (info["collection"], info["category"]) == ("niv2", "Translation")
    assert info["languages"] == ("en", "yo")


def test_mmlu_is_known_by_name_and_by_id():
    assert is_mmlu("task664_mmmlu_answer_generation_abstract_algebra")
    assert is_mmlu("task737_renamed") and is_mmlu("task0664_x") and is_mmlu("task685")
    assert is_mmlu("task9999_MMMLU_answers")
    for name in ("task663_x", "task668_x", "task684_x", "task738_x", "task6640_x"):
        assert not is_mmlu(name), name


def test_57_tasks_of_the_public_metadata_are_mmlu(shared):
    path = shared / "data" / "niv2" / "flan_natinst_meta_data.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        counts = {n: task["number_examples"] for n, task in json.load(stream).items()}
    assert (len(counts), sum(counts.values())) == (1_654, 5_163_933)
    kept = {name: count for name, count in counts.items() if not is_mmlu(name)}
    assert len(counts) - len(kept) == niv2.MMLU_NAMES == 57
    assert kept == {task.name: task.examples for task in niv2.table()}
    # Either way of telling finds the same ones.
    assert sum("mmmlu" in name for name in counts) == 57
    assert sum(is_mmlu(name.replace("mmmlu", "renamed")) for name in counts) == 57


def test_each_form_holds_definition_input_and_its_examples(tasks_folder):
    name = "task001_quoref_question_generation"
    _write(tasks_folder, name)
    assert niv2.BASES[f"niv2_{name}"] == tuple(f"niv2_{name}_{form}" for form in FORMS)
    prompts = {form: _prompts(f"niv2_{name}_{form}") for form in FORMS}
    for form, examples in prompts.items():
        assert len(examples) == 12 and len({e["template_id"] for e in examples}) == 10
        for e in examples:
            assert e["inputs"].count(DEFINITION) == 1, e["template_id"]
            number = e["targets"].removeprefix("sound ")
            assert f"animal {number}" in e["inputs"] and e["row_id"] == f"i{number}"
            assert e["inputs"].count("roar") == {"zs_opt": 0, "fs_opt": 2}.get(form, 1)
    explained = prompts["fs_opt_explained"]
    assert all(
        "beast 0" in e["inputs"] and "because 0" in e["inputs"] for e in explained
    )
    assert all("because" not in e["inputs"] for e in prompts["fs_opt"])


def test_the_explained_example_is_never_the_row_itself(tmp_path):
    content = _content()
    content["Instances"].append({"id": "same", "input": "beast 0", "output": ["roar"]})
    path = _write(tmp_path, "task1_x", content)
    *others, same = NaturalInstructionsSource(path).rows("train")
    assert same["example_input"] == "beast 1"
    assert {row["example_input"] for row in others} == {"beast 0"}


def test_instances_beyond_the_limit_are_sampled_over_the_whole_file(tmp_path):
    path = _write(tmp_path, "task1_x", _content(1000))
    first = NaturalInstructionsSource(path, limit=100)
    assert [row["row_id"] for row in first.rows("train")][-1] == "i99"
    sampled = NaturalInstructionsSource(path, limit=100, sampled=True)
    numbers = [int(row["row_id"][1:]) for row in sampled.rows("train")]
    assert len(set(numbers)) == 100 and numbers == sorted(numbers)
    assert 400 < sum(numbers) / 100 < 600
    assert numbers == [int(row["row_id"][1:]) for row in sampled.rows("train")]
    assert first.fingerprint("train") != sampled.fingerprint("train")
    assert len(list(sampled.rows(EXAMPLES))) == 3


@pytest.mark.parametrize(
    ("file", "base"),
    [
        ("task143_odd-man-out_classification_generate_category",
         "niv2_task143_odd_man_out_classification_generate_category"),
        ("task1530_scitail1.1_sentence_generation", "niv2_task1530_scitail1"),
    ],
)  # fmt: skip
def test_a_file_is_found_by_either_spelling(file, base, tasks_folder):
    source = instruction_task(niv2.BASES[base][0]).source
    assert not has_data(source)
    path = _write(tasks_folder, file)
    assert has_data(source) and source.where("train") == str(path)
    assert next(source.rows("train"))["definition"] == DEFINITION


def test_a_missing_file_is_an_error_that_names_it(tasks_folder):
    source = instruction_task("niv2_task002_quoref_answer_generation_zs_opt").source
    with pytest.raises(DataError, match="task002_quoref_answer_generation.json"):
        list(source.rows("train"))


def test_a_directory_brings_new_tasks_and_refuses_mmlu(tmp_path):
    mmlu = "task664_mmmlu_answer_generation_abstract_algebra"
    known = "task001_quoref_question_generation"
    for name in (known, "task9001_mine-own_sounds", mmlu, "task665_sly"):
        _write(tmp_path, name)
    found = niv2.register_directory(tmp_path)
    assert sorted(found.refused) == [mmlu, "task665_sly"]
    assert "held out" in found.refused["task665_sly"]
    base = "niv2_task9001_mine_own_sounds"
    assert list(found.bases) == [f"niv2_{known}", base]
    assert len(_prompts(found.bases[base][0])) == 12
    assert niv2.register_directory(tmp_path).bases == found.bases  # Not twice.


def test_a_directory_of_nothing_but_mmlu_is_refused(tmp_path):
    _write(tmp_path, "task664_mmmlu_answer_generation_abstract_algebra")
    with pytest.raises(DataError, match="only tasks made of MMLU"):
        niv2.register_directory(tmp_path)
    with pytest.raises(DataError, match="no task files"):
        niv2.register_directory(tmp_path / "absent")


def test_the_single_task_holds_all_files_without_mmlu(tasks_folder):
    for name in ("task001_x", "task002_y", "task664_mmmlu_x"):
        _write(tasks_folder, name, _content(4))
    rows = list(instruction_task(niv2.SINGLE[0]).source.rows("train"))
    assert {row["task"] for row in rows} == {"task001_x", "task002_y"}


def test_207_of_the_209_shared_files_become_tasks(shared, data_root):
    folder = shared / "data" / "niv2" / "tasks"
    files = [path.stem for path in folder.glob("*.json")]
    found = niv2.register_directory(folder)
    assert (len(files), len(found.bases)) == (209, 207)
    assert sorted(found.refused) == [
        "task686_mmmlu_answer_generation_college_biology",
        "task697_mmmlu_answer_generation_formal_logic",
    ]
    sources = [instruction_task(names[0]).source for names in found.bases.values()]
    assert all(has_data(source) for source in sources)


def test_a_file_of_the_legacy_schema_is_a_task(shared, tasks_folder):
    legacy = shared / "data" / "niv2" / "legacy_schema"
    tasks_folder.parent.mkdir(parents=True)
    tasks_folder.symlink_to(legacy)
    for base in niv2.register_directory(legacy).bases:
        for form in FORMS:
            examples = _prompts(f"{base}_{form}")
            assert examples and all(e["targets"] for e in examples)


@pytest.fixture
def t5_vocabulary(shared):
    """Few-shot prompts are cut to 1,920 tokens, of which a byte each is too many."""
    before = seqio_vocabulary._default_spec
    model = shared / "data" / "tokenizer" / "t5_spiece_rebuilt.model"
    seqio_vocabulary.set_default_vocabulary(f"sentencepiece:{model}")
    yield
    seqio_vocabulary.set_default_vocabulary(before)


@pytest.mark.slow
def test_every_shared_file_renders_in_every_form(shared, data_root, t5_vocabulary):
    found = niv2.register_directory(shared / "data" / "niv2" / "tasks")
    too_long = []
    for names in found.bases.values():
        for name in names:
            examples = _prompts(name)
            too_long += [] if examples else [name]
            for e in examples:
                assert e["targets"].strip() and e["inputs"].strip(), e["row_id"]
                assert e["targets"] in e["references"]
    assert all(name.endswith("_fs_opt") for name in too_long), too_long
    assert len(too_long) <= 4, too_long
