"""The benchmark of the data engine runs; its figures are not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "data_scale.py"


@pytest.mark.slow
def test_the_benchmark_prints_a_table():
    done = subprocess.run(
        [sys.executable, str(BENCH), "--quick"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    heading, row = done.stdout.splitlines()
    assert "packed/s" in heading and row.split()[:2] == ["flanjax", "20"]
