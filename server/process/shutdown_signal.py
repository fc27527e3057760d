"""The event that ending signals set, so that streams end at once, before uvicorn waits for them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from server.process.signals import ending_signals


@contextmanager
def shutdown_event() -> Iterator[asyncio.Event]:
    """An event that the first ending signal sets, before the previously installed handler runs.

    uvicorn tells its app of a shutdown only when every response is complete, and a subscription's never is.
    """
    draining = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield draining  # signals reach the main thread only
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in ending_signals()}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(draining.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield draining
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)
