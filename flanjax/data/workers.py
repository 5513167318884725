"""Jobs in processes: each process set up once, a dead one costs only its own job.

    for event in run_in_processes(jobs, work, setup, num_workers=4):
        if event is not None:         # None: seconds have passed, nothing ended
            job, result = event       # a Died if the process was killed

Processes are spawned, not forked: TensorFlow does not survive a fork. They end with
their parent, however that ends.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from flanjax.errors import DataError

_SECONDS_OF_SILENCE = 10.0
_READY = "ready"
Job = TypeVar("Job")


@dataclasses.dataclass(frozen=True)
class Died:
    """What comes back for a job whose process ended; a negative code is a signal."""

    exit_code: int | None

    def __str__(self) -> str:
        code = self.exit_code
        if code is None or code >= 0:
            return f"its process ended with status {code}"
        name = signal.Signals(-code).name
        memory = ", as when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}"


def run_in_processes(
    jobs: Sequence[Job],
    work: Callable[[Job], Any],
    setup: Callable[[], None],
    num_workers: int,
) -> Iterator[tuple[Job, Any] | None]:
    """Yields (job, result) as jobs end, and None now and then.

    Args:
      jobs: in the order they are begun.
      work: called with each, in some process; jobs and results are pickled.
      setup: called once in each process before its first job.
      num_workers: processes at most.

    Raises:
      DataError: a process ended while it was set up.
      Exception: whatever `setup` or `work` raised; the other processes are ended.
    """
    queue = collections.deque(jobs)
    workers = [_Worker(work, setup) for _ in range(min(num_workers, len(queue)))]
    try:
        while workers:
            ready = wait([w.connection for w in workers], _SECONDS_OF_SILENCE)
            if not ready:
                yield None
            for worker in [w for w in workers if w.connection in ready]:
                job, result = worker.receive()
                if isinstance(result, Died):
                    workers.remove(worker)
                    if queue:
                        workers.append(_Worker(work, setup))
                elif queue:
                    worker.give(queue.popleft())
                else:
                    workers.remove(worker)
                    worker.end()
                if job is not None:
                    yield job, result
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process, and the job it is on: None while it is being set up."""

    def __init__(self, work: Callable[[Any], Any], setup: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, work, setup), daemon=True
        )
        self._process.start()
        theirs.close()
        self._job = None

    def give(self, job: Any) -> None:
        self._job = job
        with contextlib.suppress(BrokenPipeError):  # `receive` tells that it died.
            self.connection.send(job)

    def receive(self) -> tuple[Any, Any]:
        """Returns the job, None for being ready, and its result or `Died`."""
        job, self._job = self._job, None
        try:
            result = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            died = Died(self._process.exitcode)
            if job is None:
                raise DataError(
                    f"a process could not be set up: {died}",
                    fix="read its message above. A script that prepares in processes "
                    "needs `if __name__ == '__main__':`; too little memory needs fewer "
                    "of them (num_workers)",
                ) from error
            return job, died
        if isinstance(result, Exception):
            raise result
        return job, result

    def end(self) -> None:
        self.connection.close()
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(
    connection: Connection, work: Callable[[Any], Any], setup: Callable[[], None]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends its processes.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            setup()
            connection.send(_READY)
            while True:
                connection.send(work(connection.recv()))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            error.add_note(traceback.format_exc())
            connection.send(_portable(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Returns the error, or its text in another if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
