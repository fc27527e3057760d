"""The command line as its users have it: processes, signals, exit codes, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import random
import signal
import socket
import sqlite3
import struct
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from server import __version__
from server.database.demo_data import demo_records
from server.database.models import LogicalWorkerModel, PhysicalWorkerModel, RunModel, StudyModel
from server.settings import Settings
from tests.conftest import Store
from tests.records import uid
from tests.servers import LOOPBACK, RedisServer, binaries
from tests.serving import DEADLINE, Serving, run, server_processes

COUNTS = "{ database { kind studies runs logicalWorkers physicalWorkers } }"
DEMO = {
    name: sum(isinstance(record, model) for record in demo_records(datetime.now(UTC)))
    for name, model in {
        "studies": StudyModel,
        "runs": RunModel,
        "logicalWorkers": LogicalWorkerModel,
        "physicalWorkers": PhysicalWorkerModel,
    }.items()
}
SIGNALS = [signal.SIGTERM, signal.SIGINT]
SECRET = "s3cr3t-Pa55"

SLOW_LOAD = """
import asyncio, sys
from server import cli
from server.database.backends.sqlite import SQLiteBackend

load = SQLiteBackend.load

async def slow_load(self, progress=None):
    entries = [entry async for batch in load(self) for entry in batch]
    for done, entry in enumerate(entries, 1):
        await asyncio.sleep(0.02)
        yield [entry]
        progress(done, len(entries))

SQLiteBackend.load = slow_load
sys.exit(cli.main())
"""
"""The command line, with an SQLite that takes 20 ms for each record."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def ask(url: str, query: str) -> dict[str, object]:
    answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=DEADLINE)
    assert answer.status_code == 200
    data: dict[str, object] = answer.json()["data"]
    return data


def counts(url: str) -> dict[str, int]:
    database = ask(url, COUNTS)["database"]
    assert isinstance(database, dict)
    database.pop("kind")
    return database


# --- serving ----------------------------------------------------------------------------------------------------------


def test_the_demo_is_served_whole_and_then_gone(home: Path) -> None:
    """`serve --demo` prints the address, serves every route, and leaves no file behind."""
    with Serving(home, "--demo") as serving:
        with httpx.Client(base_url=serving.url, timeout=DEADLINE) as client:
            page = client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert "GraphiQL" in page.text
            by_post = client.post("/graphql", json={"query": COUNTS})
            by_get = client.get("/graphql", params={"query": COUNTS})
            assert by_post.json() == by_get.json() == {"data": {"database": {"kind": "sqlite", **DEMO}}}
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/readyz").json()["status"] == "ready"
            assert client.get("/schema.graphql").text.rstrip().endswith("}")
        assert "(sample data, gone at the end)" in serving.stdout
        assert len(list(serving.temporary.iterdir())) == 1
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_when_it_has_answered(home: Path, workers: int, number: signal.Signals) -> None:
    """A request that has begun is answered; the exit code is 0, and the demo's database is gone."""
    with Serving(home, "--demo", "--workers", str(workers)) as serving:
        host, port = serving.url.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=DEADLINE) as idle,
            socket.create_connection((host, int(port)), timeout=DEADLINE) as busy,
        ):
            body = b'{"query": "{ database { runs } }"}'
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b'{"status":"ok"}'):
                received += idle.recv(65536)
            head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            busy.sendall(f"POST /graphql HTTP/1.1\r\n{head}Expect: 100-continue\r\n\r\n".encode())
            assert busy.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            serving.process.send_signal(number)
            assert idle.recv(65536) == b""  # it has begun to end
            busy.sendall(body)
            answer = b"".join(iter(lambda: busy.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b'\r\n\r\n{"data":{"database":{"runs":%d}}}' % DEMO["runs"])
        assert serving.wait() == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")
def test_several_processes_serve_one_database_and_end_together(home: Path, tmp_path: Path) -> None:
    """`--workers 2` over SQLite answers from both, and SIGTERM leaves none of them behind."""
    with Serving(home, "--demo", "--database", f"sqlite:///{tmp_path}/merlin.db", "--workers", "2") as serving:
        assert [counts(serving.url) for _ in range(6)] == [DEMO] * 6
        processes = server_processes(serving.process.pid)
        assert len(processes) == 2
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
        assert [process for process in processes if process.exists()] == []


def test_ctrl_c_while_processes_start_is_quiet(home: Path) -> None:
    """Ctrl+C goes to the whole group: those that are just starting end without a word, too."""
    with Serving(home, "--demo", "--workers", "2") as serving:
        assert serving.url
        os.killpg(serving.process.pid, signal.SIGINT)
        assert serving.wait() == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_while_it_still_reads(home: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Whoever has named the wrong database need not wait until a long load is done."""
    command = (sys.executable, "-c", SLOW_LOAD)
    with Serving(home, "--demo", command=command) as serving:
        serving.wait_until(lambda: "Merlin's database" in serving.stdout)
        assert serving.stop(number) == 0
        assert "GraphiQL" not in serving.stdout
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


def test_a_signal_ends_it_while_the_database_changes(home: Path, redis_server: RedisServer) -> None:
    """A refresh that is under way when the signal comes does not keep the server from ending."""
    record = dict.fromkeys(("workspace", "study_id", "run_status"), "null") | {"id": uid(1)}
    ended = threading.Event()

    def write() -> None:
        with redis_server.client() as client:
            while not ended.is_set():
                client.hset(f"run:{uid(1)}", mapping=record)

    writer = threading.Thread(target=write)
    with Serving(home, "--database", redis_server.url) as serving:
        writer.start()
        try:
            serving.wait_until(lambda: counts(serving.url)["runs"] == 1)
            assert serving.stop(signal.SIGTERM) == 0
        finally:
            ended.set()
            writer.join(DEADLINE)
        assert serving.stderr == ""


def test_a_database_in_memory_holds_the_demo(home: Path) -> None:
    """`--database memory:// --demo` needs no disk."""
    with Serving(home, "--database", "memory://", "--demo") as serving:
        assert counts(serving.url) == DEMO
        assert list(serving.temporary.iterdir()) == []
        assert serving.stop(signal.SIGTERM) == 0


def test_without_any_configuration_merlins_local_file_is_made_and_served(home: Path) -> None:
    """An empty HOME gets the SQLite file that `merlin run --local` will write to."""
    with Serving(home) as serving:
        assert counts(serving.url) == dict.fromkeys(DEMO, 0)
        assert "(from Merlin's local SQLite file)" in serving.stdout
    assert [path.name for path in (home / ".merlin").glob("*.db")] == ["merlin.db"]


def test_the_database_is_that_of_the_flag_then_of_the_variable_then_of_merlin(home: Path, tmp_path: Path) -> None:
    """--database wins over MERLIN_GRAPHQL_DATABASE, which wins over Merlin's own configuration."""
    by_flag, by_variable = (f"sqlite:///{tmp_path}/{name}.db" for name in ("flag", "variable"))
    environ = {"MERLIN_GRAPHQL_DATABASE": by_variable, "MERLIN_GRAPHQL_NO_AUTH": "yes"}
    with Serving(home, "--create", environ=environ) as serving:
        assert serving.url
        assert serving.stdout.startswith(f"Merlin's database: {by_variable} (as given)\n")
    with Serving(home, "--create", "--database", by_flag, environ=environ) as serving:
        assert serving.url
        assert serving.stdout.startswith(f"Merlin's database: {by_flag} (as given)\n")
    assert not (home / ".merlin").exists()


# --- sample data ------------------------------------------------------------------------------------------------------


def test_sample_data_goes_into_an_empty_database_only(home: Path, store: Store) -> None:
    """--demo fills the database that is named, for good, and refuses one that holds records."""
    with Serving(home, "--demo", "--database", store.url) as serving:
        assert counts(serving.url) == DEMO
        assert serving.stop(signal.SIGTERM) == 0
    refused = run(home, "serve", "--port", "0", "--demo", "--database", store.url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"merlin-graphql: {store.url} holds records: sample data goes into an empty database only.\n"
    )


# --- what is wrong is said in one line --------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and is nobody else's meanwhile."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        yield bound.getsockname()[1]


def assert_refused(
    home: Path, *arguments: str, says: str, environ: Mapping[str, str] | None = None, port: int = 0
) -> None:
    refused = run(home, "serve", "--port", str(port), *arguments, environ=environ)
    assert refused.returncode == 1
    assert refused.stderr.startswith("merlin-graphql: ")
    assert says in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert SECRET not in refused.stdout + refused.stderr
    assert refused.stdout == "" or "Merlin's database: sqlite:////no/such/home/" in refused.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["--database", f"mysql://u:{SECRET}@h/d"], {}, "No database has a URL that begins with mysql"),
        ([f"--database={SECRET}"], {}, "No database has a URL that begins with nothing"),
        (["--database", f"redis://:{SECRET}/x@h/0"], {}, "Can't read the database URL"),
        (["--database", f"redis://:[{SECRET}@h/0"], {}, "Can't read the database URL"),
        (["--database", "sqlite:////no/such/place/merlin.db"], {}, "its directory does not exist"),
        (["--database", "redis://h", "--database-password-file", "/no/such/file"], {}, "Can't read the password file"),
        (["--database", "memory://", "--workers", "2"], {}, "memory:// stands in one process"),
        (["--database", "MEMORY://", "--demo", "--workers", "2"], {}, "memory:// stands in one process"),
        (["--demo", "--time-zone", "Mars/Olympus_Mons"], {}, "time-zone: 'Mars/Olympus_Mons' is unknown here"),
        (["--demo", "--host", "no-such-host.invalid"], {}, "Can't listen on no-such-host.invalid:"),
        (["--demo"], {"MERLIN_GRAPHQL_WORKERS": "many"}, "MERLIN_GRAPHQL_WORKERS: 'many' can't be read"),
        (["--demo"], {"MERLIN_GRAPHQL_DATABASE_CERT_REQS": "maybe"}, "is none of required, optional, none"),
        (["--demo", "--workspace-root", "/:/no/such"], {}, "workspace-root: '/no/such' is no directory here"),
        (["--demo"], {"MERLIN_GRAPHQL_WORKSPACE_ROOT": "/dev/null"}, "workspace-root: '/dev/null' is no directory"),
        ([], {"HOME": "/no/such/home"}, "/no/such/home/.merlin/merlin.db: its directory does not exist"),
    ],
)
def test_what_cannot_be_served_is_refused(home: Path, arguments: list[str], environ: dict[str, str], says: str) -> None:
    """One line on stderr, exit code 1, nothing started, and no password."""
    assert_refused(home, *arguments, environ=environ, says=says)


def test_a_redis_that_is_not_there_is_refused(home: Path, closed_port: int) -> None:
    """The line names the address, and hides the password."""
    url = f"redis://user:{SECRET}@{LOOPBACK}:{closed_port}/0"
    assert_refused(home, "--database", url, says=f"redis://user:***@{LOOPBACK}:{closed_port}/0: ")


def test_a_wrong_password_is_refused(home: Path, tmp_path: Path) -> None:
    """In the URL or in a file: it is said to be the login; and the right file serves."""
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    with RedisServer.start(binaries()["valkey"], tmp_path / "valkey", password="another") as server:
        by_file = ["--database", server.url_for(), "--database-password-file", str(password)]
        for arguments in (["--database", server.url_for("stranger", SECRET)], by_file):
            assert_refused(home, *arguments, says="refuses the login")
        password.write_text("another\nand a second line\n")
        with Serving(home, *by_file) as serving:
            assert counts(serving.url) == dict.fromkeys(DEMO, 0)
            assert "another" not in serving.stdout


def test_a_broken_configuration_of_merlin_is_refused(home: Path) -> None:
    """The line names the file and the place in it, and shows nothing of what stands there."""
    (home / ".merlin").mkdir(parents=True)
    app_yaml = home / ".merlin" / "app.yaml"
    app_yaml.write_text(f"results_backend:\n  name: redis\n  password: '{SECRET}\n  server: [\n")
    assert_refused(home, says=f"{app_yaml}: no valid YAML at line ")


@pytest.mark.parametrize("command", ["serve", "integrity"])
def test_a_database_that_was_found_is_told_before_it_is_asked(home: Path, closed_port: int, command: str) -> None:
    """So that nobody's password goes where they did not mean it to without a word."""
    configuration = {"name": "redis", "server": LOOPBACK, "port": closed_port, "password": SECRET}
    (home / "app.yaml").parent.mkdir(parents=True, exist_ok=True)
    (home / "app.yaml").write_text(json.dumps({"results_backend": configuration}))
    refused = run(home, command, *(["--port", "0"] if command == "serve" else []))
    told = refused.stdout if command == "serve" else refused.stderr
    place = f"redis://:***@{LOOPBACK}:{closed_port}/0"
    assert told.splitlines()[0] == f"Merlin's database: {place} (from {home / 'app.yaml'})"
    assert refused.returncode == 1
    assert SECRET not in refused.stdout + refused.stderr


def test_a_port_in_use_is_refused(home: Path) -> None:
    """The line names the address and what to do."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(home, "--demo", port=port, says=f"Can't listen on {LOOPBACK}:{port}: Address already in use")


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """An SQLite database that opens, and can't be read to its end."""
    path = tmp_path / "damaged.db"
    with sqlite3.connect(path) as connection:
        for table in ("study", "run", "logical_worker", "physical_worker"):
            connection.execute(f"CREATE TABLE {table} (id TEXT, name TEXT)")
        connection.executemany("INSERT INTO run VALUES (?, ?)", ((str(n), 400 * "x") for n in range(1000)))
    connection.close()
    pages = bytearray(path.read_bytes())
    pages[40 * 4096 : 80 * 4096] = random.Random(0).randbytes(40 * 4096)
    path.write_bytes(pages)
    return f"sqlite:///{path}"


def test_a_database_that_cannot_be_read_to_its_end_is_refused(home: Path, damaged: str) -> None:
    """Also when that shows only in the load: one line, exit code 1, and no address was announced."""
    refused = run(home, "serve", "--port", "0", "--database", damaged)
    assert (refused.returncode, refused.stdout) == (1, f"Merlin's database: {damaged} (as given)\n")
    assert refused.stderr == f"merlin-graphql: Can't read the database {damaged}: database disk image is malformed.\n"


def test_processes_that_cannot_start_end_the_whole(home: Path, damaged: str) -> None:
    """With --workers the log says why, without a traceback, and the exit code is 1."""
    refused = run(home, "serve", "--port", "0", "--database", damaged, "--workers", "2")
    assert refused.returncode == 1
    assert f"Can't read the database {damaged}: database disk image is malformed." in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stderr.endswith("\nmerlin-graphql: The server processes could not start: the lines above say why.\n")


# --- what the program says of itself ----------------------------------------------------------------------------------


def test_the_console_script_tells_its_version(home: Path) -> None:
    """`merlin-graphql --version` is installed with the package."""
    script = Path(sys.executable).with_name("merlin-graphql")
    told = run(home, "--version", command=[str(script)])
    assert (told.returncode, told.stdout, told.stderr) == (0, f"merlin-graphql {__version__}\n", "")


def test_help_lists_every_setting_with_its_variable(home: Path) -> None:
    """`serve --help` is the reference of the settings."""
    told = run(home, "serve", "--help", environ={"COLUMNS": "200"})
    assert told.returncode == 0
    for item in dataclasses.fields(Settings):
        if item.metadata["flag"]:
            assert f"--{item.name.replace('_', '-')}" in told.stdout
        assert f"[MERLIN_GRAPHQL_{item.name.upper()}]" in told.stdout


def test_without_a_command_the_usage_is_shown(home: Path) -> None:
    """As usual in command lines: on stderr, with exit code 2."""
    told = run(home)
    assert told.returncode == 2
    assert told.stderr.startswith("usage: merlin-graphql ")


# --- a terminal -------------------------------------------------------------------------------------------------------


class Terminal:
    """What is written to a terminal of 100 columns, and what it then shows."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
        self.written = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self.master, 65536)
            except OSError:  # nobody has it open any more
                return
            if not part:
                return
            self.written += part.decode()

    def close(self) -> None:
        os.close(self.slave)
        self._reader.join(DEADLINE)
        os.close(self.master)

    @property
    def shown(self) -> list[str]:
        lines = []
        for line in self.written.split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            lines.append("".join(cells).rstrip())
        return lines


def test_a_long_load_shows_a_bar_on_a_terminal_and_clears_it(home: Path) -> None:
    """While a large database is read the terminal says how far it is; then the line is empty again."""
    terminal = Terminal()
    with Serving(home, "--demo", command=(sys.executable, "-c", SLOW_LOAD), stderr=terminal.slave) as serving:
        serving.wait_until(lambda: f"/{sum(DEMO.values())} " in terminal.written)
        assert serving.url
        assert serving.stop(signal.SIGTERM) == 0
    terminal.close()
    assert "Reading Merlin's database: " in terminal.written
    assert terminal.shown == [""]


def test_a_short_load_shows_no_bar(home: Path) -> None:
    """Nothing flickers over a terminal where the database is read at once."""
    terminal = Terminal()
    with Serving(home, "--demo", stderr=terminal.slave) as serving:
        assert serving.url
        assert serving.stop(signal.SIGTERM) == 0
    terminal.close()
    assert terminal.shown == [""]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_ends_with_its_server(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    """At once and whole, without `complete`, so that its client goes on elsewhere; nothing waits for it to end."""
    with Serving(tmp_path / "home", "--demo", "--workers", str(workers)) as serving:
        query = {"query": "subscription { live { database { runs } } }"}
        headers = {"accept": "text/event-stream"}
        with httpx.stream("GET", f"{serving.url}/graphql", params=query, headers=headers, timeout=DEADLINE) as response:
            lines = response.iter_lines()
            while not next(lines).startswith("data: "):
                pass
            serving.process.send_signal(number)
            assert "event: complete" not in list(lines)
        assert serving.wait() == 0


def test_a_websocket_is_told_that_its_server_restarts(tmp_path: Path) -> None:
    """1012, by which clients know that they may come back."""
    with Serving(tmp_path / "home", "--demo") as serving:
        address = f"{serving.url.replace('http', 'ws')}/graphql"
        with connect(address, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket_:
            socket_.send('{"type": "connection_init"}')
            assert "connection_ack" in str(socket_.recv(DEADLINE))
            serving.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                socket_.recv(DEADLINE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert serving.wait() == 0
