"""The address: a port, or a Unix socket that only those reach whom its mode lets in."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest

from server.process.listener import ListenError, has_waiting, listening, refuse_new
from server.settings import Settings
from tests.support.serving import DEADLINE, Serving, run


def test_a_unix_socket_has_its_mode(tmp_path: Path) -> None:
    """From before anybody can connect until it is gone."""
    path = tmp_path / "merlin.sock"
    for mode in ("600", "660"):
        with listening(Settings(unix_socket=path, unix_socket_mode=mode)) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
            assert listener.family == socket.AF_UNIX
        assert not path.exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """One that a server listens on is not, and neither is any other file."""
    path = tmp_path / "merlin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(Settings(unix_socket=path)):
        with pytest.raises(ListenError, match="another server already does"), listening(Settings(unix_socket=path)):
            pass
        assert path.is_socket()
    path.write_text("mine")
    with pytest.raises(ListenError, match="in use"), listening(Settings(unix_socket=path)):
        pass
    assert path.read_text() == "mine"


def test_another_servers_socket_is_left_alone(tmp_path: Path) -> None:
    """Where one took its place meanwhile."""
    path = tmp_path / "merlin.sock"
    with listening(Settings(unix_socket=path)):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.is_socket()
    other.close()


def test_what_began_is_taken_up_and_nothing_new_begins() -> None:
    """A connection that waits is there still, and the next one gets no answer."""
    with (
        listening(Settings(port=0)) as listener,
        socket.create_connection(listener.getsockname()) as waiting,
        socket.socket() as late,
    ):
        refuse_new(listener)
        assert has_waiting(listener)
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        taken, _ = listener.accept()
        with taken:
            waiting.sendall(b"hello")
            assert taken.recv(5) == b"hello"
        assert not has_waiting(listener)


def test_a_server_is_reached_by_its_socket_alone(tmp_path: Path) -> None:
    """It prints the path and the token that it made, and listens on no port."""
    path = tmp_path / "merlin.sock"
    with Serving(tmp_path / "home", "--demo", "--unix-socket", str(path), login=True) as server:
        server.wait_until(lambda: "Token: " in server.stdout)
        token = server.stdout.partition("Token: ")[2].split()[0]
        assert f"GraphQL: {path}, path /graphql" in server.stdout
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=DEADLINE) as client:
            query = {"query": "{ viewer { roles } }"}
            assert client.post("/graphql", json=query).status_code == 401
            answer = client.post("/graphql", json=query, headers={"authorization": f"Bearer {token}"})
            assert answer.json() == {"data": {"viewer": {"roles": ["READ", "WRITE", "ADMIN"]}}}
        assert server.stop(signal.SIGTERM) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unix-socket", "/nowhere/merlin.sock"), "Can't listen on /nowhere/merlin.sock: No such file or directory."),
        (("--unix-socket", "/" + "x" * 120), "Can't listen on /xxx"),
        (("--profile", "production"), "production needs one of --token-file, --jwks or --no-auth"),
        (("--jwt-issuer", "https://sso.example.org"), "jwks: set it to the file or URL"),
        (
            ("--allow-hosts", "https://x"),
            "allow-hosts: 'https://x' is no host name; use names such as merlin.example.org.",
        ),
        (("--allow-hosts", "*.x", "--workers", "2"), "allow-hosts: '*.x' is no host name"),
        (("--token-file", "/nowhere/tokens"), "Can't read the token file /nowhere/tokens: No such file or directory."),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Before anything is served."""
    told = run(tmp_path / "home", "serve", "--demo", *arguments)
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert message in told.stderr


def test_everybody_or_those_who_are_named(tmp_path: Path) -> None:
    """Not both: a token would not keep anybody out."""
    told = run(tmp_path / "home", "serve", "--demo", "--no-auth", environ={"MERLIN_GRAPHQL_TOKEN": "t" * 20})
    assert told.returncode == 1
    assert "it lets everybody in. Remove it, or remove the settings" in told.stderr
