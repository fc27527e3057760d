"""The supervisor of several server processes over one listener: replaces one that dies, and ends all together.

They end as well when the supervisor is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, parent_process, resource_tracker
from multiprocessing.process import BaseProcess

from uvicorn.config import STARTUP_FAILURE

LOG = logging.getLogger(__name__)

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
        processes: list[BaseProcess] = []
        first: list[BaseProcess] = []
        all_start = True
        with _shutdown_signals() as told:
            while all_start and not connection.wait([told], 0):
                if len(processes) < self.count:
                    process = self._started()
                    processes.append(process)
                    if len(first) < self.count:
                        first.append(process)
                    continue
                connection.wait([told, *(process.sentinel for process in processes)])
                dead = [process for process in processes if not process.is_alive()]
                for process in dead:
                    assert process.pid is not None
                    self.forget(process.pid)
                all_start = not any(process.exitcode == STARTUP_FAILURE for process in dead if process in first)
                processes = [process for process in processes if process not in dead]
                if all_start:
                    connection.wait([told], _REPLACE_AFTER)  # also where one seems to have ended and has not
            self.refuse_new()
            self._end(processes)
        return all_start

    def _started(self) -> BaseProcess:
        """Ctrl+C reaches the whole group; they never see it: in their start they would die with a traceback."""
        resource_tracker.ensure_running()  # or its own start lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process = self.make()
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return process

    def _end(self, processes: list[BaseProcess]) -> None:
        for process in processes:
            process.terminate()
        until = time.monotonic() + self.patience
        for process in processes:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()


def end_without_supervisor(patience: float) -> None:
    """Tells this process to end, as SIGTERM does, once the one that started it is gone, however that came about.

    `patience`: seconds until it is killed.
    """
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel, patience), daemon=True).start()


def _end_after(sentinel: int, patience: float) -> None:
    connection.wait([sentinel])
    LOG.warning("The process that started this one is gone: it ends, too.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _shutdown_signals() -> Iterator[socket.socket]:
    """Readable once there was a signal: a loop that waits for other things can wait for it, too."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT)
    with reader, writer:
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no end would be told
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
