"""FLAN 2022: counts, the release's shares, the paper's columns, and the ladder."""

import argparse
import collections
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import seqio

from flanjax.commands.count import count
from flanjax.data.catalog import count_collections
from flanjax.data.mixing import (
    FLAN_RATES,
    examples_proportional,
    read_tree,
    resolve_shares,
    temperature_scaled,
)
from flanjax.data.tasks import instruction_task, task_names
from flanjax.errors import ConfigError
from mixtures import cot, dialog, flan2022, ladder, muffin, niv2, t0_sf
from mixtures.compose import add_mixture, tasks_of
from mixtures.muffin_facts import facts

TABLES = Path(ladder.__file__).parent / "tables"
# Dialog and program synthesis: what the public code counts of the former, capped; the
# latter is in no public code, so any number does.
DIALOG = {"wiki_dialog": 200_000, "qrecc": 6_610, "task_master": 3_560}
PROGRAMS = 5_000


def _base_counts() -> Mapping[str, tuple[int, ...]]:
    """Base -> examples, zero-shot and few-shot, if all data were here."""
    counts: dict[str, tuple[int, ...]] = {
        name: (fact.zero_shot_cases, fact.x_shot_cases)
        for name, fact in facts().items()
    }
    with (TABLES / "t0_sf.tsv").open(encoding="utf-8", newline="") as stream:
        next(stream)
        for row in csv.DictReader(stream, delimiter="\t"):
            cases = int(row["max_cases"])
            survive = int(cases * float(row["x_shot_fraction"]))
            counts[f"t0_{row['prompt']}"] = cases, survive
    counts |= {t.base: (t.examples,) * 2 for t in niv2.table() if t.listed}
    for name, each in cot.SETS.items():
        counts[each.base] = counts[f"cot_inverted_{name}"] = (each.used,) * 2
    for base in dialog.BASES:
        counts[base] = (DIALOG[base.removesuffix("_inverted")],) * 2
    return counts


@pytest.fixture(scope="module")
def examples() -> dict[str, int]:
    """Task -> examples, if all data were here."""
    counts = _base_counts()
    names = [n for n in task_names() if n not in niv2.SINGLE]
    tasks = {name: instruction_task(name) for name in names}
    return {
        name: counts.get(task.base, (PROGRAMS,) * 2)[task.is_few_shot] or 1
        for name, task in tasks.items()
    }


def _tree(name):
    return read_tree(name, seqio.TaskRegistry, seqio.MixtureRegistry)


def _by_base(name, examples) -> dict[str, float]:
    shares: dict[str, float] = collections.defaultdict(float)
    for each in resolve_shares(_tree(name), examples):
        shares[instruction_task(each.name).base] += each.share
    return shares


def _part(whole, part, examples) -> float:
    """Share of a sub-mixture, wherever it stands in a mixture."""
    found = 0.0

    def walk(node, share):
        nonlocal found
        if node.name == part:
            found += share
        elif node.children and isinstance(node.children[0].rate, int | float):
            total = sum(child.rate for child in node.children)
            for child in node.children:
                walk(child, share * child.rate / total)

    walk(_tree(whole), 1.0)
    return found


def test_the_count_of_each_collection_is_the_papers_and_the_tables():
    counts = {each.name: each for each in count_collections()}
    assert {name: c.paper for name, c in counts.items()} == {
        "muffin": 80,
        "t0_sf": 193,
        "niv2": 1_554,
        "cot": 9,
    }
    assert sum(each.paper for each in counts.values()) == 1_836
    assert [c.table for c in counts.values()] == [144 + 6 + 10, 193, 1_556, 36]
    assert sum(each.table for each in counts.values()) == 1_945
    assert counts["niv2"].code == 1_597
    for each in counts.values():
        assert each.registered == each.listed >= each.paper
        assert each.note


def test_the_count_command_says_what_is_here(data_root, capsys):
    args = argparse.Namespace(mixtures=[], json=True)
    assert count(args) == 0
    result = json.loads(capsys.readouterr().out)
    present = {each["name"]: each["present"] for each in result["collections"]}
    assert present["cot"] == 5 and present["niv2"] == 206
    assert result["total"]["paper"] == 1_836
    assert count(argparse.Namespace(mixtures=[], json=False)) == 0
    out = capsys.readouterr().out
    assert "80 + 193 + 1,554 + 9 = 1,836" in out
    assert "160 + 193 + 1,556 + 36 = 1,945" in out and "1,597" in out


def test_nothing_is_here_on_a_machine_without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [each.present for each in count_collections()] == [0, 0, 0, 0]


def test_the_ladder_has_9_89_282_and_1836_tasks():
    for rung in ladder.LADDER:
        tasks = _tree(ladder.ladder_mixture(rung)).tasks()
        assert len({instruction_task(task.name).base for task in tasks}) == rung


def test_rung_0_says_to_evaluate_the_initial_checkpoint():
    with pytest.raises(ConfigError, match="evaluate the initial checkpoint"):
        ladder.ladder_mixture(0)
    with pytest.raises(ConfigError, match="evaluate the initial checkpoint"):
        _tree("flan_ladder_0")
    with pytest.raises(ConfigError, match="no rung of 10 tasks"):
        ladder.ladder_mixture(10)


def test_the_releases_shares_are_those_of_the_public_code(examples):
    parts = {name: _part("flan2022", f"{name}_submix", examples)
             for name in ("flan2021", "t0", "niv2", "cot", "dialog")}  # fmt: skip
    assert parts == pytest.approx(
        {"flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog": 0.03}
    )
    by_type = collections.defaultdict(float)
    for name in parts:
        for prompt_type in flan2022.prompt_types(name):
            share = _part("flan2022", f"{name}_submix_{prompt_type}", examples)
            by_type[prompt_type] += share
    assert by_type["zs_opt"] + by_type["zs_noopt"] == pytest.approx(0.5)
    assert by_type["zs_noopt"] + by_type["fs_noopt"] == pytest.approx(0.36)


def test_the_releases_shares_by_dataset_are_those_of_the_public_code(examples):
    shares = _by_base("flan2022", examples)
    assert sum(shares.values()) == pytest.approx(1)
    forward = sum(shares[base] for base in cot.FORWARD)
    inverted = sum(shares[base] for base in cot.INVERTED)
    assert forward == pytest.approx(0.0385, abs=5e-5)
    assert inverted == pytest.approx(0.0115, abs=5e-5)
    # Datasets of 30,000 or more in either form.
    capped = [n for n, f in facts().items() if f.public and f.x_shot_cases > 30_000]
    assert len(capped) == 38
    for name in capped:
        assert shares[name] == pytest.approx(0.0080, abs=1.2e-4), name
    assert shares["cot_gsm8k"] == pytest.approx(0.0038, abs=1e-4)
    amazon = shares["t0_amazon_polarity_Is_this_review"]
    assert amazon == pytest.approx(0.00235, abs=1.5e-4)
    dialogs = sum(shares[base] for base in dialog.BASES)
    wiki = shares["wiki_dialog"] + shares["wiki_dialog_inverted"]
    assert wiki / dialogs == pytest.approx(0.95, abs=0.005)


def test_capped_totals_are_the_public_codes():
    counts = _base_counts()
    cap = {name: column.cap for name, column in FLAN_RATES["flan2022"].items()}

    def total(bases, cap):
        return sum(min(counts[base][0], cap) for base in bases)

    assert total(muffin.BASES, cap["flan2021"]) == 1_495_430
    # The table has a dataset's largest prompt for all of its prompts; a few have less.
    assert 2_724_840 <= total(t0_sf.BASES, cap["t0"]) < 1.05 * 2_724_840
    assert total(cot.FORWARD, cap["cot"]) == 74_730
    assert total(niv2.BASES, cap["niv2"]) == 4_340_288 - 104_378


def test_few_shot_holds_both_forms_and_no_option_datasets_stand_in_both_types():
    rte = {"rte": muffin.BASES["rte"]}
    assert tasks_of(rte, "fs_opt") == ["rte_fs_opt", "rte_fs_opt_mix"]
    assert tasks_of(rte, "fs_noopt") == ["rte_fs_noopt"]
    plain = {"x": ("x_zs_noopt", "x_fs_noopt")}
    for prompt_type in ("zs_opt", "zs_noopt"):
        assert tasks_of(plain, prompt_type) == ["x_zs_noopt"]
    explained = tasks_of(dict([next(iter(niv2.BASES.items()))]), "fs_opt")
    assert [name[-9:] for name in explained] == ["explained", "on_fs_opt"]


@pytest.mark.parametrize("column", ["proportion_a", "proportion_b"])
def test_the_papers_columns_are_normalised(column, examples):
    rates = {name: each.rate for name, each in FLAN_RATES[column].items()}
    for name, rate in rates.items():
        part = _part(f"flan_{column}", f"flan_{name}", examples)
        assert part == pytest.approx(rate / sum(rates.values())), name
    assert sum(_by_base(f"flan_{column}", examples).values()) == pytest.approx(1)


def test_niv2_tasks_weigh_their_examples_up_to_the_cap(examples):
    shares = _by_base("flan_proportion_a", examples)
    table = {task.base: task for task in niv2.table() if task.paper}
    total = sum(min(task.examples, 5_000) for task in table.values())
    for base, task in table.items():
        expected = 0.30 * min(task.examples, 5_000) / total
        assert shares[base] == pytest.approx(expected), base


def test_the_ablation_with_and_without_chain_of_thought(examples):
    only, without, both = (
        set(_by_base(name, examples))
        for name in ("flan_cot_only", "flan_non_cot", "flan_both")
    )
    assert only == set(cot.FORWARD) and only.isdisjoint(without)
    assert both == only | without and len(without) == 1_836 - 9


def test_flan_2021_has_its_69_datasets_at_a_maximum_of_3000(examples):
    found = resolve_shares(_tree("flan2021"), examples)
    assert len(found) == 69
    assert all(each.rate <= 3_000 == each.cap for each in found)
    assert {each.name.rsplit("_", 2)[1] for each in found} == {"zs"}


def test_temperature_evens_tasks_out(examples):
    shares = {
        s.name: s.share for s in resolve_shares(_tree("flan_temperature"), examples)
    }
    big, small = shares["snli_zs_opt"], shares["copa_zs_opt"]
    assert big / small == pytest.approx((549_360 / 350) ** 0.5)


def test_niv2_as_one_task_has_two_forms_beside_the_same_submixtures(examples):
    pool = dict.fromkeys(niv2.SINGLE, 5_000_000)
    shares = _by_base("flan2022_niv2_single", examples | pool)
    assert shares["niv2_single_task"] == pytest.approx(0.20)


def test_niv2s_official_test_tasks_can_be_held_out(examples):
    shares = _by_base("flan2022_niv2_without_test", examples)
    tested = {task.base for task in niv2.table() if task.split == "test"}
    assert len(tested) == 119 and tested.isdisjoint(shares)
    assert len(set(shares) & set(niv2.BASES)) == 1_556 - 119


def test_seqios_own_rates_agree_with_ours():
    counts = {"rate_a": 10, "rate_b": 300, "rate_c": 5_000}
    for name, number in counts.items():
        if name not in seqio.TaskRegistry.names():
            source: Any = seqio.FunctionDataSource(
                lambda split, shuffle_files, seed=None: None,
                splits=["train"],
                num_input_examples={"train": number},
            )
            seqio.TaskRegistry.add(
                name,
                source=source,
                preprocessors=[],
                output_features={},
            )
    rate = examples_proportional(100)
    add_mixture("rate_one", [("rate_a", rate), ("rate_b", rate)])
    add_mixture("rate_two", [("rate_b", temperature_scaled(2)), ("rate_c", 40.0)])
    add_mixture("rate_in", [("rate_two", 3.0), ("rate_a", 1.0)])
    add_mixture("rate_all", [("rate_one", 0.3), ("rate_in", 0.6), ("rate_c", 0.1)])
    mixture = seqio.MixtureRegistry.get("rate_all")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    total = sum(rates.values())
    ours = {s.name: s.share for s in resolve_shares(_tree("rate_all"), counts)}
    assert ours == pytest.approx({name: r / total for name, r in rates.items()})
