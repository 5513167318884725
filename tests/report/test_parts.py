"""Gains, samples, charts and formats of the report, each on its own."""

import io
import random
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from flanjax.errors import DataError
from flanjax.eval.records import write_records
from flanjax.eval.stats import paired_gain
from flanjax.report import formats, svg
from flanjax.report.console import print_summary
from flanjax.report.figures import write_before_after
from flanjax.report.headline import direction, summarise
from flanjax.report.report import cards, draw
from flanjax.report.run_directory import read_run
from flanjax.report.samples import collect


def _write(run: Path, step: int, name: str, scores: list[dict[str, float]]) -> None:
    """A run's records of one eval: question i has the scores of entry i."""
    rows = [
        {"index": i, "row_id": f"row {i}", "prompt": "?", "output": "x", "scores": s}
        for i, s in enumerate(scores)
    ]
    write_records(run / "records" / str(step) / f"{name}.jsonl.zst", rows)


def _run(path: Path, strict, flexible):
    """A run with one eval of given (before, after) values per metric."""
    entry = {"value": 0.5, "n": 40, "stderr": 0.1, "low": 0.4, "high": 0.6}
    results = {"task": {"exact_match": entry, "exact_match_flexible": entry}}
    path.mkdir()
    (path / "results.json").write_text(
        str({"0": results, "9": results}).replace("'", '"')
    )
    for step, side in ((0, 0), (9, 1)):
        values = zip(strict[side], flexible[side], strict=True)
        scores = [{"exact_match": s, "exact_match_flexible": f} for s, f in values]
        _write(path, step, "task", scores)
    return summarise(read_run(path))


def test_gains_are_those_of_the_same_questions(finished_run: Path):
    run = read_run(finished_run)
    headline = summarise(run)
    pairs = {}
    for row in headline.rows:
        before, after = run.records(0, row.name), run.records(300, row.name)
        sides = [[r["scores"]["exact_match"] for r in side] for side in (before, after)]
        pairs[row.name] = (sides[0], sides[1])
        assert row.gains["exact_match"] == paired_gain({row.name: pairs[row.name]})
    assert headline.gains["exact_match"] == paired_gain(pairs)


def test_records_of_other_questions_are_not_paired(finished_run: Path, tmp_path: Path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    for name in ("boolq_heldout", "asdiv_heldout"):
        records = read_run(run).records(300, name)
        for record in records[: 30 if name == "boolq_heldout" else 60]:
            record["prompt_hash"] = "another prompt"
        write_records(run / "records/300" / f"{name}.jsonl.zst", records)
    rows = {row.name: row for row in summarise(read_run(run)).rows}
    assert rows["boolq_heldout"].gains["exact_match"].n == 30
    assert "exact_match" not in rows["asdiv_heldout"].gains
    assert rows["asdiv_heldout"].after["exact_match"].n == 60


def test_mean_scores_differ_by_the_mean_gain(finished_run: Path, tmp_path: Path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "records/0/asdiv_heldout.jsonl.zst").unlink()  # An eval without pairs.
    headline = summarise(read_run(run))
    for card in cards(headline):
        assert card.after - card.before == pytest.approx(card.gain.value)
    assert cards(headline)[0].evals == 3


def test_chance_is_that_of_guessing_among_the_options(finished_run: Path):
    chance = {row.name: row.chance for row in summarise(read_run(finished_run)).rows}
    assert chance["boolq_heldout"] == pytest.approx(1 / 2)
    assert chance["commonsense_qa_heldout"] == pytest.approx(1 / 5)
    assert chance["nq_open_heldout"] is None


def test_the_reading_tells_form_from_content(tmp_path: Path):
    none, half, most = [0.0] * 40, [0.0, 1.0] * 20, [1.0] * 36 + [0.0] * 4
    form = _run(tmp_path / "form", (none, most), (half, half))
    assert "answer in the asked form, not new knowledge" in form.meaning
    content = _run(tmp_path / "content", (none, most), (none, most))
    assert "rose" in content.meaning and "form, not new" not in content.meaning
    partly = _run(tmp_path / "partly", (none, most), (half, most))
    assert "less than half of the strict gain" in partly.meaning
    nothing = _run(tmp_path / "nothing", (half, half), (half, half))
    assert "did not change measurably" in nothing.meaning
    worse = _run(tmp_path / "worse", (most, none), (half, half))
    assert "fell: −90.0" in worse.meaning
    assert direction(worse.gains["exact_match"]) == "down"


def test_three_right_and_three_wrong_samples_changed_ones_in_turn(tmp_path: Path):
    before = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    after = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    headline = _run(tmp_path / "run", (before, after), (before, after))
    (samples,) = collect(read_run(tmp_path / "run"), headline)
    assert [s.row_id for s in samples.right] == ["row 0", "row 1", "row 2"]
    assert [s.change for s in samples.right][:2] == ["wrong → right", "right → right"]
    assert [s.row_id for s in samples.wrong] == ["row 5", "row 4", "row 7"]
    assert set(samples.flips.values()) == {2}


def test_a_long_prompt_is_shown_by_its_end(finished_run: Path):
    run = read_run(finished_run)
    for samples in collect(run, summarise(run)):
        for sample in samples.right + samples.wrong:
            assert sample.is_cut and sample.tail.startswith("… ")
            assert sample.prompt.endswith(sample.tail.removeprefix("… "))
            assert "What is it?" in sample.tail


def test_ticks_cover_the_range_in_few_equal_steps():
    rng = random.Random(0)
    for _ in range(300):
        low = rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8)
        high = low + rng.random() * 10 ** rng.randint(-8, 8)
        values = svg.ticks(low, high)
        slack = 1e-6 * max(abs(low), abs(high), 1e-9)
        assert values[0] <= low + slack and values[-1] >= high - slack
        assert 2 <= len(values) <= 8
        assert values == sorted(set(values))
    assert svg.ticks(0, 0.93) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert svg.tick_labels([0.0, 0.25, 0.5]) == ["0", "0.25", "0.50"]
    assert svg.tick_labels([0.0, 5e-4, 1e-3]) == ["0", "5e−4", "1e−3"]


def test_thinning_keeps_the_ends_and_the_mean_level():
    points = [(x, float(x % 7)) for x in range(1, 5001)]
    thinned = svg.thin(points)
    assert len(thinned) <= 240
    assert thinned[0] == points[0] and thinned[-1] == points[-1]
    assert all(2 < y < 4 for _, y in thinned[1:-1])


def test_a_line_breaks_where_a_value_is_missing():
    nan = float("nan")
    series = svg.Series("x", [(0, 1.0), (1, 2.0), (2, nan), (3, None), (4, 1.0)])
    chart = svg.line_chart([series], title="t")
    path = ElementTree.fromstring(chart).find("path").get("d")
    assert path.count("M") == 2 and path.count("L") == 1
    assert svg.line_chart([svg.Series("x", [(0, nan)])], title="t") is None


def test_every_drawing_of_the_page_is_well_formed(finished_run: Path):
    page = draw(read_run(finished_run))[1]
    drawings = page.split("<svg")[1:]
    assert len(drawings) > 15
    for drawing in drawings:
        ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")


def test_the_figure_for_a_readme_stands_alone(finished_run: Path, tmp_path: Path):
    path = write_before_after(finished_run, tmp_path / "figure.svg")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = path.read_text()
    assert "prefers-color-scheme: dark" in text and "boolq_heldout" in text
    assert "href" not in text and "<script" not in text
    with pytest.raises(DataError, match="no evaluation results"):
        write_before_after(tmp_path, tmp_path / "none.svg")


def test_the_console_table_gives_scores_intervals_and_the_mean_gain(finished_run: Path):
    stream = io.StringIO()
    print_summary(finished_run, Console(file=stream, width=80))
    text = stream.getvalue()
    headline = summarise(read_run(finished_run))
    for row in headline.rows:
        (line,) = [
            line for line in text.splitlines() if line.startswith(f" {row.name}")
        ]
        for side in (row.before, row.after):
            assert formats.percent(side["exact_match"].value) in line
        assert formats.points(row.gains["exact_match"].value) in line
    assert "mean gain" in text and "…" not in text
    empty = io.StringIO()
    print_summary(finished_run / "records", Console(file=empty))
    assert "no evaluation results yet" in empty.getvalue()


def test_numbers_read_as_a_person_writes_them():
    assert formats.number(0.00025) == "2.5e−4"
    assert formats.number(1234.6) == "1,235"
    assert formats.number(-0.5) == "−0.500"
    assert formats.compact(134_515_008) == "135M"
    assert formats.compact(999_900) == "1.00M"
    assert formats.percent(0.4217) == "42.2"
    assert formats.points(-0.0312) == "−3.1"
    assert formats.points(0.0001) == "0.0"
    assert formats.duration(59.7) == "1 min 00 s"
    assert formats.duration(7265) == "2 h 01 min"
    for show in (formats.number, formats.percent, formats.points, formats.duration):
        assert show(None) == show(float("nan")) == show("text") == formats.MISSING
