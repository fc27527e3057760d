"""The event that SIGTERM and SIGINT set, so that streams end at once, before uvicorn waits for them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def shutdown_event() -> Iterator[asyncio.Event]:
    """Set by the first SIGTERM or SIGINT; the handlers that stand have their turn as well.

    uvicorn tells its app nothing until every response is complete, which that of a subscription never is.
    """
    draining = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield draining  # signals reach the main thread only
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def heed(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(draining.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, heed)
    try:
        yield draining
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is heed:
                signal.signal(number, handler)
