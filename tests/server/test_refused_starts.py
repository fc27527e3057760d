"""What can't be served is said in one line at the start."""

from __future__ import annotations

import json
import random
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.command_line import DEMO, counts
from tests.support.servers import LOOPBACK, RedisServer, binaries
from tests.support.serving import Serving, run

SECRET = "s3cr3t-Pa55"


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
        (["--database", "memory://", "--workers", "2"], {}, "memory:// exists in one process only"),
        (["--database", "MEMORY://", "--demo", "--workers", "2"], {}, "memory:// exists in one process only"),
        (["--demo", "--time-zone", "Mars/Olympus_Mons"], {}, "time-zone: 'Mars/Olympus_Mons' is not a known time zone"),
        (["--demo", "--host", "no-such-host.invalid"], {}, "Can't listen on no-such-host.invalid:"),
        (["--demo"], {"MERLIN_GRAPHQL_WORKERS": "many"}, "MERLIN_GRAPHQL_WORKERS: 'many' is not a whole number"),
        (["--demo"], {"MERLIN_GRAPHQL_DATABASE_CERT_REQS": "maybe"}, "is not one of required, optional, none"),
        (["--demo", "--workspace-root", "/:/no/such"], {}, "workspace-root: '/no/such' is not a directory here"),
        (["--demo"], {"MERLIN_GRAPHQL_WORKSPACE_ROOT": "/dev/null"}, "workspace-root: '/dev/null' is not a directory"),
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
