"""The supervisor of several server processes over one listener: replaces one that dies, and ends all together.

The server processes also end by themselves when the supervisor is gone. A SIGHUP that asks to read files again is
passed on to each of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, parent_process, resource_tracker
from multiprocessing.process import BaseProcess

from uvicorn.config import STARTUP_FAILURE

from server.process.signals import ending_signals, on_hangup

LOG = logging.getLogger(__name__)

_REPLACE_AFTER = 1.0
"""Seconds; the pause keeps processes that die again and again from using up the machine."""

_TO_THE_GROUP = {signal.SIGINT, signal.SIGHUP}
"""Signals that a terminal sends to each process of the program."""


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
        """Runs until an ending signal, or until a first process can't start. Returns whether all first ones could.

        A replacement that can't start is replaced in turn: the database may be down for a while.
        """
        processes: list[BaseProcess] = []
        first: list[BaseProcess] = []
        all_start = True
        with _shutdown_signals() as shutdown, on_hangup(lambda: _hang_up(processes)):
            while all_start and not shutdown.has_come():
                if len(processes) < self.count:
                    process = self._start()
                    processes.append(process)
                    if len(first) < self.count:
                        first.append(process)
                    continue
                shutdown.wait(processes)
                dead = [process for process in processes if not process.is_alive()]
                for process in dead:
                    assert process.pid is not None
                    self.forget(process.pid)
                all_start = not any(process.exitcode == STARTUP_FAILURE for process in dead if process in first)
                processes[:] = [process for process in processes if process not in dead]
                if all_start and not shutdown.has_come():
                    shutdown.wait([], _REPLACE_AFTER)  # also if a sentinel fired and its process is still alive
            self.refuse_new()
            self._end(processes)
        return all_start

    def _start(self) -> BaseProcess:
        """Starts a process with SIGINT and SIGHUP blocked, which a terminal sends to the whole group.

        Ctrl+C would end the process with a traceback. SIGHUP is unblocked by the process once it can handle it.
        """
        resource_tracker.ensure_running()  # starting it later would unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
        process = self.make()
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_THE_GROUP)
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


def _hang_up(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGHUP)


@dataclass(slots=True)
class _Shutdown:
    """Whether an ending signal came. A socket holds the number of each signal: so one `wait` covers processes, too."""

    reader: socket.socket
    numbers: Iterable[int]
    _has_come: bool = False

    def has_come(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._has_come |= not set(self.numbers).isdisjoint(self.reader.recv(1024))
        return self._has_come

    def wait(self, processes: Iterable[BaseProcess], timeout: float | None = None) -> None:
        """Returns when any signal came or a process ended."""
        connection.wait([self.reader, *(process.sentinel for process in processes)], timeout)


@contextmanager
def _shutdown_signals() -> Iterator[_Shutdown]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    numbers = ending_signals()
    with reader, writer:
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # if ignored, ended processes would not be reported
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield _Shutdown(reader, numbers)
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
