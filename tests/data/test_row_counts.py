"""Row counts on disk: whatever happens to the file, a known count is a right one."""

import subprocess
import sys

from flanjax.data.row_counts import RowCounts


def test_counts_are_remembered_by_block(tmp_path):
    counts = RowCounts(tmp_path / "plans" / "a.rows")
    assert counts.get(0) is None
    for block in (3, 0, 700):
        counts.put(block, 1000 + block)
    again = RowCounts(tmp_path / "plans" / "a.rows")
    assert [again.get(b) for b in (0, 1, 3, 700, 701)] == [1000, None, 1003, 1700, None]


def test_what_is_torn_or_overwritten_is_unknown_again(tmp_path):
    path = tmp_path / "a.rows"
    counts = RowCounts(path)
    for block in range(4):
        counts.put(block, 50 + block)
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data[:-3])
    again = RowCounts(path)
    assert [again.get(block) for block in range(4)] == [50, None, 52, None]
    again.put(1, 51)
    assert RowCounts(path).get(1) == 51


_FILL = """
import sys
from pathlib import Path
from flanjax.data.row_counts import RowCounts
counts = RowCounts(Path(sys.argv[1]))
for block in range(300):
    counts.put(block, block + 1)
"""


def test_two_processes_write_the_same_file(tmp_path):
    command = [sys.executable, "-c", _FILL, str(tmp_path / "a.rows")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    counts = RowCounts(tmp_path / "a.rows")
    assert [counts.get(block) for block in range(300)] == list(range(1, 301))


def test_a_store_that_cannot_be_written_to_still_counts(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    counts = RowCounts(tmp_path / "file" / "a.rows")
    counts.put(5, 7)
    assert counts.get(5) == 7
