"""Python programs in processes of their own, which begin with modules that another process has imported."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

CHILD = Path(__file__).with_name("forking.py")
DEADLINE = 60.0
"""Seconds until a program runs, on a busy machine."""


class Forked:
    """A running program. Has of `subprocess.Popen` what the tests use."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            ready, _, _ = select.select([self._told], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            with self._told:
                self.returncode = int(self._told.recv(64))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forking:
    """A process with these modules, from which programs are forked. All have its PYTHONWARNINGS."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, CHILD, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )

    def close(self) -> None:
        self._requests.close()
        self._process.wait()
        self._log.close()

    def start(
        self,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdin: IO[Any] | int,
        stdout: IO[Any] | int,
        stderr: IO[Any] | int,
        new_session: bool = False,
    ) -> Forked:
        """As `python ARGUMENTS` would. The streams are open files, or `subprocess.DEVNULL`."""
        request = {
            "arguments": [str(argument) for argument in arguments],
            "directory": str(directory),
            "environment": dict(environment),
            "new_session": new_session,
        }
        told, theirs = socket.socketpair()
        told.settimeout(DEADLINE)
        with theirs, Path(os.devnull).open("r+b") as nothing:
            given = [nothing if stream == subprocess.DEVNULL else stream for stream in (stdin, stdout, stderr)]
            files = [stream if isinstance(stream, int) else stream.fileno() for stream in given]
            socket.send_fds(self._requests, [json.dumps(request).encode()], [*files, theirs.fileno()])
        number = _line(told)
        if not number:
            self._log.seek(0)
            raise RuntimeError(f"nothing can be forked: {self._log.read()}")
        return Forked(int(number), told)


def _line(told: socket.socket) -> bytes:
    """Byte for byte, for what comes after it is read later."""
    line = b""
    while (byte := told.recv(1)) not in (b"", b"\n"):
        line += byte
    return line
