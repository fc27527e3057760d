"""The command line in processes of its own, with a HOME and a directory for temporary files of its own."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

from tests.support.forked import Forked, Forking

MODULE = (sys.executable, "-m", "server")
IMPORTED = ("server.cli", "server.app", "server.process.uvicorn_server", "schema.build")
"""With all that they import."""
WARNINGS = {"PYTHONWARNINGS": "error"}
_DROP = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "server", *sys.argv[1:]])
"""
UNPRIVILEGED = (sys.executable, "-c", _DROP)
"""For which the modes of files hold, though root runs the tests."""
UNBOUNDED = (
    *("--budget", "2147483647"),
    *("--max-client-connections", "100000", "--max-client-subscriptions", "100000"),
)
"""Flags for benchmarks, in which one client asks for as much as the server can do."""
DEADLINE = 30.0  # seconds that a start or an end may take on a busy machine
_URL = re.compile(r"GraphQL: (http://\S+)/graphql ")
_PAGE = re.compile(r"^(?:Board|GraphiQL): (\S+)", re.MULTILINE)


class ServeError(Exception):
    """It did not do what a test waits for; the message ends with its stderr."""


def environment(home: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the developer's settings and of Merlin's configuration on this machine."""
    temporary = home.with_name(f"{home.name}-tmp")
    for directory in (home, temporary):
        directory.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in os.environ.items() if not name.startswith("MERLIN_GRAPHQL_")}
    return {**own, "HOME": str(home), "TMPDIR": str(temporary), **WARNINGS, **(environ or {})}


@cache
def forking() -> Forking:
    """One for all servers and commands of this process."""
    started = Forking(IMPORTED, {**os.environ, **WARNINGS})
    atexit.register(started.close)
    return started


def is_heeded_at_the_start(environ: Mapping[str, str] | None) -> bool:
    """Whether a variable is for Python or its libraries, which know no others once they are imported."""
    return any(name.startswith(("PYTHON", "LC_", "LANG", "MALLOC_", "LD_")) for name in environ or ())


def run(
    home: Path, *arguments: str, environ: Mapping[str, str] | None = None, command: Sequence[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself. It has its modules already, unless a `command` is given."""
    if command is not None or is_heeded_at_the_start(environ):
        return _run(home, [*(command or MODULE), *arguments], environ)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = forking().start(
            ["-m", "server", *arguments],
            directory=home,
            environment=environment(home, environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            code = process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def _run(home: Path, command: Sequence[str], environ: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=home,
        env=environment(home, environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class Serving:
    """A server that is stopped at the end of its `with`. Its standard streams go to files, unless one is given."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        stderr: IO[Any] | int | None = None,
        login: bool = False,
        lives: bool = False,
    ) -> None:
        """With `login` as it is by itself; otherwise everybody is let in. A demo stays as it is, unless it `lives`.

        It has its modules already, unless a `command` is given.
        """
        arguments = tuple("--demo-still" if flag == "--demo" and not lives else flag for flag in arguments)
        self.home = home
        self.temporary = home.with_name(f"{home.name}-tmp")
        self._stdout = home.with_name(f"{home.name}.stdout")
        self._stderr = home.with_name(f"{home.name}.stderr")
        serve = ["serve", "--port", "0", *([] if login else ["--no-auth"]), *arguments]
        env = environment(home, environ)
        self.process: subprocess.Popen[bytes] | Forked
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            errors = err if stderr is None else stderr
            if command is None and not is_heeded_at_the_start(environ):  # a group of its own, as on a terminal
                self.process = forking().start(
                    ["-m", "server", *serve],
                    directory=home,
                    environment=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    new_session=True,
                )
            else:
                self.process = subprocess.Popen(
                    [*(command or MODULE), *serve],
                    cwd=home,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    start_new_session=True,
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # so that server processes of its own end with it
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def url(self) -> str:
        """The address that it prints; waits for it. Connections are accepted from then on."""
        self.wait_until(lambda: _URL.search(self.stdout) is not None)
        found = _URL.search(self.stdout)
        assert found is not None
        return found[1]

    @property
    def page(self) -> str:
        """The address of the first page that it prints, with the token."""
        found = _PAGE.search(self.stdout) if self.url else None
        assert found is not None
        return found[1]

    def stop(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise ServeError(f"it does not end\n{self.stderr}") from None

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """While it runs."""
        deadline = time.monotonic() + DEADLINE
        while not holds():
            if self.process.poll() is not None:
                raise ServeError(f"it ended with {self.process.returncode}\n{self.stderr}")
            if time.monotonic() > deadline:
                raise ServeError(f"it is still not so\n{self.stderr}")
            time.sleep(0.01)


def server_processes(pid: int) -> list[Path]:
    """Below /proc, without the tracker that Python starts beside them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        path for child in children if b"spawn_main" in (path := Path("/proc", child)).joinpath("cmdline").read_bytes()
    ]
