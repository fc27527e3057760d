"""The handling of SIGTERM and Ctrl+C: each ends the program at any stage, once, and without a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeAlias

import uvloop

Handler: TypeAlias = Callable[[int, FrameType | None], object]
_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def on_signals(handler: Handler) -> Iterator[None]:
    """Installs a handler for SIGTERM and SIGINT; restores the previous ones, unless signals are ignored by then."""
    before = {number: signal.signal(number, handler) for number in _NUMBERS}
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
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that SIGTERM and SIGINT cancel. An exception raised in the loop by a handler would leave things
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
