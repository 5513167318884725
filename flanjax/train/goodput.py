"""Goodput: the share of a run's wall time in which it trained, and where the rest went.

    goodput = Goodput(setup=4.2)
    with goodput.span("evaluation"):
        ...
    goodput.seconds()     # {"compute": 51.0, "setup": 4.2, "evaluation": 6.3, ...}

Time that no span claims is compute: the host dispatches a step and waits for the one
before it. Waiting for a batch counts only while the devices have nothing to do.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

SPANS = ("data", "checkpoint", "evaluation", "compile", "profile")


class Goodput:
    """Adds up the seconds of one start of a run.

    Args:
      setup: seconds spent before the first step: reading, restoring.
    """

    def __init__(self, setup: float = 0.0):
        self._setup = setup
        self._start = time.monotonic()
        self._spent: dict[str, float] = dict.fromkeys(SPANS, 0.0)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Claims the time until the block ends for one of SPANS."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._spent[name] += time.monotonic() - start

    def claim(self, name: str, seconds: float) -> None:
        """Claims seconds that were measured elsewhere."""
        self._spent[name] += seconds

    def seconds(self) -> dict[str, float]:
        """Seconds so far by what they went to; they add up to the wall time."""
        claimed = sum(self._spent.values())
        compute = max(0.0, time.monotonic() - self._start - claimed)
        return {"compute": compute, "setup": self._setup, **self._spent}

    def share(self) -> float:
        """Compute as a share of all seconds, setup included."""
        seconds = self.seconds()
        return seconds["compute"] / max(sum(seconds.values()), 1e-9)

    def line(self) -> str:
        """The result for a person: "goodput 83 %: compute 51 s, evaluation 6 s"."""
        parts = sorted(self.seconds().items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {spent:.1f} s" for name, spent in parts if spent)
        return f"goodput {100 * self.share():.0f} %: {shown}"
