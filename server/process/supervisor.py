"""The supervisor of several server processes over one listener: replaces one that dies, and ends all together.

The server processes also end by themselves when the supervisor is gone.
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
"""Seconds; the pause keeps processes that die again and again from using up the machine."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Starts server processes, replaces those that die, and stops them."""

    make: Callable[[], BaseProcess]
    """Makes a process that serves until SIGTERM; it exits with `STARTUP_FAILURE` if it could not start."""
    count: int
    refuse_new: Callable[[], None]
    """Called before the processes get SIGTERM."""
    forget: Callable[[int], None]
    """Called with the id of a process that died."""
    kill_after: float
    """Seconds from SIGTERM until a process that has not ended is killed."""

    def run(self) -> bool:
        """Runs until SIGTERM, SIGINT, or until a first process can't start. Returns whether all first ones could.

        A replacement that can't start is replaced in turn: the database may be down for a while.
        """
        processes: list[BaseProcess] = []
        first: list[BaseProcess] = []
        all_start = True
        with _shutdown_signals() as shutdown:
            while all_start and not connection.wait([shutdown], 0):
                if len(processes) < self.count:
                    process = self._start()
                    processes.append(process)
                    if len(first) < self.count:
                        first.append(process)
                    continue
                connection.wait([shutdown, *(process.sentinel for process in processes)])
                dead = [process for process in processes if not process.is_alive()]
                for process in dead:
                    assert process.pid is not None
                    self.forget(process.pid)
                all_start = not any(process.exitcode == STARTUP_FAILURE for process in dead if process in first)
                processes = [process for process in processes if process not in dead]
                if all_start:
                    connection.wait(
                        [shutdown], _REPLACE_AFTER
                    )  # also if a sentinel fired and its process is still alive
            self.refuse_new()
            self._end(processes)
        return all_start

    def _start(self) -> BaseProcess:
        """Starts a process with SIGINT blocked: Ctrl+C reaches the whole group, and would end it with a traceback."""
        resource_tracker.ensure_running()  # starting it later would unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process = self.make()
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return process

    def _end(self, processes: list[BaseProcess]) -> None:
        for process in processes:
            process.terminate()
        until = time.monotonic() + self.kill_after
        for process in processes:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()


def end_without_supervisor(kill_after: float) -> None:
    """Sends SIGTERM to this process once its parent is gone, for whatever reason.

    `kill_after`: seconds from then until SIGKILL.
    """
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.sentinel, kill_after), daemon=True).start()


def _end_after(sentinel: int, kill_after: float) -> None:
    connection.wait([sentinel])
    LOG.warning("The supervisor is gone: this server process ends, too.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(kill_after)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _shutdown_signals() -> Iterator[socket.socket]:
    """A socket that is readable once a signal came: so one `wait` covers signals and processes."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT)
    with reader, writer:
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # if ignored, ended processes would not be reported
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
