"""Real Merlin 2.0.0b4 for interoperability tests, in processes of its own with a HOME of its own."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Self, TextIO
from urllib.parse import urlsplit

from tests.support.forked import Forked, Forking

AGENT = Path(__file__).with_name("merlin_agent.py")
PROGRAMS = Path(sys.executable).parent
TIMEOUT = 120.0
IMPORTED = (
    *(
        "celery.app.amqp",
        "celery.backends.redis",
        "celery.signals",
        "kombu.transport.redis",
        "redis.asyncio",
        "sqlite3",
    ),
    *("maestrowf.maestro", "numpy", "pkg_resources", "psutil", "tabulate", "coloredlogs", "rich.columns", "rich.panel"),
)
"""What Merlin imports, without Merlin: that reads the configuration of its HOME as it is imported."""


@cache
def forking() -> Forking:
    """One for all Merlins of this process."""
    started = Forking(IMPORTED, os.environ)
    atexit.register(started.close)
    return started


def told_by_merlin(program: str, directory: Path, home: Path) -> str:
    """What a program prints that imports parts of Merlin, in a directory and with a HOME."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = (
            forking()
            .start(
                ["-c", program],
                directory=directory,
                environment={**os.environ, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            .wait(TIMEOUT)
        )
        out.seek(0)
        err.seek(0)
        if code != 0:
            raise MerlinError(f"exit code {code}\n{err.read()[-2000:]}")
        return out.read().strip()


class MerlinError(Exception):
    """What Merlin raised, as `ClassName: message`."""


@dataclass(frozen=True)
class Child:
    """A program that answers by lines."""

    process: Forked
    requests: TextIO
    answers: int
    """A file descriptor: what was read and not asked for yet is in `unread`."""
    unread: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, script: Path, directory: Path, environment: Mapping[str, str], log: TextIO) -> Self:
        (theirs, ours), (answers, told) = os.pipe(), os.pipe()
        try:
            process = forking().start(
                [script], directory=directory, environment=environment, stdin=theirs, stdout=told, stderr=log
            )
        finally:
            os.close(theirs)
            os.close(told)
        return cls(process, os.fdopen(ours, "w"), answers)

    def ask(self, request: str, timeout: float, lines: int = 1) -> Iterator[str]:
        """Answers as they come; an empty one in place of one that does not come in time."""
        with suppress(BrokenPipeError):  # then there is no answer either
            self.requests.write(request + "\n")
            self.requests.flush()
        for _ in range(lines):
            yield self._line(timeout)

    def _line(self, timeout: float) -> str:
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], timeout)
            read = os.read(self.answers, 65536) if ready else b""
            if not read:
                return ""
            self.unread.extend(read)
        line, _, rest = self.unread.partition(b"\n")
        self.unread[:] = rest
        return line.decode()

    def close(self) -> None:
        """The end of its requests is its end."""
        with suppress(BrokenPipeError):
            self.requests.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.answers)


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    errors: tuple[str, ...]
    """The messages that were logged as errors."""
    printed: str


class Merlin:
    """Merlin's database in Redis, or without a URL in SQLite. Calls share one long-lived process: `close` it."""

    def __init__(self, home: Path, redis_url: str | None = None, timeout: float = TIMEOUT) -> None:
        self.home = home.resolve()
        self.timeout = timeout
        """Seconds that one answer may take."""
        self.database_file = self.home / ".merlin" / "merlin.db"
        self._log = self.home / "merlin_agent.log"
        self._agent: Child | None = None
        self._turn = Lock()
        self.database_file.parent.mkdir(parents=True, exist_ok=True)
        app_yaml = self.database_file.with_name("app.yaml")
        app_yaml.write_text(json.dumps(_configuration(redis_url), indent=2))  # JSON is YAML

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """E.g. `call("runs.create", study_name=…, workspace=…, queues=[…])`; a new entity comes as its id.

        Queues of a logical worker must be a set, as Merlin's own callers pass them.
        """
        return self._ask(do="call", path=method, args=args, kwargs=kwargs)

    def entity(self, kind: str, identifier: str, method: str, /, *args: Any) -> Any:
        """E.g. `entity("run", id, "set_run_status", "RUNNING")`."""
        return self._ask(do="entity", kind=kind, identifier=identifier, method=method, args=args)

    def get(self, kind: str, identifier: str) -> dict[str, Any] | None:
        """One record as Merlin reads it; its workspace or name will do for an id where Merlin allows it."""
        record: dict[str, Any] | None = self._ask(do="get", kind=kind, identifier=identifier)
        return record

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """All that Merlin can read, by kind, in order of id. What it can't read it leaves out."""
        records: dict[str, list[dict[str, Any]]] = self._ask(do="dump")
        return records

    def task(self, name: str, workspace: Path) -> None:
        """What Merlin's tasks do about the status of their run: `queued`, `running`, `failed` or `completed`."""
        self._ask(do="task", name=name, workspace=workspace)

    def command(self, *args: str, mount: Path | None = None) -> Ran:
        """What the command `merlin` does, in the long-lived process: milliseconds, where `cli` takes a second.

        Garbage is collected as if `mount` were a file system of its own, and nothing else were.
        """
        answer = self._ask(do="command", args=args, mount=mount)
        return Ran(answer["code"], tuple(answer["errors"]), answer["printed"])

    def cli(self, *args: str) -> str:
        """The standard output of the command `merlin`, run in HOME."""
        return self._run(self.home, *args)[0]

    def example(self, directory: Path, name: str = "hello") -> Path:
        """The specification of one of Merlin's examples, made below the directory."""
        self._run(directory, "example", name)
        return directory / name / f"{name}.yaml"

    def run_local(self, spec: Path) -> Path:
        """`merlin run --local` to its end; gives the workspace, which is made beside the specification.

        It writes to `database_file` whatever the configuration says.
        """
        return self.run(spec, "--local")

    def run(self, spec: Path, *options: str) -> Path:
        """`merlin run`, which leaves the tasks to workers; gives the workspace."""
        _, log = self._run(spec.parent, "run", str(spec), *options)
        found = re.search(r"Study workspace is '(.+)'", log)
        if found is None:
            raise MerlinError(f"no workspace in the log of the run:\n{log}")
        return Path(found[1])

    def start(self, log: Path, *args: str) -> subprocess.Popen[bytes]:
        """The command `merlin` in a session of its own, so that whatever it starts can be ended with it."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [PROGRAMS / "merlin", *args],
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _run(self, directory: Path, *args: str) -> tuple[str, str]:
        """What it prints to stdout and stderr."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = forking().start(
                [PROGRAMS / "merlin", *args],
                directory=directory,
                environment=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            code = process.wait(TIMEOUT)
            out.seek(0)
            err.seek(0)
            printed, errors = out.read(), err.read()
        if code != 0:
            raise MerlinError(f"merlin {' '.join(args)}: exit code {code}\n{errors[-2000:]}")
        return printed, errors

    def _environment(self) -> dict[str, str]:
        path = f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # steps ask for python3 there
        return {**os.environ, "HOME": str(self.home), "PATH": path, "C_FORCE_ROOT": "1"}  # else no worker runs as root

    def _ask(self, **request: Any) -> Any:
        with self._turn:
            if self._agent is None:
                self._agent = self._start()
            text = json.dumps(request, default=_plain)
            (line,) = self._agent.ask(text, self.timeout)
            if not line:
                self._agent.process.kill()
                self.close()
                raise MerlinError(f"AgentError: no answer to {text}\n{self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise MerlinError(answer["error"])
        return answer["value"]

    def _start(self) -> Child:
        with self._log.open("w") as log:
            # An app.yaml in the working directory would win over HOME's.
            return Child.start(AGENT, self.home, self._environment(), log)


def _configuration(redis_url: str | None) -> dict[str, Any]:
    broker = {"name": "redis", "server": "127.0.0.1", "port": 6379, "db_num": 0}  # never contacted
    if redis_url is None:
        return {"broker": broker, "results_backend": {"name": "sqlite"}}
    url = urlsplit(redis_url)
    results: dict[str, Any] = {
        "name": url.scheme,
        "server": url.hostname,
        "port": url.port or 6379,
        "db_num": int(url.path.strip("/") or 0),
        "cert_reqs": "none",  # Merlin gives its client no certificate authority
    }
    if url.password is not None:
        results |= {"username": url.username or "", "password": url.password}  # goes into Merlin's URL as is
    return {"broker": broker | {key: results[key] for key in ("server", "port")}, "results_backend": results}


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return {"__set__": sorted(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} has no JSON form")
