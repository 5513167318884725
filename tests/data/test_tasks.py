"""SeqIO Tasks render what FLAN's formats say, checked against plain Python."""

import functools
import re

import pytest
import seqio

from flanjax.data import tasks
from flanjax.data.fewshot import FewShot
from flanjax.data.natural_instructions import NaturalInstructionsSource
from flanjax.data.options import COUNTS_THROUGH, ENDS, ITEM_NAMES, STARTS
from flanjax.data.sources import FunctionSource, TsvSource
from flanjax.data.tasks import (
    TaskInfo,
    add_instruction_task,
    instruction_task,
    task_examples,
    task_info,
    task_names,
)
from flanjax.data.templates import Template, TemplateFile
from flanjax.errors import ConfigError

INFO = TaskInfo("test", "colours", "choice", licence="CC0")
OPTIONS = ("zinnober", "indigo", "ocker")
TOML = r"""
[colours]
x_y_delimiter = "\n"
example_separator = "\n~\n"
[[colours.templates]]
inputs = "{text}\n\nWhich {{colour}} of {number}?\n\n{options_}"
targets = "{answer}"
targets_prefix = "A: "
[[colours.templates]]
inputs = "{options_}\nWhich one fits '{text}'?"
targets = "It is {answer}."
inputs_prefix = "Q: "
[[colours.templates]]
inputs = "Say something that is {answer}.  "
targets = "{text}"
x_y_delimiter = "  "
"""


def _rows(split):
    size = 40 if split == "train" else 6
    for i in range(size):
        answer = OPTIONS[i % 3]
        text = f"{split} thing {i} Ä"
        references = [answer, answer.upper()]
        row = {"text": text, "number": i, "answer": answer, "references": references}
        yield {**row, "options": list(OPTIONS)}


SOURCE = FunctionSource(_rows, ("train", "test"), "rows")


@pytest.fixture(autouse=True, scope="module")
def own_registries():
    """Tasks of other tests stay as they are."""
    patch = pytest.MonkeyPatch()
    patch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    patch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    patch.setattr(tasks, "_TASKS", {})
    yield
    patch.undo()


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "colours.toml"
    path.write_text(TOML)
    return TemplateFile(path)["colours"]


@pytest.fixture(scope="module", autouse=True)
def colours(own_registries, templates):
    """The four tasks that most tests look at."""
    return _add("colours", templates, has_options=True, exemplar_split="train")


def _add(name, templates, source=SOURCE, **arguments):
    return add_instruction_task(name, source, templates, INFO, **arguments)


@functools.cache
def _examples(name, split="train", num=1000, seed=0):
    return task_examples(name, split, num, seed)


def _fill(text, row, block):
    return text.format(**row, options_=block)


def _row_of(row_id):
    _, split, number = row_id.split(":")
    return list(_rows(split))[int(number) - 1]


def _shown(template, prompt_type):
    return template if prompt_type.endswith("_opt") else template.without_options()


def test_a_dataset_with_options_has_the_four_prompt_types(colours):
    kinds = ["zs_opt", "zs_noopt", "fs_opt", "fs_noopt"]
    assert list(colours) == [f"colours_{kind}" for kind in kinds]
    assert set(colours) <= set(task_names()) & set(seqio.TaskRegistry.names())


def test_sets_without_options_and_with_rationales_have_their_two(templates):
    assert _add("plain", templates) == ("plain_zs_noopt", "plain_fs_noopt")
    assert _add("way", templates, cot=True) == ("way_zs_opt", "way_fs_opt")


@pytest.mark.parametrize("prompt_type", ["zs_opt", "zs_noopt"])
def test_zero_shot_prompts_are_the_template_filled(templates, prompt_type):
    by_id = {t.id: _shown(t, prompt_type) for t in templates.load()}
    block = "OPTIONS:\n- zinnober\n- indigo\n- ocker"
    examples = _examples(f"colours_{prompt_type}")
    assert len(examples) == 40
    for example in examples:
        row, template = _row_of(example["row_id"]), by_id[example["template_id"]]
        inputs = _fill(template.inputs, row, block)
        assert example["inputs_pretokenized"] == inputs
        assert example["targets_pretokenized"] == _fill(template.targets, row, block)
        others = [_fill(template.targets, {**row, "answer": o}, "") for o in OPTIONS]
        says_answer = "{answer}" in template.targets
        assert example["choices"] == (others if says_answer else [])
        assert len(example["references"]) == (2 if says_answer else 0)
        assert example["prompt_type"] == prompt_type
        assert example["task_name"] == f"colours_{prompt_type}"
        assert example["shot_ids"] == []


@pytest.mark.parametrize("prompt_type", ["fs_opt", "fs_noopt"])
def test_few_shot_prompts_are_exemplars_in_the_query_s_template(templates, prompt_type):
    by_id = {t.id: _shown(t, prompt_type) for t in templates.load()}
    block = "OPTIONS:\n- zinnober\n- indigo\n- ocker"
    shot_counts = set()
    for example in _examples(f"colours_{prompt_type}"):
        template, prompt = by_id[example["template_id"]], ""
        for row_id in example["shot_ids"]:
            row = _row_of(row_id)
            x, y = (_fill(t, row, block) for t in (template.inputs, template.targets))
            prompt += template.inputs_prefix + x + template.x_y_delimiter
            prompt += template.targets_prefix + y + template.example_separator
        query = _fill(template.inputs, _row_of(example["row_id"]), block)
        prompt += template.inputs_prefix + query + template.x_y_delimiter
        prompt = (prompt + template.targets_prefix.rstrip()).rstrip(" ")
        assert example["inputs_pretokenized"] == prompt
        assert example["row_id"] not in example["shot_ids"]
        shot_counts.add(len(example["shot_ids"]))
    assert shot_counts == {2, 3}


@pytest.mark.parametrize("prompt_type", ["zs_noopt", "fs_noopt"])
def test_options_never_show_in_a_no_option_prompt(prompt_type):
    # Every row has options of its own, so that any trace of one can be told.
    def rows(split):
        for i in range(30):
            options = [f"option{i}{letter}" for letter in "abc"]
            yield {"text": f"t{i}", "options": options, "answer": options[i % 3]}

    template = Template("t/0", "{text}\n{options_}\n\n{options_}?", "{answer}", "f:1")
    source = FunctionSource(rows, ("train",), "r")
    types = [prompt_type]
    (name,) = _add(f"leak_{prompt_type}", [template], source, prompt_types=types)
    answers = {f"r:train:{i + 1}": r["answer"] for i, r in enumerate(rows("train"))}
    for example in _examples(name):
        shown = re.findall(r"option\w+", example["inputs_pretokenized"])
        assert shown == [answers[shot] for shot in example["shot_ids"]]


def test_drawn_option_formats_parse_back_and_targets_follow_them(templates):
    _add("drawn", templates, option_style="random", prompt_types=["zs_opt"])
    blocks = {}
    for start in STARTS[1:]:
        for names, counts in list(zip(ITEM_NAMES, COUNTS_THROUGH, strict=True))[1:]:
            for end in ENDS:
                items = zip(names[:3], OPTIONS, strict=True)
                block = start + "".join(name + o + end for name, o in items)
                labels = [n.strip() for n in names[:3]] if counts else list(OPTIONS)
                blocks[block] = labels
    seen = set()
    for example in _examples("drawn_zs_opt"):
        row, inputs = _row_of(example["row_id"]), example["inputs_pretokenized"]
        target = example["targets_pretokenized"]
        match example["template_id"]:
            case "colours/0":
                labels = blocks[inputs.split("?\n\n", 1)[1]]
                assert example["choices"] == labels
                assert target == labels[OPTIONS.index(row["answer"])]
                seen.add(target in OPTIONS)
            case "colours/1":
                labels = blocks[
                    inputs.removesuffix(f"\nWhich one fits '{row['text']}'?")
                ]
                assert target == f"It is {labels[OPTIONS.index(row['answer'])]}."
            case "colours/2":  # No options are shown, so the answer keeps its name.
                assert row["answer"] in inputs and target == row["text"]
    assert seen == {True, False}


def test_templates_take_turns_over_the_shuffled_rows():
    shuffled = seqio.get_mixture_or_task("colours_zs_opt").source
    order = list(shuffled.get_dataset("train", shuffle=True, seed=0))
    turns = [int(example["template_id"].numpy()[-1:]) for example in order]
    assert turns == [i % 3 for i in range(40)]
    rows = [example["row_id"].numpy().decode() for example in order]
    assert rows != sorted(rows, key=lambda r: int(r.split(":")[2]))
    plain = _examples("colours_zs_opt")
    assert [e["row_id"] for e in plain] == [f"rows:train:{i + 1}" for i in range(40)]
    by_row = dict(zip(rows, turns, strict=True))
    assert all(e["template_id"] == f"colours/{by_row[e['row_id']]}" for e in plain)


def test_every_row_may_come_with_every_template(templates):
    arguments = {"template_assignment": "all", "prompt_types": ["zs_opt"]}
    (name,) = _add("all", templates, **arguments)
    pairs = [(e["row_id"], e["template_id"]) for e in _examples(name)]
    assert len(set(pairs)) == len(pairs) == 120
    task = seqio.get_mixture_or_task(name)
    assert task.num_input_examples("train") == 120


def test_the_same_seed_builds_the_same_and_another_seed_another_dataset(colours):
    first = _examples(colours[2])
    assert first == task_examples(colours[2], "train", 1000, seed=0)
    assert first != task_examples(colours[2], "train", 1000, seed=1)


def test_prompts_keep_the_longest_run_of_exemplars_that_fits(templates):
    budget = 150
    few_shot = FewShot(shots=3, max_tokens=budget)
    (name,) = _add("tight", templates, few_shot=few_shot, prompt_types=["fs_noopt"])
    counts = set()
    by_id = {t.id: t.without_options() for t in templates.load()}
    for example in _examples(name):
        template = by_id[example["template_id"]]
        shots = example["shot_ids"]
        # Bytes are tokens; spaces trimmed at the very end may add two.
        length = len(example["inputs_pretokenized"].encode())
        assert 1 <= len(shots) <= 3 and length <= budget
        if len(shots) < 3:
            row = _row_of("rows:train:1")
            shot = template.inputs_prefix + _fill(template.inputs, row, "")
            shot += template.x_y_delimiter + template.targets_prefix
            shot += _fill(template.targets, row, "") + template.example_separator
            assert length + len(shot.encode()) + 6 > budget
        counts.add(len(shots))
    assert len(counts) > 1


def test_queries_without_room_for_an_exemplar_are_dropped(templates):
    few_shot = FewShot(1, max_tokens=130)
    (name,) = _add("none", templates, few_shot=few_shot, prompt_types=["fs_opt"])
    assert {e["template_id"] for e in _examples(name)} == {"colours/2"}


def test_exemplars_can_come_from_another_split():
    examples = _examples("colours_fs_noopt", "test")
    assert len(examples) == 6
    for example in examples:
        assert example["row_id"].startswith("rows:test:")
        assert all(shot.startswith("rows:train:") for shot in example["shot_ids"])


# Parts of SeqIO go through AutoGraph, which warns on Python 3.13.
@pytest.mark.filterwarnings("ignore:.*___pyct_anno:DeprecationWarning")
def test_a_mixture_of_them_goes_through_seqio_s_own_converter(colours):
    seqio.MixtureRegistry.add("mix", [(name, 1.0) for name in colours[::3]])
    dataset = seqio.get_dataset(
        mixture_or_task_name="mix",
        task_feature_lengths={"inputs": 256, "targets": 32},
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        dataset_split="train",
        shuffle=True,
        seed=0,
    )
    row = next(dataset.as_numpy_iterator())
    assert row["encoder_input_tokens"].shape == (256,)
    assert row["decoder_loss_weights"].sum() > 1


def test_inputs_and_targets_end_with_eos_after_trimming():
    task = seqio.get_mixture_or_task("colours_fs_opt")
    lengths = {"inputs": 20, "targets": 8}
    example = next(iter(task.get_dataset(lengths, "train", seed=0)))
    assert example["inputs"].shape == (20,)
    assert example["inputs"][-1] == example["targets"][-1] == 1


def test_chain_of_thought_targets_are_rationale_then_answer(tmp_path):
    path = tmp_path / "cot.tsv"
    lines = [f"What is {i}+1?\t{i + 1}\tOne more than {i}.\\nSo" for i in range(8)]
    path.write_text("\n".join(lines))
    source = TsvSource({"train": path}, ("question", "answer", "rationale"))
    template = Template("c/0", "{question}", "{rationale} the answer is {answer}.")
    _add("cot", [template], source, cot=True)
    for example in _examples("cot_fs_opt"):
        target = example["targets_pretokenized"]
        assert re.fullmatch(r"One more than \d\.\nSo the answer is \d\.", target)
        assert example["inputs_pretokenized"].count("the answer is") in (2, 3)
        assert example["choices"] == []


def test_natural_instructions_prompts_take_positive_examples(shared):
    path = shared / "data/niv2/legacy_schema/task1388_cb_entailment.json"
    source = NaturalInstructionsSource(path, split="test")
    text = "{definition}\n\n{input}"
    add_instruction_task(
        "ni",
        source,
        [Template("ni/0", text, "{output}")],
        INFO,
        prompt_types=["fs_opt"],
        few_shot=FewShot(2, max_tokens=20_000),
        exemplar_split="examples",
        answer_field="output",
    )
    (example, *_) = _examples("ni_fs_opt", "test")
    assert all(":example" in shot for shot in example["shot_ids"])
    assert example["references"] and example["targets_pretokenized"]


def test_a_fingerprint_changes_with_a_template_of_its_own_group_only(tmp_path):
    path = tmp_path / "two.toml"
    other = '[[other.templates]]\ninputs = "{text}"\ntargets = "{answer}"\n'
    path.write_text(TOML + other)
    file = TemplateFile(path)
    names = _add("one", file["colours"]) + _add("other", file["other"])
    before = {name: instruction_task(name).fingerprint("train") for name in names}
    assert len(set(before.values())) == len(names)
    path.write_text(TOML + other.replace('"{text}"', '"Now: {text}"'))
    after = {name: instruction_task(name).fingerprint("train") for name in names}
    changed = [name for name in names if before[name] != after[name]]
    assert changed == ["other_zs_noopt", "other_fs_noopt"]


def test_a_task_says_what_it_is(templates):
    name = _add("told", templates, few_shot=FewShot(2, 500))[1]
    info = task_info(name)
    assert info["dataset"] == "colours" and info["prompt_type"] == "fs_noopt"
    expected = {"shots": 2, "max_tokens": 500, "in_order": False}
    assert info["few_shot"] == expected
    assert list(info["template_hashes"]) == ["colours/0", "colours/1", "colours/2"]
    assert info["template_file"].endswith("colours.toml")
    assert info["fingerprint"]("train") == instruction_task(name).fingerprint("train")
    with pytest.raises(ConfigError, match="Did you mean 'colours_fs_opt'"):
        task_info("colour_fs_opt")
