"""The listening socket: a port or a Unix socket; at its end, accepted connections are answered, new ones refused."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from server.errors import UsageError
from server.settings import Settings

BACKLOG = 2048
_SO_ATTACH_FILTER = 26
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it
)
"""A classic BPF program (linux/filter.h): opcode, jump if true, jump if false, operand."""


class ListenError(UsageError):
    """The address can't be listened on. The message is one line."""


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket of the settings, closed at the end. Raises `ListenError`."""
    if settings.unix_socket is not None:
        with _unix_listener(settings.unix_socket, settings.socket_mode()) as listener:
            yield listener
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        tcp = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        raise ListenError(f"Can't listen on {address}: {error.strerror or error}. Choose another --port.") from None
    with tcp:
        yield tcp


@contextlib.contextmanager
def _unix_listener(path: Path, mode: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _remove_stale(path)
            before = os.umask(0o777)  # nobody can connect before the mode is set
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            path.chmod(mode)
            listener.listen(BACKLOG)
        except OSError as error:
            raise ListenError(f"Can't listen on {path}: {error.strerror or error}.") from None
        own = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == own:
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Removes a Unix socket that no process listens on any more. Raises `OSError`, `ListenError`."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ListenError(f"Can't listen on {path}: another server already does. Choose another path, or stop that server.")


def refuse_new(listener: socket.socket) -> None:
    """Refuses new connections, without closing: that would reset those that wait in the backlog.

    On a system that has no such filter (other than Linux), those few connections are lost.
    """
    if listener.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(listener.getsockname()).unlink()
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_DROP_SYN), ctypes.addressof(program))
        )


def has_waiting(listener: socket.socket) -> bool:
    """Whether a connection waits in the backlog."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
