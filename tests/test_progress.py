"""The terminal is never silent for long, and seconds are added up."""

import io
import time

from flanjax.progress import Progress


def test_a_long_task_is_named_again_and_again():
    stream = io.StringIO()
    progress = Progress(stream, period=0.2)
    with progress.task("compiling"):
        time.sleep(1.3)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "compiling ..." and lines[1].startswith("  compiling ... ")
    assert len(lines) >= 3


def test_a_task_that_prints_is_not_interrupted_by_its_name():
    stream = io.StringIO()
    progress = Progress(stream, period=5)
    with progress.task("evaluating", announce=False):
        progress.line("half done")
        time.sleep(0.6)
    assert stream.getvalue() == "half done\n"


def test_seconds_of_a_repeated_task_are_added_up():
    progress = Progress(io.StringIO())
    for _ in range(2):
        with progress.task("saving", announce=False):
            time.sleep(0.05)
    assert 0.1 <= progress.seconds["saving"] < 2
