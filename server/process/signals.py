"""What SIGTERM and Ctrl+C do: they end the program at every stage, once, and without a word."""

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
    """The handlers before are restored, unless signals are ignored since."""
    before = {number: signal.signal(number, handler) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, old in before.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, old)


def leave(_signal: int, _frame: FrameType | None) -> None:
    """Ends by way of the exits, so that what was opened is closed, whatever signals come meanwhile."""
    ignore_signals()
    raise SystemExit(0)


def ignore_signals() -> None:
    """Once the program ends: a second one would leave things half closed."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def run(main: Coroutine[Any, Any, None]) -> None:
    """A signal cancels it: raised inside an event loop, an exit would leave things half closed."""
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    loop = runner.get_loop()
    task = loop.create_task(main)
    is_told = False

    def heed(*_: object) -> None:
        nonlocal is_told
        is_told = True
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    with on_signals(heed), runner, contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    if is_told:
        raise SystemExit(0)
