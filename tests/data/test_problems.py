"""Many tasks that fail for one reason are one line."""

from flanjax.data.problems import Problem, listed, refusal
from flanjax.data.watch import Watch
from flanjax.errors import DataError


def gone(number, collection="niv2"):
    name, file = f"niv2_task{number:03d}_zs_noopt", f"/data/tasks/task{number:03d}.json"
    fix = "fetch the files"
    return Problem(name, "train", "no such file", file, fix, collection)


def test_tasks_that_fail_for_one_reason_share_a_line_with_two_examples():
    problems = [gone(n) for n in range(1390)] + [
        Problem("copa_zs_opt", "train", "row copa:3 has no field 'premise'", "copa:3")
    ]
    first, second = listed(problems)
    assert first.startswith("1,390 tasks of niv2: no such file\n")
    assert "niv2_task000_zs_noopt train (/data/tasks/task000.json)" in first
    assert first.count("niv2_task") == 2
    assert second == "copa_zs_opt train: row copa:3 has no field 'premise' (copa:3)"
    error = refusal(problems)
    assert isinstance(error, DataError)
    text = str(error)
    assert "1,391 tasks cannot be prepared" in text and text.count("\n") < 6
    assert "(1) fetch the files" in text and "--allow_missing" in text


def test_causes_are_one_when_only_names_numbers_and_paths_differ():
    rows = [
        Problem(f"t{n}_fs_opt", "train", f"row a/b:{n} has {n} options, not 1 to 26")
        for n in (27, 31)
    ]
    (line,) = listed(rows)
    assert line.startswith("2 tasks: row ... has ... options, not ... to ...")
    assert "t27_fs_opt train: row a/b:27 has 27 options" in line
    other = Problem("t1_zs_opt", "train", "row a/b:1 has no field 'options'")
    assert len(listed([*rows, other])) == 2


def test_the_places_that_were_looked_at_are_told_for_one_task_alone():
    what = "no data for {}, neither here nor there; looked for\n    {}.jsonl"
    problems = [
        Problem(f"t0_{n}", "train", what.format(n, n)) for n in ("wiki_bio", "cos_e")
    ]
    (line,) = listed(problems)
    assert line.startswith("2 tasks: no data for ..., neither here nor there\n")
    assert ".jsonl" not in line and ".jsonl" in listed(problems[:1])[0]


def test_the_same_cause_in_another_collection_or_a_death_is_another_line():
    died = Problem("niv2_x", "train", "no such file", collection="niv2", missing=False)
    assert len(listed([gone(1), gone(2, "muffin"), died])) == 3
    assert "--allow_missing" not in str(refusal([died]))


def test_the_splits_of_one_task_are_one_task():
    splits = [Problem("a", split, "no such file", "a.jsonl") for split in ("x", "y")]
    assert listed(splits) == ["a x: no such file (a.jsonl) and 1 more of its splits"]
    assert "1 task cannot be prepared" in str(refusal(splits))


def test_the_watch_tells_how_much_is_left_and_guesses_the_time_by_bytes():
    now, lines = [0.0], []
    sizes = {"big": 900_000, "middle": 400_000, "small": 0}
    watch = Watch(sizes, 7, lines.append, lambda: now[0])
    assert lines == ["7 of 10 task splits are there already"]
    watch.wait()
    assert lines[-1] == "7 of 10 (3 to go)"
    now[0] = 100.0
    watch.ended("big", "5 examples")
    assert lines[-1] == "8 of 10 (2 to go): big, 5 examples"
    now[0] += 50
    watch.ended("middle", "3 examples")
    assert lines[-1] == "9 of 10 (1 to go, about 10 s): middle, 3 examples"
    watch.ended("small", "FAILED")
    assert lines[-1] == "10 of 10: small, FAILED"
