"""Forms of prompts: mixed and inline exemplars, headers, dialogs, many options."""

import re
from typing import Any

import pytest
import seqio

from flanjax.data import tasks
from flanjax.data.choices import SEPARATORS
from flanjax.data.fewshot import FewShot
from flanjax.data.options import COUNTS_THROUGH, ITEM_NAMES
from flanjax.data.sources import FunctionSource
from flanjax.data.tasks import (
    TaskInfo,
    add_instruction_task,
    task_examples,
    task_info,
)
from flanjax.data.templates import Template
from flanjax.errors import ConfigError, DataError

INFO = TaskInfo("test", "things", "choice")
OPTIONS = ("zinnober", "indigo", "ocker")


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(tasks, "_TASKS", {})


def _rows(split):
    for i in range(60 if split == "train" else 8):
        answer = OPTIONS[i % 3]
        text = f"{split}{i}"
        yield {
            "text": text,
            "topic": f"topic of {text}",
            "answer": answer,
            "options": list(OPTIONS),
            "references": [answer, answer.upper()],
        }


SOURCE = FunctionSource(_rows, ("train", "test"), "r")
TEMPLATES = tuple(
    Template(
        f"t/{i}",
        f"<{i}>{{text}}\n{{options_}}",
        "{answer}",
        inputs_prefix=f"q{i} ",
        x_y_delimiter=f"\n={i}=\n",
        targets_prefix=f"a{i} ",
        example_separator="\n~~\n",
        in_template_mix=i != 4,
    )
    for i in range(7)
)


def _add(templates, source=SOURCE, name="t", **arguments):
    return add_instruction_task(name, source, templates, INFO, **arguments)


def _examples(name, split="train", seed=0):
    return task_examples(name, split, 1000, seed)


def _plain(name, split="train", seed=0, shuffle=False):
    source: Any = seqio.TaskRegistry.get(name).source
    return [e for chunk in source.plain_examples(split, shuffle, seed) for e in chunk]


def test_plain_examples_are_those_of_the_dataset():
    names = _add(
        TEMPLATES, has_options=True, option_style="random", mix_shots=FewShot(5)
    )
    for name in names:
        plain, dataset = _plain(name), _examples(name)
        assert len(plain) == len(dataset) == 60
        for ours, theirs in zip(plain, dataset, strict=True):
            for key in ("inputs", "targets"):
                ours[f"{key}_pretokenized"] = ours.pop(key)
                theirs.pop(key)
            lists = ("choices", "references", "shot_ids")
            assert ours | {key: list(ours[key]) for key in lists} == theirs


def test_all_forms_have_the_same_features_and_say_where_they_are_from():
    names = _add(TEMPLATES, has_options=True, mix_shots=FewShot(5))
    rows = [{"dialog": ["a", "b"], "answer": "c"}]
    dialog = FunctionSource(lambda split: iter(rows), ("train",), "d")
    names += _add([Template("d/0", "{dialog_}", "{answer}")], dialog, "d")[:1]
    names, specs = (names[0], names[-2], names[-1]), set()
    for name in names:
        dataset = seqio.TaskRegistry.get(name).get_dataset(None, "train")
        specs.add(str(sorted(dataset.element_spec.items())))
    assert len(specs) == 1
    for name in names:
        example = _examples(name)[0]
        assert example["collection"] == "test" and example["task_name"] == name
        assert example["prompt_type"] in name


# --- exemplars with a template each -------------------------------------------------


def _shots_of(prompt):
    """Template numbers of exemplars and query, by the four texts each must have."""
    found = re.findall(r"q(\d) <(\d)>\w+\n.*?\n=(\d)=\na(\d)", prompt, re.S)
    assert all(len(set(each)) == 1 for each in found)
    return [int(each[0]) for each in found]


def test_in_x_shot_every_exemplar_has_the_query_s_template():
    _add(TEMPLATES, has_options=True)
    for example in _examples("t_fs_opt"):
        *shots, query = _shots_of(example["inputs_pretokenized"])
        assert len(shots) == len(example["shot_ids"]) in (2, 3)
        assert set(shots) == {query} and example["template_id"] == f"t/{query}"


def test_in_the_mix_every_exemplar_has_a_template_of_its_own():
    names = _add(TEMPLATES, has_options=True, mix_shots=FewShot(5))
    assert names[-1] == "t_fs_opt_mix" and len(names) == 5
    seen = set()
    for example in _examples("t_fs_opt_mix"):
        *shots, query = _shots_of(example["inputs_pretokenized"])
        assert len(shots) == len(example["shot_ids"]) == len(set(shots)) == 5
        assert 4 not in [*shots, query] and example["template_id"] == f"t/{query}"
        seen.update(shots)
    assert seen == {0, 1, 2, 3, 5, 6}
    assert task_info("t_fs_opt_mix")["mixes_templates"]


def test_one_separator_stands_between_the_mixed_exemplars_of_a_task():
    name = _add(TEMPLATES, has_options=True, mix_shots=FewShot(5))[-1]

    def separators(split, seed):
        texts = [e["inputs"] for e in _plain(name, split, seed)]
        return {s for text in texts for s in re.findall(r"a\d \w+(\s+)q", text)}

    found = [separators("train", seed) for seed in range(12)]
    assert all(len(each) == 1 for each in found)
    assert set.union(*found) == set(SEPARATORS)
    assert separators("test", 0) == found[0]


def test_a_mix_needs_the_few_shot_form_and_templates():
    with pytest.raises(ConfigError, match="prompt type for mix_shots"):
        _add(TEMPLATES, mix_shots=FewShot(5))
    name = _add(TEMPLATES[4:5], has_options=True, mix_shots=FewShot(5))[-1]
    with pytest.raises(DataError, match="no template for t_fs_opt_mix"):
        _plain(name)


# --- what stands before and inside --------------------------------------------------


def test_a_header_stands_once_before_exemplars_and_query():
    templates = [
        Template("h/0", "{text}", "{answer}", header="On {topic}.\n\n"),
        Template("h/1", "say {text}", "{answer}", header=""),
    ]
    _add(templates, prompt_types=["zs_opt", "fs_opt"])
    for example in _examples("t_fs_opt"):
        prompt, number = example["inputs_pretokenized"], example["row_id"][8:]
        if example["template_id"] == "h/0":
            assert prompt.startswith(f"On topic of train{int(number) - 1}.\n\n")
        assert prompt.count("On topic") == (example["template_id"] == "h/0")
    assert not any("topic" in e["inputs"] for e in _plain("t_zs_opt"))


def test_inline_exemplars_are_the_template_s_own_and_none_are_drawn():
    text = "Example: {example_in} -> {example_out}\n\n{text} ->"
    row = {"answer": "y", "example_in": "a", "example_out": "b"}
    rows = [{"text": f"t{i}", **row} for i in range(5)]
    source = FunctionSource(lambda split: iter(rows), ("train",), "r")
    templates = [Template("i/0", text, "{answer}", inputs_prefix="Q: ")]
    arguments = {"inline_shots": True, "form": "one", "prompt_types": ["fs_opt"]}
    (name,) = _add(templates, source, **arguments)
    assert name == "t_fs_opt_one"
    prompts = [e["inputs_pretokenized"] for e in _examples(name)]
    assert prompts == [f"Example: a -> b\n\nt{i} ->" for i in range(5)]
    info = task_info(name)
    assert info["inline_shots"] and info["few_shot"] is None and info["form"] == "one"
    two = _add(templates, source, prompt_types=["fs_opt"], form="two")
    assert two == ("t_fs_opt_two",)


def test_exemplars_in_order_are_the_first_rows_for_every_query():
    few_shot = FewShot(3, in_order=True)
    _add(TEMPLATES[:1], few_shot=few_shot, exemplar_split="train")
    for seed in (0, 1):
        shots = {tuple(e["shot_ids"]) for e in _plain("t_fs_noopt", "test", seed)}
        assert shots == {("r:train:1", "r:train:2", "r:train:3")}
    own = {e["row_id"]: list(e["shot_ids"]) for e in _plain("t_fs_noopt", "train")}
    assert own["r:train:2"] == ["r:train:1", "r:train:3", "r:train:4"]


def test_evaluation_loses_no_question_for_want_of_room():
    few_shot = FewShot(3, max_tokens=5, in_order=True)
    _add(TEMPLATES[:1], few_shot=few_shot, exemplar_split="train")
    examples = _plain("t_fs_noopt", "test")
    assert len(examples) == 8 and all(e["shot_ids"] == [] for e in examples)


# --- dialogs ------------------------------------------------------------------------


def test_dialogs_are_fixed_but_drawn_in_zero_shot_prompts():
    def rows(split):
        for i in range(40):
            turns = [f"turn{i}.{j}" for j in range(1 + i % 4)]
            yield {"dialog": turns, "answer": f"reply{i}"}

    source = FunctionSource(rows, ("train",), "d")
    _add(
        [Template("d/0", "Go on.\n{dialog_}", "{answer}")],
        source,
        prompt_types=["zs_opt", "fs_opt"],
        option_style="random",
        few_shot=FewShot(2),
    )
    dialogs = [row["dialog"] for row in rows("train")]
    drawn = [e["inputs"] for e in _plain("t_zs_opt")]
    for text, turns in zip(drawn, dialogs, strict=True):
        assert re.findall(r"turn\d+\.\d", text) == turns
    assert len({text.split("turn")[0] for text in drawn}) > 20
    for example in _plain("t_fs_opt"):
        turns = dialogs[int(example["row_id"].split(":")[2]) - 1]
        query = "Go on.\nDIALOG:\n" + "\n- ".join(turns) + "\n- \n\n"
        assert example["inputs"].endswith(query)
        assert example["inputs"].count("DIALOG:") == 3
        shots = {tuple(dialogs[int(s.split(":")[2]) - 1]) for s in example["shot_ids"]}
        assert tuple(turns) not in shots


def test_a_row_without_turns_is_named():
    rows = [{"dialog": ["a"], "answer": "b"}, {"dialog": [], "answer": "b"}]
    source = FunctionSource(lambda split: iter(rows), ("train",), "d")
    (name, _) = _add([Template("d/0", "{dialog_}", "{answer}")], source)
    with pytest.raises(DataError, match="row d:train:2 has no turns"):
        _plain(name)


# --- options ------------------------------------------------------------------------


def _many(count):
    options = [f"o{i}" for i in range(count)]
    rows = [{"text": f"t{i}", "options": options, "answer": "o5"} for i in range(300)]
    return FunctionSource(lambda split: iter(rows), ("train",), "many")


def test_more_options_than_names_are_an_error_that_says_what_to_do():
    _add(TEMPLATES[:1], _many(27), has_options=True)
    with pytest.raises(DataError, match="many:train:1 has 27 options") as error:
        _plain("t_zs_opt")
    assert 'many_options="bullets"' in str(error.value)
    assert len(_plain("t_zs_noopt")) == 300  # They are not shown there.
    _add(TEMPLATES[:1], _many(26), name="fits", has_options=True)
    assert len(_plain("fits_zs_opt")) == 300


def test_more_options_than_names_can_be_written_with_bullets():
    arguments = {"has_options": True, "option_style": "random"}
    _add(TEMPLATES[:1], _many(40), many_options="bullets", **arguments)
    bullets = {
        names[0]
        for names, counts in zip(ITEM_NAMES, COUNTS_THROUGH, strict=True)
        if not counts
    }
    seen = set()
    for example in _plain("t_zs_opt"):
        assert example["targets"] == "o5" and list(example["choices"])[39] == "o39"
        text = re.sub(r"[;.]?$|[;.](?=[\n ])", "", example["inputs"])
        (between,) = set(re.findall(r"o\d+(\s+\S+ )(?=o\d)", text))
        assert between in bullets
        seen.add(between)
    assert len(seen) == 23
    assert task_info("t_zs_opt")["many_options"] == "bullets"


def test_references_that_are_options_follow_the_numbers_too():
    arguments = {"option_style": "random", "prompt_types": ["zs_opt"]}
    (name,) = _add(TEMPLATES[:2], has_options=True, **arguments)
    numbered = 0
    for example in _plain(name):
        target, (first, second) = example["targets"], example["references"]
        assert target == first and second.isupper() and second.lower() in OPTIONS
        assert target in example["choices"]
        numbered += target not in OPTIONS
    assert 30 < numbered < 55


def test_an_answer_that_is_none_of_its_options_is_named():
    rows = [{"text": "a", "options": ["yes", "no"], "answer": "Yes"}]
    source = FunctionSource(lambda split: iter(rows), ("train",), "r")
    _add(TEMPLATES[:1], source, has_options=True)
    with pytest.raises(DataError, match="row r:train:1 has the answer 'Yes'") as error:
        _plain("t_zs_opt")
    assert "'yes', 'no'" in str(error.value) and "field 'answer'" in str(error.value)
    assert len(_plain("t_zs_noopt")) == 1


# --- properties over all templates ---------------------------------------------------


def test_counts_of_templates_differ_by_one_at_most_and_two_builds_are_equal():
    names = _add(TEMPLATES, has_options=True, mix_shots=FewShot(5))
    for name in names:
        examples = _plain(name)
        counts = {}
        for example in examples:
            used = example["template_id"]
            counts[used] = counts.get(used, 0) + 1
            shots = example["shot_ids"]
            assert example["row_id"] not in shots and len(set(shots)) == len(shots)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == (6 if name.endswith("mix") else 7)
        assert examples == _plain(name) and examples != _plain(name, seed=1)
        shuffled = _plain(name, shuffle=True)
        assert [e["row_id"] for e in shuffled] != [e["row_id"] for e in examples]
        texts, mixed = ([e["inputs"] for e in each] for each in (examples, shuffled))
        assert sorted(texts) == sorted(mixed)


def test_templates_can_be_drawn_for_each_row_alone():
    (name, _) = _add(TEMPLATES, template_assignment="random")
    used = [e["template_id"] for seed in range(20) for e in _plain(name, seed=seed)]
    counts = [used.count(t.id) for t in TEMPLATES]
    assert sum(counts) == 1200 and max(counts) < 1.4 * 1200 / 7 < 2 * min(counts)
    assert len({tuple(used[i : i + 60]) for i in range(0, 1200, 60)}) == 20


def test_no_option_shows_in_any_no_option_prompt():
    _add(TEMPLATES, has_options=True)
    for example in _plain("t_zs_noopt"):
        assert not re.search("|".join(OPTIONS), example["inputs"])
    for example in _plain("t_fs_noopt"):
        answers = [OPTIONS[(int(s[8:]) - 1) % 3] for s in example["shot_ids"]]
        assert re.findall("|".join(OPTIONS), example["inputs"]) == answers


def test_a_cut_off_surrogate_becomes_a_question_mark():
    rows = [{"text": "so \ud83d", "answer": "y"}]
    source = FunctionSource(lambda split: iter(rows), ("train",), "r")
    (name, _) = _add([Template("s/0", "{text} Ä", "{answer}")], source)
    assert _examples(name)[0]["inputs_pretokenized"] == "so ? Ä"
