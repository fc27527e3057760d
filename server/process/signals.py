"""The handling of signals: SIGTERM and Ctrl+C end the program at any stage, once, and without a traceback.

SIGHUP has two meanings. From a terminal that is closed it ends the program, like SIGTERM. A program without a terminal
is a service, whose manager sends it to have files read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeAlias

import uvloop

Handler: TypeAlias = Callable[[int, FrameType | None], object]
_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_TERMINAL = "/dev/tty"


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals that end the program: with SIGHUP if it has a terminal, unless `nohup` had it ignored."""
    return (*_NUMBERS, signal.SIGHUP) if _heeds_hangup() and _has_terminal() else _NUMBERS


@contextlib.contextmanager
def on_hangup(handler: Callable[[], object]) -> Iterator[None]:
    """Calls a handler at each SIGHUP that does not end the program. Signals reach the main thread only."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not _heeds_hangup() or _has_terminal():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda *_: handler())
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # a supervisor starts processes with it blocked
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, before)


def _heeds_hangup() -> bool:
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal: the device that stands for it can be opened then."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def on_signals(handler: Handler) -> Iterator[None]:
    """Installs a handler for ending signals; restores the previous handlers, unless signals are ignored by then."""
    before = {number: signal.signal(number, handler) for number in ending_signals()}
    try:
        yield
    finally:
        for number, old in before.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, old)


def leave(_signal: int, _frame: FrameType | None) -> None:
    """A handler that raises `SystemExit`, so that context managers close what was opened; later signals are ignored."""
    ignore_signals()
    raise SystemExit(0)


def ignore_signals() -> None:
    """Ignores further signals while the program ends: a second one would leave things half closed."""
    for number in (*_NUMBERS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that ending signals cancel. An exception raised in the loop by a handler would leave things
    half closed."""
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    loop = runner.get_loop()
    task = loop.create_task(main)
    is_signalled = False

    def handle(*_: object) -> None:
        nonlocal is_signalled
        is_signalled = True
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    with on_signals(handle), runner, contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    if is_signalled:
        raise SystemExit(0)
