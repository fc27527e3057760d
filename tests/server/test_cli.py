"""The command line as its users have it: processes, signals, exit codes, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
import threading
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from server import __version__
from server.endpoints.home import pages_of
from server.settings import Settings
from tests.conftest import Store
from tests.support.command_line import COUNTS, DEMO, counts
from tests.support.records import uid
from tests.support.servers import RedisServer
from tests.support.serving import DEADLINE, Serving, run, server_processes

SIGNALS = [signal.SIGTERM, signal.SIGINT]
each_way_to_end = pytest.mark.parametrize(
    ("workers", "number"),
    [
        (1, signal.SIGINT),
        (2, signal.SIGTERM),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.soak),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.soak),
    ],
)

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


# --- serving ----------------------------------------------------------------------------------------------------------


def test_the_demo_is_served_whole_and_then_gone(home: Path) -> None:
    """`serve --demo` prints the address, serves every route, and leaves no file behind."""
    with Serving(home, "--demo") as serving:
        with httpx.Client(base_url=serving.url, timeout=DEADLINE) as client:
            page = client.get("/graphiql")
            assert page.headers["content-type"].startswith("text/html")
            assert "GraphiQL" in page.text
            by_post = client.post("/graphql", json={"query": COUNTS})
            by_get = client.get("/graphql", params={"query": COUNTS})
            assert by_post.json() == by_get.json() == {"data": {"database": {"kind": "sqlite", **DEMO}}}
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/readyz").json()["status"] == "ready"
            assert client.get("/schema.graphql").text.rstrip().endswith("}")
        assert "(sample data, deleted at the end)" in serving.stdout
        assert len(list(serving.temporary.iterdir())) == 1
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [(), ("--no-board",), ("--no-board", "--no-graphiql")], ids=["all", "GraphiQL", "none"]
)
def test_the_address_of_each_page_is_printed(home: Path, flags: tuple[str, ...]) -> None:
    """The token is in the first one; without a page it is in a line of its own."""
    with Serving(home, "--demo", *flags, login=True) as serving:
        url = serving.url
        printed = dict(re.findall(r"^(\w+): (\S+)", serving.stdout, re.MULTILINE))
        token = printed["Token"] if "--no-graphiql" in flags else serving.page.partition("=")[2]
        pages = pages_of(Settings(board="--no-board" not in flags, graphiql="--no-graphiql" not in flags))
        asked = httpx.post(f"{url}/graphql", json={"query": COUNTS}, headers={"authorization": f"Bearer {token}"})
        assert asked.json()["data"]
        assert serving.stop(signal.SIGTERM) == 0
    titles = [{"board": "Board", "graphiql": "GraphiQL"}[name] for name in pages]
    addresses = [f"{url}/?token={token}", *(f"{url}/{name}" for name in pages[1:])][: len(pages)]
    assert [(title, printed.get(title)) for title in titles] == list(zip(titles, addresses, strict=True))
    assert serving.stdout.count(token) == 1


@each_way_to_end
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


@each_way_to_end
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
