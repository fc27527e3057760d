"""Contestants as processes of their own: started, asked, watched for what they use, and stopped."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.benchmarks.load import memory_of
from tests.benchmarks.serving.contestants import compiled
from tests.benchmarks.serving.contestants.static_bytes import ANSWER
from tests.support.merlin_process import Merlin
from tests.support.serving import UNBOUNDED

ROOT = Path(__file__).parents[3]
CONTESTANTS = {
    "main": "merlin-graphql",
    "a": "strawberry with DataLoaders over redis-py",
    "b": "strawberry over Merlin's own managers",
    "c": "a function by hand over the same copy, orjson, no GraphQL",
    "d": "the same bytes, ready to be sent",
    "g": "Go: graph-gophers over the records in memory",
    "m": "node: mercurius with its JIT over the records in memory",
}
COMPILED = ("g", "m")
START = 120.0
"""Seconds that a start may take with 100,000 runs, on a busy machine."""
ANSWER_WITHIN = 600.0
"""Seconds."""
_TICKS = os.sysconf("SC_CLK_TCK")
_ADDRESS = re.compile(r"http://\S+/graphql")


class ProcessError(Exception):
    """It did not start, or did not answer; the message ends with its stderr."""


class Process:
    """To be used in a `with`. It is ready when it stands."""

    def __init__(
        self, name: str, url: str, home: Path, answer: bytes | None = None, arguments: Sequence[str] = ()
    ) -> None:
        """The home is a directory of its own; the answer is what (d) sends; the arguments are added to the command."""
        self.name = name
        home.mkdir(parents=True, exist_ok=True)
        self._log = home / "stderr.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("MERLIN_GRAPHQL_")}
        environ |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
        if name == "b":
            Merlin(home, url).close()  # writes Merlin's configuration
        if answer is not None:
            file = home / "answer.json"
            file.write_bytes(answer)
            environ[ANSWER] = str(file)
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_command(name, url, home), *arguments],
                cwd=home,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self.url = self._wait_for_address()
        except BaseException:
            self.stop()
            raise
        self.seconds_to_start = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pids(self) -> list[int]:
        """Its own, and those of its children."""
        return _family(self._process.pid)

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it and its children have used."""
        return sum(_cpu_of(pid) for pid in self.pids)

    @property
    def megabytes(self) -> float:
        """Resident."""
        return sum(memory_of(pid) for pid in self.pids)

    def settle(self) -> None:
        """Returns when it works no more, on requests whose client has gone, for instance."""
        deadline = time.monotonic() + ANSWER_WITHIN
        before = self.cpu
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.cpu
            if now - before < 0.02:  # seconds: two ticks
                return
            before = now

    def ask(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The answer to a POST request. Raises `ProcessError`."""
        place = urlsplit(self.url)
        assert place.hostname is not None
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=ANSWER_WITHIN)
        try:
            connection.request("POST", place.path, body, dict(headers))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ProcessError(f"({self.name}) answers {response.status}: {content[:500]!r}\n{self.log}")
        return content

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _wait_for_address(self) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + START
        for line in self._process.stdout:
            if found := _ADDRESS.search(line):
                return found[0]
            if time.monotonic() > deadline:
                break
        raise ProcessError(f"({self.name}) does not start\n{self.log}")


def _command(name: str, url: str, home: Path) -> Sequence[str]:
    if name in COMPILED:
        return compiled.command(name, url, home)
    if name == "main":
        return [sys.executable, "-m", "server", "serve", "--no-auth", *UNBOUNDED, "--port", "0", "--database", url]
    return [sys.executable, "-m", "tests.benchmarks.serving.contestants", name, url]


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = dict(_parents())
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _parents() -> Iterator[tuple[int, int]]:
    for directory in Path("/proc").glob("[0-9]*"):
        if stat := _stat(int(directory.name)):
            yield int(directory.name), int(stat[1])


def _cpu_of(pid: int) -> float:
    """With its children that have ended."""
    stat = _stat(pid)
    return sum(map(int, stat[11:15])) / _TICKS if stat else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) from the third on, the state; none where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
