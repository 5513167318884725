"""The report draws any run directory, loads nothing, and runs no text of the data."""

import html.parser
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flanjax.eval.records import write_records
from flanjax.report import report
from flanjax.report.report import draw, write_report
from flanjax.report.run_directory import read_run

VOID = {"meta", "br", "hr", "img", "input", "link"}
FILES = (
    "results.json",
    "ledger.json",
    "status.json",
    "environment.json",
    "config.gin",
    "metrics.jsonl",
)
NASTY = "</td></pre><script>alert(1)</script><img src=x onerror=alert(2)>`|``` \" '"


class Page(html.parser.HTMLParser):
    """Collects elements and checks that tags are balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished_run, tmp_path / "copy")


@pytest.fixture(scope="module")
def drawn(finished_run: Path) -> tuple[str, str]:
    return draw(read_run(finished_run))


def test_the_page_loads_nothing_and_runs_nothing(drawn):
    page = Page(drawn[1])
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    links = [v for k, v in page.attributes if k in ("href", "src", "data", "action")]
    assert links and all(link.startswith("#") for link in links)
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", drawn[1])
    assert "default-src 'none'" in drawn[1]


def test_links_inside_the_page_lead_somewhere(drawn):
    page = Page(drawn[1])
    targets = {v for k, v in page.attributes if k == "id"}
    for key, value in page.attributes:
        if key == "href":
            assert value.removeprefix("#") in targets


def test_the_page_shows_the_numbers_of_results_json(finished_run, drawn):
    results = json.loads((finished_run / "results.json").read_text())
    text = " ".join(Page(drawn[1]).text)
    for step in ("0", "300"):
        for name, scores in results[step].items():
            if name.startswith("validation/"):
                continue
            assert name in text and name in drawn[0]
            for metric in ("exact_match", "exact_match_flexible", "parse_failures"):
                shown = f"{100 * scores[metric]['value']:.1f}"
                assert shown in text and shown in drawn[0]


def test_sections_come_in_the_order_a_reader_wants_them(drawn):
    ids = [v for k, v in Page(drawn[1]).attributes if k == "id"]
    assert ids == ["scores", "curves", "data", "samples", "run", "reproduce"]


def test_a_task_seen_more_than_five_times_is_flagged(drawn):
    assert "1 task passed 5 epochs" in re.sub(r"<[^>]+>", "", drawn[1])
    assert re.search(r"More than 5 epochs: `piqa_fs_opt` \(7\.\d\)", drawn[0])


def test_drawing_twice_gives_the_same_page(finished_run, drawn):
    assert draw(read_run(finished_run)) == drawn


def test_text_of_the_data_stays_text(copied_run: Path):
    ledger = json.loads((copied_run / "ledger.json").read_text())
    for key in ("task", "collection", "dataset", "licence", "category"):
        ledger["members"][0][key] = NASTY
    (copied_run / "ledger.json").write_text(json.dumps(ledger))
    status = {"state": "failed", "message": NASTY, "seconds": {NASTY: 3.0}}
    (copied_run / "status.json").write_text(json.dumps(status))
    (copied_run / "config.gin").write_text(NASTY)
    environment = {NASTY: NASTY, "command": NASTY, "git": {"commit": NASTY}}
    (copied_run / "environment.json").write_text(json.dumps(environment))
    results = json.loads((copied_run / "results.json").read_text())
    for step, evals in results.items():
        evals["nasty <b>&amp;"] = evals["boolq_heldout"]
        record = {
            key: NASTY
            for key in ("kind", "row_id", "prompt", "output", "strict", "flexible")
        }
        record |= {"index": 0, "gold": [NASTY], "choices": [NASTY], "truncated": True}
        record |= {"scores": {"exact_match": 1.0}, "choice_prediction": 0}
        path = copied_run / "records" / step / "nasty <b>&amp;.jsonl.zst"
        write_records(path, [record])
    (copied_run / "results.json").write_text(json.dumps(results))
    with (copied_run / "metrics.jsonl").open("a") as file:
        line = {"time": 1.0, "step": 301, "kind": "event", "event": NASTY}
        file.write(json.dumps(line) + "\n")
    markdown, page = draw(read_run(copied_run))
    parsed = Page(page)
    assert not {"script", "img"} & set(parsed.tags)
    assert not [k for k, _ in parsed.attributes if k.startswith("on")]
    assert "".join(parsed.text).count("<script>") >= 15
    # Markdown: outside code, only escaped; code is fenced by more than the text has.
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", markdown, flags=re.M | re.S)
    outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", outside)
    assert "<script>" not in outside and "<img" not in outside


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_and_the_rest_is_drawn(copied_run: Path, name: str):
    (copied_run / name).unlink()
    markdown, page = draw(read_run(copied_run))
    Page(page)
    assert f"{name} (not written yet)" in page
    assert f"{name} (not written yet)" in markdown


def test_an_empty_directory_gives_a_report_that_says_so(tmp_path: Path):
    page = write_report(tmp_path).read_text()
    Page(page)
    for sentence in (
        "No evaluation has finished yet.",
        "No training step has been logged yet.",
        "The ledger of training tasks has not been written yet.",
        "No records of an evaluation were found",
        "The run has not recorded its times yet.",
        "The command has not been recorded.",
    ):
        assert sentence in page


def test_a_run_cut_anywhere_is_drawn(finished_run: Path, tmp_path: Path):
    rng = random.Random(0)
    paths = [*FILES, "records/300/boolq_heldout.jsonl.zst"]
    for attempt, name in enumerate(paths):
        run = shutil.copytree(finished_run, tmp_path / str(attempt))
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: rng.randrange(1, len(content))])
        Page(draw(read_run(run))[1])


def test_a_cut_last_line_of_metrics_costs_that_line_only(copied_run: Path):
    whole = read_run(copied_run)
    path = copied_run / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    cut = read_run(copied_run)
    assert cut.metrics == whole.metrics[:-1]
    assert "1 incomplete line" in cut.problems["metrics.jsonl"]


def test_values_of_the_wrong_type_never_stop_the_report(finished_run, tmp_path):
    """Replaces random values in every JSON file; `draw` itself must cope."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    rng = random.Random(1)
    junk = (None, -1, 3.5, float("nan"), "text", "", [], {}, [1, "a"], {"a": []}, True)

    def spoil(value: Any) -> Any:
        if rng.random() < 0.05:
            return rng.choice(junk)
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        return [spoil(v) for v in value] if isinstance(value, list) else value

    originals = {
        name: json.loads((run / name).read_text())
        for name in FILES
        if name.endswith(".json")
    }
    lines = [json.loads(t) for t in (run / "metrics.jsonl").read_text().splitlines()]
    records = [read_run(run).records(300, "boolq_heldout")[:12]]
    for _ in range(5):
        for name, value in originals.items():
            (run / name).write_text(json.dumps(spoil(value)))
        text = "\n".join(json.dumps(spoil(line)) for line in lines[::5])
        (run / "metrics.jsonl").write_text(text)
        spoiled = [r for r in spoil(records) if isinstance(r, list)]
        for rows in spoiled:
            write_records(run / "records/300/boolq_heldout.jsonl.zst", rows)
        Page(draw(read_run(run))[1])


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_the_state_of_a_run_and_its_message_stand_at_the_top(new_run, state: str):
    run = new_run(state=state, steps=40)
    page = write_report(run).read_text()
    assert f'<span class="state {state}">{state}</span>' in page
    assert "stopped by SIGTERM" in page
    assert "40 of 300" in page
    assert "nothing can be said about the effect of training" in page


def test_an_error_in_drawing_becomes_the_report(tmp_path: Path, monkeypatch):
    def broken(run: Any) -> None:
        raise RuntimeError("planted <b>")

    monkeypatch.setattr(report, "draw", broken)
    page = write_report(tmp_path).read_text()
    assert "could not be drawn" in page and "planted &lt;b&gt;" in page
    assert "planted <b>" in (tmp_path / "report.md").read_text()


def test_a_report_leaves_no_temporary_files(copied_run: Path):
    before = {p.name for p in copied_run.iterdir()}
    assert write_report(copied_run) == copied_run / "report.html"
    after = {p.name for p in copied_run.iterdir()}
    assert after - before == {"report.md", "report.html"}


def test_drawing_imports_neither_jax_nor_tensorflow(finished_run: Path):
    code = (
        "import sys\n"
        "from flanjax.report import console, figures\n"
        "from flanjax.report.report import draw\n"
        "from flanjax.report.run_directory import read_run\n"
        f"draw(read_run({str(finished_run)!r}))\n"
        "heavy = {'jax', 'tensorflow', 'seqio', 'matplotlib', 'gin'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
