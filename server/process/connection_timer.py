"""The timer of a connection: closes it when its client neither sends nor reads in time."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import termios
from collections.abc import Callable


class ConnectionTimer:
    """Deadlines change with every request; a timer for each would cost more than the rest of it. So this one looks
    whether something is overdue when that is possible at the earliest."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        *,
        shortest: float,
        send_seconds: float,
        overdue: Callable[[], None],
    ) -> None:
        """`shortest`: seconds; no deadline is nearer when it is set. `overdue`: called when one has passed."""
        self.until: float | None = None
        """When what is awaited of the client has to be there, by the loop's clock; None where nothing is."""
        self._loop = loop
        self._transport = transport
        self._step = min(shortest, send_seconds)
        self._send_seconds = send_seconds
        self._overdue = overdue
        self._is_paused = False
        self._unread = 0
        """Bytes that waited when the client was last seen to read."""
        self._unread_since = 0.0
        self._handle = loop.call_later(self._step, self._look)

    def expect(self, seconds: float) -> None:
        self.until = self._loop.time() + seconds

    def pause_writing(self) -> None:
        """From now on nobody adds to what waits, so that it tells what the client reads."""
        self._is_paused = True
        self._unread, self._unread_since = _left(self._transport), self._loop.time()

    def resume_writing(self) -> None:
        self._is_paused = False

    def cancel(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._reads_nothing(now):
            self._transport.abort()
            return
        if self.until is not None and self.until <= now:
            self.until = None
            self._overdue()
        times = [now + self._step]
        if self.until is not None:
            times.append(self.until)
        if self._unread:
            times.append(self._unread_since + self._send_seconds)
        self._handle = self._loop.call_at(min(times), self._look)

    def _reads_nothing(self, now: float) -> bool:
        if not self._is_paused and not self._transport.is_closing():
            self._unread = 0
            return False
        left = _left(self._transport)
        if not self._unread or left < self._unread:
            self._unread, self._unread_since = left, now
        return left > 0 and now - self._unread_since >= self._send_seconds


def _left(transport: asyncio.Transport) -> int:
    """Bytes that wait for a client here, or that its system has not taken yet.

    The system takes more of them only when much of its own buffer is free: a slow client would seem to read nothing.
    """
    own = transport.get_write_buffer_size()
    if not own:
        return 0
    sent = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, sent)
    return own + sent[0]
