"""`merlin-graphql status`, as a user at a shell and a script run it: of a server, and of a database."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from server.commands.asking import OpenedDatabase
from server.commands.status_documents import FIND, STATUS
from server.database.backends.sqlite import SQLiteBackend
from server.database.merlin_database import opened
from tests.support.records import memory_of, run, study, uid
from tests.support.serving import DEADLINE, MODULE, Serving, environment
from tests.support.serving import run as command
from tests.support.status_answers import answer, progress, step
from tests.support.status_answers import run as run_of

TOKEN = "Bearer a-secret-of-this-test"


@dataclass
class Stub:
    """A server of which a test says what it answers; it lets in whoever has the token."""

    url: str
    data: dict[str, Any] | None
    """Of the next answer; without it, there is an error."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The variables of the questions for a status."""
    has_answered: Callable[[Stub], None] = lambda _: None
    """Called after each of those answers."""
    refuses_with: int | None = None
    """The HTTP status of the next answers, where they are no answers."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != TOKEN:
                self.send_error(401)
                return
            if told.refuses_with is not None:
                self.send_error(told.refuses_with)
                return
            found: dict[str, Any] = {"byId": {"id": uid(11)}, "byWorkspace": {}, "byDirectory": {}, "study": None}
            is_status = "RunStatus" in question["query"]
            data = told.data if is_status else found
            response = {"errors": [{"message": "It is \x1b[31mbroken."}]} if data is None else {"data": data}
            content = json.dumps(response).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if is_status:
                told.asked.append(question["variables"])
                told.has_answered(told)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        told = Stub(f"http://127.0.0.1:{http_server.server_port}", answer(run_of()))
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield told
        http_server.shutdown()
        thread.join()


@pytest.fixture
def ask(home: Path, stub: Stub) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command for the stub."""
    environ = {"MERLIN_GRAPHQL_HEADER": f"Authorization: {TOKEN}"}
    return lambda *arguments: command(home, "status", uid(11), "--server", stub.url, *arguments, environ=environ)


Ask = Callable[..., subprocess.CompletedProcess[str]]


# --- of a server


def test_a_server_is_asked(ask: Ask, stub: Stub) -> None:
    """With the token of the environment; there is no colour where there is no terminal."""
    stub.data = answer(run_of(progress=progress(2, FAILED=1), stepRuns=[step("sim", FAILED=1)], hasFailed=True))
    done = ask()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Run        {uid(11)}\nStudy      hello\n")
    assert "\x1b" not in done.stdout


def test_json_is_the_data_of_the_answer(ask: Ask, stub: Stub) -> None:
    """All of it, as it came."""
    stub.data = answer(run_of(study={"name": "a\x1b[31mb"}))
    done = ask("--json")
    assert json.loads(done.stdout) == stub.data
    assert "\x1b" not in done.stdout


def test_the_exit_code_says_whether_it_has_failed_where_that_is_asked_for(ask: Ask, stub: Stub) -> None:
    """Else it only says whether there is an answer."""
    assert ask("--exit-code").returncode == 0
    stub.data = answer(run_of(hasFailed=True))
    assert ask("--exit-code").returncode == 1
    assert ask().returncode == 0


def test_tasks_are_asked_for_by_their_statuses(ask: Ask, stub: Stub) -> None:
    """In any case of letters, and no more than wanted."""
    ask("--tasks", "failed", "--tasks", "RETRYING", "--limit", "7")
    ask()
    assert stub.asked == [
        {"id": uid(11), "listsTasks": True, "statuses": ["FAILED", "RETRYING"], "first": 7},
        {"id": uid(11), "listsTasks": False, "statuses": [], "first": 20},
    ]


def test_what_goes_wrong_is_one_line(ask: Ask, home: Path, stub: Stub) -> None:
    """A missing token, an error of the server, a run that is gone, and what is no server of ours."""
    unknown = command(home, "status", uid(11), "--server", stub.url)
    assert unknown.returncode == 1
    assert unknown.stderr.startswith(
        f"merlin-graphql: {stub.url}/graphql: the server answers 401 Unauthorized. Send a "
    )
    stub.data = None
    assert ask().stderr == f"merlin-graphql: {stub.url}/graphql is refused: It is \\x1b[31mbroken.\n"
    stub.data = answer(None)
    assert ask().stderr == f"merlin-graphql: The run {uid(11)} was deleted.\n"
    for url in (
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://[",
        f"{stub.url}/?token=s3",
        "http://me:s3@host",
    ):
        done = command(home, "status", uid(11), "--server", url)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert ", such as http://127.0.0.1:8000." in done.stderr
        assert "s3" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--watch", "0"),
        ("--watch", "nan"),
        ("--limit", "0"),
        ("--limit", "501"),
        ("--tasks", "BROKEN"),
        ("--server", "http://localhost", "--database", "memory://"),
    ],
)
def test_a_wrong_command_line_is_refused(home: Path, arguments: tuple[str, ...]) -> None:
    """Before anybody is asked."""
    done = command(home, "status", uid(11), *arguments)
    assert done.returncode in (1, 2)
    assert done.stdout == ""


# --- again and again


@pytest.fixture
def watched(home: Path, stub: Stub) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command for the stub, ten times a second."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []
    env = environment(home, {"MERLIN_GRAPHQL_HEADER": f"Authorization: {TOKEN}", "TERM": "xterm"})

    def start(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        line = [*MODULE, "status", uid(11), "--server", stub.url, "--watch", "0.1", *arguments]
        process = subprocess.Popen(line, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(DEADLINE, process.kill)  # so that a test which waits for its output ends
        watchdog.start()
        started.append((process, watchdog))
        return process

    yield start
    for process, watchdog in started:
        watchdog.cancel()
        process.kill()
        process.communicate()


def test_a_watch_appends_where_there_is_no_terminal(stub: Stub, watched: Callable[..., Any]) -> None:
    """Each state below the last one, until Ctrl-C, which is its regular end."""
    statuses = iter(["QUEUED", "RUNNING"])

    def go_on(told: Stub) -> None:
        told.data = answer(run_of(status=next(statuses, "COMPLETED")))

    go_on(stub)
    stub.has_answered = go_on
    process, out = watched(), ""
    while "COMPLETED" not in out:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        out += line
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert re.findall(r"^Status +(\w+)$", out, re.MULTILINE) == ["QUEUED", "RUNNING", "COMPLETED"]
    assert "\x1b" not in out + rest


def test_a_watch_of_json_is_a_line_for_each_answer(stub: Stub, watched: Callable[..., Any]) -> None:
    """As programs read it."""
    process = watched("--json")
    lines = [process.stdout.readline() for _ in range(3)]
    assert [json.loads(line) for line in lines] == [stub.data] * 3


def test_a_watch_goes_on_after_an_outage(stub: Stub, watched: Callable[..., Any]) -> None:
    """What is wrong meanwhile is told, and the server asked again."""
    process = watched("--json")
    assert json.loads(process.stdout.readline()) == stub.data
    stub.refuses_with = 503
    assert "the server answers 503 Service Unavailable." in process.stderr.readline()
    stub.data, stub.refuses_with = answer(run_of(status="COMPLETED")), None
    while json.loads(process.stdout.readline()) != stub.data:  # answers from before
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0


def test_a_watch_draws_in_place_on_a_terminal(stub: Stub, watched: Callable[..., Any]) -> None:
    """From the top, with colours; nothing of a longer state before it stays."""
    seen, terminal = pty.openpty()
    process = watched(stdout=terminal)
    os.close(terminal)
    stub.has_answered = lambda told: process.send_signal(signal.SIGINT) if len(told.asked) == 3 else None
    drawn = b""
    try:
        while piece := os.read(seen, 65536):
            drawn += piece
    except OSError:  # so it is told that the other side is closed
        pass
    os.close(seen)
    assert process.wait(DEADLINE) == 0
    assert drawn.count(b"\x1b[HRun ") >= 2
    assert b"\x1b[36mRUNNING\x1b[0m" in drawn


# --- of a database


@pytest.mark.anyio
async def test_the_questions_are_those_of_the_contract() -> None:
    """Both are valid, and an empty answer has the shape that is printed."""
    async with opened(await memory_of(study(1, "hello", runs=(uid(11),)), run(11, study_id=uid(1)))) as database:
        asked = OpenedDatabase(database, [])
        variables = {"id": uid(11), "workspaces": list[str](), "directory": "/", "name": "hello"}
        assert (await asked.answer(FIND, variables))["byId"] == {"id": uid(11)}
        told = await asked.answer(STATUS, {"id": uid(11), "listsTasks": True, "statuses": ["FAILED"], "first": 5})
    expected = answer(run_of(tasks={"totalCount": 0, "nodes": list[Any]()}))
    assert told.keys() == expected.keys()
    assert told["run"].keys() == expected["run"].keys()


@pytest.fixture
async def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/merlin.db"
    backend = SQLiteBackend(url)
    await backend.open()
    await backend.insert([study(1, "hello", runs=(uid(11),)), run(11, study_id=uid(1), queues=("[merlin]_q",))])
    await backend.close()
    return url


@pytest.mark.anyio
async def test_a_database_is_read_without_a_server(home: Path, database: str, tmp_path: Path) -> None:
    """What can't be known so is named with what to pass; nothing is written."""
    before = (tmp_path / "merlin.db").read_bytes()
    done = command(home, "status", "hello", "--database", database)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Workspace  /runs/run_11\nStatus     " in done.stdout
    told = " ".join(done.stdout.split())
    assert "pass --workspace-root DIR." in told
    assert "pass --broker URL." in told
    assert (tmp_path / "merlin.db").read_bytes() == before


@pytest.mark.anyio
async def test_a_database_is_watched_until_it_is_enough(home: Path, database: str) -> None:
    """It stays open meanwhile; Ctrl-C is a regular end."""
    line = [*MODULE, "status", "hello", "--watch", "0.1", "--json", "--database", database]
    with subprocess.Popen(
        line, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["run"]["id"] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert (seen, process.returncode, err) == ([uid(11)] * 3, 0, "")


@pytest.mark.anyio
async def test_a_server_and_its_database_say_the_same(home: Path, database: str) -> None:
    """Of a run that nobody observes; a server has no history of it either."""
    with Serving(home, "--database", database, "--read-only") as serving:
        asked = command(home, "status", "hello", "--json", "--server", serving.url)
    direct = command(home, "status", "hello", "--json", "--database", database)
    assert asked.stderr == direct.stderr == ""
    assert json.loads(asked.stdout) == json.loads(direct.stdout)


def test_a_database_that_does_not_exist_is_not_made(home: Path, tmp_path: Path) -> None:
    """A mistyped path is an error."""
    done = command(home, "status", "hello", "--database", f"sqlite:///{tmp_path}/typo.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"merlin-graphql: There is no database {tmp_path}/typo.db.\n"
    assert not list(tmp_path.rglob("*.db"))
