"""How far a long list of jobs is, and how long the rest will take.

watch = Watch({"boolq": 9_000_000, "copa": 40_000}, there=12, progress=print)
watch.ended("boolq", "9,427 examples")
# 13 of 14 (1 to go, about 2 s): boolq, 9,427 examples
"""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

_SECONDS_BETWEEN_MESSAGES = 3.0
# Starting a task costs about as much as rendering this many bytes of rows.
_BYTES_TO_START = 100_000


class Watch:
    """Counts jobs and says so from time to time.

    Args:
      sizes: bytes that each job reads; its time is taken to go with them.
      there: jobs that had nothing to do.
      progress: gets the lines.
      clock: seconds.
    """

    def __init__(
        self,
        sizes: Mapping[Any, int],
        there: int,
        progress: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._left = {job: size + _BYTES_TO_START for job, size in sizes.items()}
        self._total, self._work = len(sizes) + there, 0
        self._progress, self._clock = progress, clock
        self._start: float | None = None
        self._told = clock() - _SECONDS_BETWEEN_MESSAGES
        if there:
            progress(f"{there:,} of {self._total:,} task splits are there already")

    def ended(self, job: Hashable, what: str) -> None:
        """Takes note of a job's end; tells now and then, and of the last one."""
        del self._left[job]
        if self._start is None:  # Before this, processes were starting.
            self._start, self._work = self._clock(), sum(self._left.values())
        if not self._left or self._is_time():
            self._progress(f"{self._state()}: {job}, {what}")

    def wait(self) -> None:
        """Nothing has ended for a while."""
        if self._is_time():
            self._progress(self._state())

    def _is_time(self) -> bool:
        now = self._clock()
        if now - self._told < _SECONDS_BETWEEN_MESSAGES:
            return False
        self._told = now
        return True

    def _state(self) -> str:
        done = f"{self._total - len(self._left):,} of {self._total:,}"
        left, about = sum(self._left.values()), ""
        if not left:
            return done
        if self._start is not None and left < self._work:
            spent = self._clock() - self._start
            about = f", about {_duration(spent * left / (self._work - left))}"
        return f"{done} ({len(self._left):,} to go{about})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
