"""Each switch changes exactly what it says, and only in the tasks it concerns."""

import dataclasses
from typing import Any

import pytest
import seqio

from flanjax.data import tasks
from flanjax.data.faithful import SWITCHES, active, set_faithful
from flanjax.data.fewshot import FewShot
from flanjax.data.options import ITEM_NAMES, REPEATED_ITEM_NAMES
from flanjax.data.sources import FunctionSource
from flanjax.data.tasks import (
    TaskInfo,
    add_instruction_task,
    instruction_task,
    task_info,
)
from flanjax.data.templates import Template
from flanjax.errors import ConfigError

OPTIONS = ["ab", "cd", "ef"]
TEMPLATES = [
    Template(f"t/{i}", f"{i}) {{text}}\n{{options_}}", "{answer}") for i in range(4)
]


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(tasks, "_TASKS", {})
    yield
    set_faithful(())


def _rows(split):
    for i in range(23):
        yield {
            "text": f"thing\n{i}",
            "dialog": ["hello", f"what is thing {i}?"],
            "options": OPTIONS,
            "answer": OPTIONS[i % 3],
        }


SOURCE = FunctionSource(_rows, ("train",), "r")


def _add(name="t", templates=TEMPLATES, collection="test", source=SOURCE, **arguments):
    info = TaskInfo(collection, "things", "choice")
    options = {"has_options": True, "option_style": "random", "few_shot": FewShot(2)}
    return add_instruction_task(name, source, templates, info, **options | arguments)


def _plain(name, seed=0):
    source: Any = seqio.TaskRegistry.get(name).source
    return [e for chunk in source.plain_examples("train", False, seed) for e in chunk]


def _with(switches, name, seed=0):
    set_faithful(switches)
    examples = _plain(name, seed)
    set_faithful(())
    return examples


def test_switches_are_described_and_unknown_ones_refused():
    assert len(SWITCHES) == 8
    assert all(text.endswith(".") and "; here" in text for text in SWITCHES.values())
    assert active() == frozenset()
    with pytest.raises(ConfigError, match="Did you mean 'self_exemplars'"):
        set_faithful(["self_exemplar"])
    with pytest.raises(ConfigError, match="no switch 'x'") as error:
        _add(faithful=["x"])
    assert "task t" in str(error.value)


def test_a_switch_is_looked_up_when_a_dataset_is_built():
    names = _add(mix_shots=FewShot(5))
    before = {name: instruction_task(name).fingerprint("train") for name in names}
    concerned = {
        "drop_incomplete_round": set(names),
        "self_exemplars": {n for n in names if "_fs_" in n},
        "budget_without_delimiters": {n for n in names if "_fs_" in n},
        "option_formats": {"t_zs_opt"},
        "dialog_starts": {"t_zs_opt"},
        "t0_newlines": set(),
        "mnli_doubled": set(),
        "niv2_single_task": set(),
    }
    assert set(concerned) == set(SWITCHES)
    for switch, expected in concerned.items():
        set_faithful([switch])
        after = {name: instruction_task(name).fingerprint("train") for name in names}
        assert {n for n in names if before[n] != after[n]} == expected, switch
        told = {n for n in names if task_info(n)["faithful"] == [switch]}
        assert told == expected
    set_faithful(())
    assert before == {
        name: instruction_task(name).fingerprint("train") for name in names
    }


def test_a_task_can_have_a_switch_of_its_own():
    _add("own", faithful=["drop_incomplete_round"])
    _add("other")
    assert len(_plain("own_zs_opt")) == 20 and len(_plain("other_zs_opt")) == 23


def test_the_last_incomplete_round_of_templates_is_dropped():
    _add()
    whole, cut = _plain("t_zs_opt"), _with(["drop_incomplete_round"], "t_zs_opt")
    assert len(whole) == 23 and len(cut) == 20
    kept = {e["row_id"]: e for e in whole}
    assert all(e["template_id"] == kept[e["row_id"]]["template_id"] for e in cut)
    counts = [sum(e["template_id"] == f"t/{i}" for e in cut) for i in range(4)]
    assert counts == [5] * 4
    set_faithful(["drop_incomplete_round"])
    source = seqio.TaskRegistry.get("t_zs_opt").source
    assert source.num_input_examples("train") == 20


def test_a_query_may_be_its_own_exemplar():
    _add(few_shot=FewShot(8))
    for seed in range(3):
        assert all(e["row_id"] not in e["shot_ids"] for e in _plain("t_fs_opt", seed))
    own = _with(["self_exemplars"], "t_fs_opt")
    found = [e["row_id"] in e["shot_ids"] for e in own]
    assert any(found) and not all(found)
    assert all(len(set(e["shot_ids"])) == 8 for e in own)


def test_delimiters_do_not_count_against_the_budget():
    prefixes = {"inputs_prefix": "A question: ", "targets_prefix": "The answer: "}
    templates = [dataclasses.replace(t, **prefixes) for t in TEMPLATES]
    _add(templates=templates, few_shot=FewShot(3, max_tokens=150))
    honest = _plain("t_fs_opt")
    faithful = _with(["budget_without_delimiters"], "t_fs_opt")
    assert all(len(e["inputs"].encode()) <= 150 for e in honest)
    assert any(len(e["inputs"].encode()) > 150 for e in faithful)
    kept = {e["row_id"]: e["shot_ids"] for e in honest}
    for example in faithful:
        shots = kept.get(example["row_id"], [])
        assert example["shot_ids"][: len(shots)] == shots
    assert sum(len(e["shot_ids"]) for e in faithful) > sum(map(len, kept.values()))


def test_colons_of_item_names_become_full_stops_in_24_of_87_lists():
    drawn = list(zip(ITEM_NAMES[1:], REPEATED_ITEM_NAMES[1:], strict=True))
    changed = [(ours, theirs) for ours, theirs in drawn if ours != theirs]
    assert len(changed) == 24 and len({theirs for _, theirs in drawn}) == 63
    for ours, theirs in changed:
        assert [name.replace(": ", ". ") for name in ours] == list(theirs)
    # Enough rows that the 24 are drawn.
    rows = list(_rows("train")) * 20
    _add(source=FunctionSource(lambda split: iter(rows), ("train",), "r"))
    ours, theirs = _plain("t_zs_opt"), _with(["option_formats"], "t_zs_opt")
    differ = 0
    for one, other in zip(ours, theirs, strict=True):
        differ += one["inputs"] != other["inputs"]
        assert one["inputs"].replace(":", ".") == other["inputs"].replace(":", ".")
        assert one["targets"].replace(":", ".") == other["targets"]
    assert abs(differ / len(rows) - 24 / 87) < 0.08


def test_two_starts_of_dialogs_are_fused():
    rows = [{"dialog": ["hi", f"you {i}"], "answer": "x"} for i in range(400)]
    source = FunctionSource(lambda split: iter(rows), ("train",), "r")
    _add(templates=[Template("d/0", "{dialog_}", "{answer}")], source=source,
         has_options=False, prompt_types=["zs_opt"])  # fmt: skip
    fused = "CONVERSATION:Conversation:"
    assert not any(fused in e["inputs"] for e in _plain("t_zs_opt"))
    faithful = [e["inputs"] for e in _with(["dialog_starts"], "t_zs_opt")]
    starts = [text for text in faithful if text.startswith(("CONV", "Conv"))]
    assert starts and all(text.startswith(fused) for text in starts)


def test_p3_loses_its_newlines_and_other_collections_keep_theirs():
    rows = [{"inputs": "one\ntwo", "answer": "three\nfour", "options": ["three\nfour"]}]
    source = FunctionSource(lambda split: iter(rows), ("train",), "r")
    templates = [Template("p/0", "{inputs}\n{options_}", "{answer}\n!")]
    for name, collection in (("p3", "t0_sf"), ("other", "muffin")):
        _add(name, templates, collection, source, option_style="fixed")
        (plain,) = _plain(f"{name}_zs_opt")
        assert plain["inputs"] == "one\ntwo\nOPTIONS:\n- three\nfour"
        (faithful,) = _with(["t0_newlines"], f"{name}_zs_opt")
        if name == "other":
            assert faithful == plain
        else:
            assert faithful["inputs"] == "one two\nOPTIONS:\n- threefour"
            assert faithful["targets"] == "threefour\n!"
            assert list(faithful["choices"]) == ["threefour\n!"]
