"""Several server processes over one listener: one that dies is replaced, and all are told to end at once."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess

from uvicorn.config import STARTUP_FAILURE

_REPLACE_AFTER = 1.0
"""Seconds, so that processes which die again and again do not keep the machine busy."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    make: Callable[[], BaseProcess]
    """One that serves until SIGTERM; its exit code is `STARTUP_FAILURE` where it never could."""
    count: int
    refuse_new: Callable[[], None]
    """Called before they are told to end."""
    forget: Callable[[int], None]
    """Called with the id of a process that died."""
    patience: float
    """Seconds until those that were told to end, and did not, are killed."""

    def run(self) -> bool:
        """Until SIGTERM, SIGINT, or one of the first that can't start; whether those could.

        One that replaces another, and can't start, is replaced in turn: the database may be down for a while.
        """
        with _told_to_end() as told:
            processes = first = self._started(self.count)
            all_start = True
            while all_start and told not in connection.wait([told, *(process.sentinel for process in processes)]):
                dead = [process for process in processes if not process.is_alive()]
                for process in dead:
                    assert process.pid is not None
                    self.forget(process.pid)
                all_start = not any(process.exitcode == STARTUP_FAILURE for process in dead if process in first)
                processes = [process for process in processes if process not in dead]
                if all_start and not connection.wait([told], _REPLACE_AFTER):
                    processes += self._started(len(dead))
            self.refuse_new()
            self._end(processes)
        return all_start

    def _started(self, count: int) -> list[BaseProcess]:
        """Ctrl+C reaches the whole group; they never see it: in their start they would die with a traceback."""
        resource_tracker.ensure_running()  # or its own start lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        processes = [self.make() for _ in range(count)]
        for process in processes:
            process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return processes

    def _end(self, processes: list[BaseProcess]) -> None:
        for process in processes:
            process.terminate()
        until = time.monotonic() + self.patience
        for process in processes:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _told_to_end() -> Iterator[socket.socket]:
    """Readable once there was a signal: a loop that waits for other things can wait for it, too."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT)
    with reader, writer:
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
