"""What a person watching the terminal sees: short lines, and never a long silence.

progress = Progress()
with progress.task("compiling the train step"):
    ...                       # "compiling the train step ... 10 s" while it lasts
progress.line("step 3 ...")
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

HEARTBEAT_SECONDS = 10.0


class Progress:
    """Prints lines, and repeats the running task's name when nothing else comes.

    Args:
      stream: where lines go; standard output by default.
      period: seconds of silence after which the running task is named again.
    """

    def __init__(self, stream: TextIO | None = None, period: float = HEARTBEAT_SECONDS):
        self._stream = stream if stream is not None else sys.stdout
        self._period = period
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    def line(self, text: str) -> None:
        """Prints one line at once, also when the output is a pipe."""
        with self._lock:
            self._last = time.monotonic()
            print(text, file=self._stream, flush=True)

    @contextmanager
    def task(self, label: str, announce: bool = True) -> Iterator[None]:
        """Names what is going on until the block ends, and records its seconds."""
        start = time.monotonic()
        if announce:
            self.line(f"{label} ...")
        done = threading.Event()
        beat = threading.Thread(
            target=self._beat, args=(label, start, done), daemon=True
        )
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()
            spent = time.monotonic() - start
            self.seconds[label] = self.seconds.get(label, 0.0) + spent
        if announce and spent > 1:
            self.line(f"{label}: {spent:.1f} s")

    def _beat(self, label: str, start: float, done: threading.Event) -> None:
        while not done.wait(0.5):
            if time.monotonic() - self._last >= self._period:
                self.line(f"  {label} ... {time.monotonic() - start:.0f} s")
