"""`flanjax data show`: tasks, mixtures with gaps, pages, and the batch of a run."""

import html.parser
import json
import re
from pathlib import Path

import pytest

from flanjax.cli import main
from flanjax.ops.data_lens import allocate

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "gin/recipes/tiny.gin")

MODULE = """
import seqio

from flanjax.data.mixing import examples_proportional
from flanjax.data.sources import FunctionSource, JsonlSource
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import Template


def rows(count):
    return lambda split: ({"q": f"<b>{i}</b>", "answer": str(i)} for i in range(count))


def add(name, source):
    template = Template(
        "one", inputs="say {q}", targets="{answer}", inputs_prefix="Q: ",
        example_separator=" ## ",
    )
    info = TaskInfo("seen", name, "echo")
    return add_instruction_task(f"seen_{name}", source, [template], info)


big = add("big", FunctionSource(rows(30), ("train",), "big"))
small = add("small", FunctionSource(rows(10), ("train",), "small"))
gone = add("gone", JsonlSource({"train": "/nowhere/gone.jsonl"}))
rate = examples_proportional(20)
seqio.MixtureRegistry.add(
    "seen_mix", [(name, rate) for name in (*big, *small, *gone)]
)
seqio.MixtureRegistry.add("seen_gone", [(name, rate) for name in gone])
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """What names the module above; it can be registered only once."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "seen_mixtures.py").write_text(MODULE)
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield ["--mixtures=seen_mixtures", f"--store_dir={store}"]


def shown(capsys, *arguments) -> list[dict]:
    assert main(["data", "show", "--json", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class Data(html.parser.HTMLParser):
    """Reads what is embedded in a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.content, self._inside = "", False
        self.feed(path.read_text("utf-8"))
        self.value = json.loads(self.content)

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "script" and ("id", "data") in attrs

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.content += data if self._inside else ""


@pytest.mark.parametrize(
    ("shares", "num", "counts"),
    [
        ([0.5, 0.3, 0.2], 10, [5, 3, 2]),
        ([0.98, 0.01, 0.01], 5, [3, 1, 1]),
        ([0.25] * 4, 2, [1, 0, 1, 0]),
        ([1.0], 3, [3]),
    ],
)
def test_examples_are_divided_by_share_and_each_member_has_one_if_they_suffice(
    shares, num, counts
):
    assert sum(counts) == num and allocate(shares, num) == counts


def test_a_mixture_is_shown_by_share_and_a_member_without_data_is_named(flags, capsys):
    assert main(["data", "show", "--json", "--num=12", "seen_mix", *flags]) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    shares = {e["task"]: e["share"] for e in found}
    # Rates 20 (of 30, capped) and 10, in two prompt types each.
    assert shares == pytest.approx(
        {
            "seen_big_zs_noopt": 1 / 3,
            "seen_big_fs_noopt": 1 / 3,
            "seen_small_zs_noopt": 1 / 6,
            "seen_small_fs_noopt": 1 / 6,
        }
    )
    assert len(found) == 12 and "2 tasks of seen" in err and "gone.jsonl" in err


def test_shares_are_estimates_until_a_mixture_too_large_to_count_is_prepared(
    flags, capsys, monkeypatch
):
    monkeypatch.setattr("flanjax.ops.data_lens._COUNTED_MEMBERS", 3)
    show = ["data", "show", "--json", "--num=4", "seen_mix", "--allow_missing", *flags]
    assert main(show) == 0
    out, err = capsys.readouterr()
    assert {json.loads(line)["share"] for line in out.splitlines()} == {0.25}
    assert "shares are estimates" in err
    assert main(["data", "prepare", "seen_mix", "--allow_missing", *flags]) == 0
    capsys.readouterr()
    assert main(show) == 0
    out, err = capsys.readouterr()
    shares = {json.loads(line)["share"] for line in out.splitlines()}
    assert sorted(shares) == pytest.approx([1 / 6, 1 / 3])
    assert "estimates" not in err and "seen_gone_zs_noopt" in err


def test_exemplars_are_told_apart_from_the_query(flags, capsys):
    for example in shown(capsys, "seen_big_fs_noopt", *flags):
        text, start = example["inputs_pretokenized"], example["query_start"]
        assert len(example["shot_ids"]) == text[:start].count("say ")
        assert text[start:].startswith("Q: say ") and " ## " not in text[start:]


def test_a_task_shows_rows_spread_over_its_split_and_no_more_than_there_are(
    flags, capsys
):
    rows = [e["row_id"] for e in shown(capsys, "seen_big_zs_noopt", "--num=3", *flags)]
    numbers = [int(row.rsplit(":", 1)[1]) for row in rows]
    assert max(numbers) - min(numbers) >= 20 and len(set(numbers)) == 3
    assert len(shown(capsys, "seen_small_zs_noopt", "--num=99", *flags)) == 10


def test_the_terminal_shows_provenance_text_and_tokens(flags, capsys):
    assert main(["data", "show", "seen_small_zs_noopt", "--num=1", *flags]) == 0
    out = capsys.readouterr().out
    for part in ("seen_small_zs_noopt", "zs_noopt", "say <b>", "→ ", " tokens"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["seen_mx"], 2, "Did you mean 'seen_mix'"),
        (["seen_big_zs_noopt", "--split=test"], 2, "no split 'test'"),
        (["seen_big_zs_noopt", "--num=0"], 2, "--num 0"),
        (["seen_big_zs_noopt", "--html=/nowhere/x.html"], 2, "cannot write"),
        (["seen_gone"], 3, "no member of mixture 'seen_gone'"),
        (["seen_gone_zs_noopt"], 3, "gone.jsonl"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(
    arguments, status, message, flags, capsys
):
    assert main(["data", "show", *arguments, *flags]) == status
    assert message in capsys.readouterr().err


def test_a_page_of_a_mixture_packs_its_examples(flags, tmp_path, capsys):
    path = tmp_path / "page.html"
    more = ["--num=20", "--lengths=64,16", "--kind=decoder"]
    assert main(["data", "show", "seen_mix", f"--html={path}", *more, *flags]) == 0
    assert "20 examples" in capsys.readouterr().out
    data = Data(path).value
    for row in data["rows"]:
        (stack,) = row["stacks"]
        assert stack["length"] == 80 == sum(count for *_, count in stack["runs"])
        assert {s for s, *_ in stack["runs"]} - {0} == set(
            range(1, len(row["examples"]) + 1)
        )
    assert "<b>" in data["examples"][0]["inputs"]
    assert "<b>" not in re.sub(r"(?s)<style>.*?</style>", "", path.read_text())


@pytest.mark.slow
def test_pages_of_the_tiny_mixture_and_of_a_batch_of_a_run(tmp_path, capsys):
    page, store, run = tmp_path / "page.html", tmp_path / "store", tmp_path / "run"
    assert main(["data", "show", "tiny", f"--html={page}"]) == 0
    data = Data(page).value
    assert (
        len(data["examples"]) == 96 and len({e["task"] for e in data["examples"]}) == 9
    )
    assert page.stat().st_size < 400_000
    train = ["train", f"--gin_file={RECIPE}", f"--gin.STORE_DIR='{store}'"]
    train += [f"--gin.MODEL_DIR='{run}'", "--gin.TRAIN_STEPS=2", "--gin.EVAL_PERIOD=0"]
    assert main(train) == 0
    assert main(["data", "show", f"--run={run}", "--step=1", f"--html={page}"]) == 0
    assert "as logged by the run" in page.read_text()
    data = Data(page).value
    placed = [index for row in data["rows"] for index in row["examples"]]
    assert placed == list(range(len(data["examples"])))
    for row in data["rows"]:
        decoder = row["stacks"][1]
        weighed = sum(count for _, loss, count in decoder["runs"] if loss)
        targets = [len(data["examples"][i]["target_ids"]) + 1 for i in row["examples"]]
        assert weighed == sum(targets) == len(decoder["ids"])
    capsys.readouterr()
    lines = shown(capsys, f"--run={run}", "--step=1", "--num=2")
    assert {line["row"] for line in lines} == {0, 1} and lines[0]["segment"] == 1
