"""The timer of a connection: closes it when its client neither sends nor reads in time."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import sys
import termios
from collections.abc import Callable

_MAX_UNSENT = 128 * 2**10
"""Bytes that wait in the kernel for a client whose buffer is full. Without it, Linux holds up to 4 MiB of them."""

_ACKNOWLEDGED = 120
"""The offset of `tcpi_bytes_acked` in Linux's `struct tcp_info` (linux/tcp.h)."""


class ConnectionTimer:
    """One timer per connection. Deadlines change with every request, and a timer for each would cost more than the
    request. So this one wakes at the earliest time at which a deadline can have passed, and checks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        *,
        shortest: float,
        send_seconds: float,
        overdue: Callable[[], None],
    ) -> None:
        """`shortest`: the least number of seconds that `expect` gets. `overdue`: called when a deadline has passed."""
        self.until: float | None = None
        """The deadline for what the client has to send, by the loop's clock; None if it has to send nothing."""
        self._loop = loop
        self._transport = transport
        self._step = min(shortest, send_seconds)
        self._send_seconds = send_seconds
        self._overdue = overdue
        self._is_paused = False
        self._unread = 0
        """Bytes that waited when the client was last seen to read."""
        self._unread_since = 0.0
        self._acknowledged: int | None = None
        """Bytes that the client's host had acknowledged when it was last seen to; None while it owes nothing."""
        self._acknowledged_at = 0.0
        self._handle = loop.call_later(self._step, self._check)

    def expect(self, seconds: float) -> None:
        """Sets the deadline for what the client has to send next."""
        self.until = self._loop.time() + seconds

    def pause_writing(self) -> None:
        """Begins to watch the unread bytes: while writing is paused they change only by what the client reads."""
        self._is_paused = True
        self._unread, self._unread_since = _unread_bytes(self._transport), self._loop.time()

    def resume_writing(self) -> None:
        self._is_paused = False

    def cancel(self) -> None:
        """For ever. Lets go of the connection, so that both are freed without a collection of cycles."""
        self._handle.cancel()
        self._overdue = _do_nothing

    def _check(self) -> None:
        now = self._loop.time()
        if self._reads_nothing(now) or self._acknowledges_nothing(now):
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
        self._handle = self._loop.call_at(min(times), self._check)

    def _reads_nothing(self, now: float) -> bool:
        if not self._is_paused and not self._transport.is_closing():
            self._unread = 0
            return False
        left = _unread_bytes(self._transport)
        if not self._unread or left < self._unread:
            self._unread, self._unread_since = left, now
        return left > 0 and now - self._unread_since >= self._send_seconds

    def _acknowledges_nothing(self, now: float) -> bool:
        """Whether all that waits is in the kernel, for a host that has vanished or whose buffer is full."""
        if self._is_paused or self._transport.is_closing():
            self._acknowledged = None
            return False
        acknowledged = _acknowledged_bytes(self._transport)
        if acknowledged is None or acknowledged != self._acknowledged:
            self._acknowledged, self._acknowledged_at = acknowledged, now
            return False
        return now - self._acknowledged_at >= self._send_seconds


def _do_nothing() -> None:
    pass


def limit_kernel(transport: asyncio.Transport) -> None:
    """Bounds what the kernel holds for a client that does not read, if this is TCP, on a system that can."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # of a Unix socket
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT)


def _acknowledged_bytes(transport: asyncio.Transport) -> int | None:
    """How many bytes the client's host has acknowledged so far; None if the kernel holds none that it has not.

    TCP_USER_TIMEOUT would not do: it also breaks off a client that reads slowly, with a small window.
    """
    sent = array.array("i", [0])
    connection = transport.get_extra_info("socket")
    try:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, sent)
        if not sent[0] or sys.platform != "linux":
            return None
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED + 8)
    except OSError:  # a Unix socket, or a closed one
        return None
    return int.from_bytes(info[_ACKNOWLEDGED : _ACKNOWLEDGED + 8], sys.byteorder)


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Unread bytes: those in our write buffer and in the kernel's send buffer.

    Both count: the kernel takes more from us only when much of its buffer is free, so by our buffer alone a slow client
    would seem to read nothing.
    """
    own = transport.get_write_buffer_size()
    if not own:
        return 0
    sent = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, sent)
    return own + sent[0]
