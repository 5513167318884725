"""Ctrl-C and SIGTERM end a run at the next safe point instead of anywhere.

The first signal asks: the loop finishes the step it is in, saves and exits with
status 75 (run it again to go on). A second Ctrl-C stops at once, as if killed; the
last checkpoint stays good.
"""

import signal
import sys
from types import FrameType, TracebackType


class Interrupted(Exception):
    """Raised at a safe point after the user or the scheduler asked to stop."""


class InterruptGuard:
    """Notes SIGINT and SIGTERM while active.

    with InterruptGuard() as interrupt:
        ...
        interrupt.check()   # raises Interrupted once a signal has come
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "InterruptGuard":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:
            sys.exit(130)
        self.signal_name = signal.Signals(number).name
        print(
            f"\n{self.signal_name}: stopping after this step and saving "
            "(Ctrl-C again stops at once)",
            file=sys.stderr,
            flush=True,
        )

    def check(self) -> None:
        """Raises Interrupted when a signal has come."""
        if self.signal_name:
            raise Interrupted(self.signal_name)
