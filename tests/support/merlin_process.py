"""Real Merlin 2.0.0b4 for interoperability tests, in processes of its own with a HOME of its own."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Self
from urllib.parse import urlsplit

AGENT = Path(__file__).with_name("merlin_agent.py")
PROGRAMS = Path(sys.executable).parent
TIMEOUT = 120.0


class MerlinError(Exception):
    """What Merlin raised, as `ClassName: message`."""


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
        self._agent: subprocess.Popen[str] | None = None
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
        if agent is None:
            return
        with suppress(BrokenPipeError), agent:  # an end of file is the agent's end; `with` waits for it
            try:
                agent.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                agent.kill()

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
        return self._run(self.home, *args).stdout

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
        log = self._run(spec.parent, "run", str(spec), *options).stderr
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

    def _run(self, directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROGRAMS / "merlin", *args],
            cwd=directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise MerlinError(f"merlin {' '.join(args)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return done

    def _environment(self) -> dict[str, str]:
        path = f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # steps ask for python3 there
        return {**os.environ, "HOME": str(self.home), "PATH": path, "C_FORCE_ROOT": "1"}  # else no worker runs as root

    def _ask(self, **request: Any) -> Any:
        with self._turn:
            if self._agent is None:
                self._agent = self._start()
            line = self._exchange(self._agent, json.dumps(request, default=_plain))
        answer = json.loads(line)
        if "error" in answer:
            raise MerlinError(answer["error"])
        return answer["value"]

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-u", AGENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.home,  # an app.yaml in the working directory would win over HOME's
                env=self._environment(),
                text=True,
            )

    def _exchange(self, agent: subprocess.Popen[str], request: str) -> str:
        assert agent.stdin is not None
        assert agent.stdout is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            agent.stdin.write(request + "\n")
            agent.stdin.flush()
        answered, _, _ = select.select([agent.stdout], [], [], self.timeout)
        line = agent.stdout.readline() if answered else ""
        if not line:
            agent.kill()
            self.close()
            raise MerlinError(f"AgentError: no answer to {request}\n{self._log.read_text()[-2000:]}")
        return line


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
