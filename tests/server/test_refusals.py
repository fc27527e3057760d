"""What can't be meant, or reached, is told in one line that says what to do."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from server.cli import main
from server.commands.flags import mistyped
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.tls import TLS
from server.database.errors import BackendError
from tests.support.records import study, uid
from tests.support.servers import LOOPBACK, RedisServer, Sentinel, TlsFiles, binaries, supports_tls
from tests.support.serving import DEADLINE, MODULE, UNPRIVILEGED, Serving, environment, run
from tests.support.writers import merlins_file

pytestmark = pytest.mark.anyio

BINARY = next(iter(binaries().values()))
TLS_BINARY = next((path for path in binaries().values() if supports_tls(path)), None)
SECRET = "s3cr3t-Pa55"
READ_SLOWLY = (
    sys.executable,
    "-c",
    """
import sys, time
from server.entry_point import main

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "server.cli":
            print("reading", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
sys.exit(main())
""",
)
"""The command, of which one module takes very long to be read."""
CLOSED = f"{LOOPBACK}:1"


async def attempt(url: str, options: BackendOptions | None = None) -> None:
    backend = make_backend(url, options or BackendOptions())
    try:
        await backend.open()
    finally:
        await backend.close()


async def refusal(url: str, options: BackendOptions | None = None) -> str:
    """In one line, for people."""
    with pytest.raises(BackendError) as caught:
        await attempt(url, options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert "object at" not in message
    return message


# --- the URL of a database --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h/0?foo=bar", "it has no option foo."),
        ("redis://h/0?foo=", "it has no option foo."),
        ("unix:///tmp/s?clientname=me", "it has no option clientname; did you mean client_name."),
        ("rediss://h/0?ssl_cacerts=/ca.pem", "it has no option ssl_cacerts; did you mean ssl_ca_certs."),
        ("redis+sentinel://h/m/0?sentinel_pasword=x", "did you mean sentinel_password."),
        ("redis://h/0?ssl_ca_certs=/ca.pem", "a connection without TLS: use rediss://"),
        ("valkey://h/0?ssl_ca_certs=/ca.pem", "a connection without TLS: use rediss://"),
    ],
)
async def test_an_option_that_a_url_does_not_have_is_named(url: str, says: str) -> None:
    """With the one that may be meant, and nothing of the library behind."""
    message = await refusal(url)
    assert says in message
    assert "__init__" not in message


async def test_valkeys_own_schemes_mean_what_rediss_do(redis_server: RedisServer) -> None:
    """`valkey://`, in any case, and its kin for TLS and Sentinel."""
    for scheme in ("valkey", "VALKEY"):
        backend = make_backend(redis_server.url.replace("redis", scheme, 1), BackendOptions())
        await backend.open()
        assert backend.connection.startswith("valkey://")
        await backend.close()
    assert "Can't reach" in await refusal(f"valkeys://{CLOSED}/0")
    assert "the sentinel does not answer" in await refusal(f"valkey+sentinel://{CLOSED}/mymaster")


async def test_sentinels_that_are_down_are_told_in_few_words(tmp_path: Path) -> None:
    """As those that know no such master, or no Sentinel at all."""
    down = await refusal(f"redis+sentinel://{CLOSED},{LOOPBACK}:2/mymaster/0")
    assert down.endswith(f"redis+sentinel://{CLOSED},{LOOPBACK}:2/mymaster/0: none of these sentinels answers.")
    with RedisServer.start(BINARY, tmp_path) as server, Sentinel.start(BINARY, tmp_path, server) as sentinel:
        places = f"{CLOSED},{LOOPBACK}:{sentinel.port}"
        assert "knows a master named 'nobody'" in await refusal(f"redis+sentinel://{places}/nobody/0")
        assert "is no Sentinel" in await refusal(f"redis+sentinel://{LOOPBACK}:{server.port}/mymaster/0")


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    """Missing, no PEM, of another key, without a key: before anything is connected, and by URL as by setting."""
    files, others = TlsFiles.create(tmp_path / "a"), TlsFiles.create(tmp_path / "b")
    text = tmp_path / "text.pem"
    text.write_text("hello\n")
    gone = str(tmp_path / "gone.pem")
    certificate, key = str(files.certificate), str(files.key)
    for tls, says in (
        (TLS(ca_certs=gone), f"Can't read the certificates of the authorities {gone}: No such file or directory."),
        (TLS(certfile=gone), f"Can't read the client's certificate {gone}: No such file or directory."),
        (TLS(certfile=certificate, keyfile=gone), f"Can't read the client's key {gone}: No such file or directory."),
        (TLS(ca_certs=str(tmp_path)), f"Can't read the certificates of the authorities {tmp_path}: Is a directory."),
        (TLS(ca_certs=str(text)), f"{text} holds no certificates in PEM form."),
        (TLS(certfile=str(text)), f"Can't use the TLS files {text}: a certificate and its key are needed"),
        (TLS(certfile=certificate), f"Can't use the TLS files {certificate}: a certificate and its key are needed"),
        (TLS(certfile=certificate, keyfile=str(others.key)), "they do not belong to each other."),
        (TLS(keyfile=key), "needs its certificate beside it"),
    ):
        assert says in await refusal(f"rediss://{CLOSED}/0", BackendOptions(tls=tls))
        query = "&".join(f"{name}={value}" for name, value in tls.arguments().items())
        assert says in await refusal(f"rediss://{CLOSED}/0?{query}")
    whole = TLS(ca_certs=str(files.ca), certfile=certificate, keyfile=key)
    assert "Can't reach the database" in await refusal(f"rediss://{CLOSED}/0", BackendOptions(tls=whole))


async def test_a_key_with_a_password_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    """Nothing waits at a terminal."""
    files = TlsFiles.create(tmp_path)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    tls = TLS(certfile=str(files.certificate), keyfile=str(files.key))
    assert "without a password" in await refusal(f"rediss://{CLOSED}/0", BackendOptions(tls=tls))


async def test_tls_to_a_server_without_is_guessed(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rediss` is what Merlin's own app.yaml begins with."""
    patience = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    monkeypatch.setattr("server.database.backends.redis_client._TIMEOUTS", patience)
    message = await refusal(redis_server.url.replace("redis://", "rediss://"))
    assert message.endswith("Does it speak TLS? Without TLS it is redis:// (in app.yaml: name: redis), not rediss://.")


@pytest.mark.skipif(TLS_BINARY is None, reason="no server binary here has TLS built in")
async def test_no_tls_to_a_server_with_is_guessed(tmp_path: Path) -> None:
    """And a certificate that nobody here knows leads to the setting for it."""
    assert TLS_BINARY is not None
    with RedisServer.start(TLS_BINARY, tmp_path, tls=TlsFiles.create(tmp_path / "tls")) as server:
        assert (await refusal(server.url.replace("rediss", "redis"))).endswith(
            "Does it want TLS? Then it is rediss://."
        )
        assert "--database-ca-certs names the certificates" in await refusal(server.url)


# --- SQLite files -----------------------------------------------------------------------------------------------------


async def test_a_file_that_is_not_there_is_made_where_that_is_meant(tmp_path: Path) -> None:
    """A mistyped path is no new, empty database."""
    url = f"sqlite:///{tmp_path}/merlin.db"
    says = f"There is no database {tmp_path}/merlin.db: correct the path, or make a new one by --create."
    for options in (BackendOptions(create=False), BackendOptions(create=True, read_only=True)):
        assert await refusal(url, options) == says
    assert list(tmp_path.iterdir()) == []


@contextmanager
def not_to_be_written(directory: Path) -> Iterator[None]:
    """As a snapshot is, or another user's directory."""
    files = [directory, *directory.iterdir()]
    before = [file.stat().st_mode for file in files]
    for file, mode in zip(files, before, strict=True):
        file.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for file, mode in zip(files, before, strict=True):
            file.chmod(mode)


def studies(serving: Serving) -> list[str]:
    query = {"query": "{ studies { nodes { name } } }"}
    answer = httpx.post(f"{serving.url}/graphql", json=query, timeout=DEADLINE).json()
    return sorted(node["name"] for node in answer["data"]["studies"]["nodes"])


async def test_a_file_that_nobody_may_write_to_is_served_to_read(tmp_path: Path) -> None:
    """With --read-only, in a directory where nothing can be made, too; without, that is said to be the way."""
    directory = tmp_path / "data"
    directory.mkdir()
    path = directory / "merlin.db"
    writer = merlins_file(path)
    writer.create(study(1))
    url = f"sqlite:///{path}"
    with not_to_be_written(directory):
        refused = run(tmp_path / "home", "serve", "--port", "0", "--database", url, command=UNPRIVILEGED)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"merlin-graphql: The database {url}, or its directory, is read-only: serve it with --read-only.\n"
        )
        looked = run(tmp_path / "home", "integrity", "--database", url, command=UNPRIVILEGED)
        assert (looked.returncode, looked.stderr) == (0, "")
    with (
        not_to_be_written(directory),
        Serving(tmp_path / "home", "--read-only", "--database", url, command=UNPRIVILEGED) as serving,
    ):
        assert studies(serving) == ["study_1"]
        for number in (2,):
            directory.chmod(0o755)
            path.chmod(0o644)
            with closing(sqlite3.connect(path)) as owner:
                owner.execute("INSERT INTO study (id, name) VALUES (?, ?)", (uid(number), f"study_{number}"))
                owner.commit()
            directory.chmod(0o555)
            serving.wait_until(lambda number=number: f"study_{number}" in studies(serving))  # type: ignore[misc]


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_mistyped_path_is_no_new_database(tmp_path: Path) -> None:
    """Unless that is asked for; Merlin's own is made as Merlin makes it."""
    home, path = tmp_path / "home", tmp_path / "merlin.db"
    refused = run(home, "serve", "--port", "0", "--database", f"sqlite:///{path}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"merlin-graphql: There is no database {path}: correct the path, or make a new one by --create.\n"
    )
    assert not path.exists()
    own = home / ".merlin" / "merlin.db"
    own.parent.mkdir()
    with Serving(home, "--database", f"sqlite:///{own}") as serving:
        assert studies(serving) == []


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{name: redis, server: 127.0.0.1, port: 1}", "Can't reach the database redis://127.0.0.1:1/0"),
        ("{url: 'redis://127.0.0.1:1/0?foo=bar'}", "Can't read the database URL redis://127.0.0.1:1/0"),
        ("{name: rediss, server: h, ca_certs: /gone.pem}", "Can't read the certificates of the authorities /gone.pem"),
    ],
)
def test_a_database_that_a_file_of_merlins_names_is_told_with_the_file(
    section: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody typed it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.yaml").write_text(f"results_backend: {section}\n")
    assert main(["integrity"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"merlin-graphql: {tmp_path}/app.yaml: {says}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--databse", SECRET], "merlin-graphql serve: There is no --databse: did you mean --database?\n"),
        (["serve", f"--no-graphql={SECRET}"], "There is no --no-graphql: did you mean --no-graphiql?\n"),
        (["check", "--stric", "q"], "merlin-graphql check: There is no --stric: did you mean --strict?\n"),
        (["integrity", "--xyzzy"], "There is no --xyzzy: see merlin-graphql integrity --help.\n"),
        (["serve", "--token", SECRET], "since other users can read command lines: set MERLIN_GRAPHQL_TOKEN instead.\n"),
    ],
)
def test_a_mistyped_flag_is_told_with_the_one_that_may_be_meant(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what stands behind it, which may be a secret, is not."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.err.endswith(says)
    assert SECRET not in told.out + told.err


def test_a_mistyped_variable_is_warned_of() -> None:
    """One that is far from all of ours may be somebody else's."""
    environ = {
        "MERLIN_GRAPHQL_DATBASE": SECRET,
        "MERLIN_GRAPHQL_URL": "x",
        "MERLIN_GRAPHQL_HEADER": "y",
        "MERLIN_GRAPHQL_PORT": "1",
        "PATH": "/",
    }
    assert list(mistyped(environ)) == [
        "MERLIN_GRAPHQL_DATBASE is not a setting, and is ignored: did you mean MERLIN_GRAPHQL_DATABASE?"
    ]


def test_an_address_that_means_all_is_printed_as_one_that_can_be_opened(tmp_path: Path) -> None:
    """That of this machine; and how others reach it."""
    with Serving(tmp_path / "home", "--demo", "--host", "0.0.0.0") as serving:
        assert httpx.get(f"{serving.url}/healthz", timeout=DEADLINE).status_code == 200
        assert serving.url.startswith("http://127.0.0.1:")
        port = serving.url.rpartition(":")[2]
        says = f"From other machines: {socket.gethostname()}:{port} instead of 127.0.0.1:{port}\n"
        serving.wait_until(lambda: says in serving.stdout)


# --- signals and pipes ------------------------------------------------------------------------------------------------


def test_ctrl_c_while_it_begins_is_quiet(tmp_path: Path) -> None:
    """It is still being read then, which takes a second."""
    with Serving(tmp_path / "home", "--demo", command=READ_SLOWLY) as serving:
        serving.wait_until(lambda: "reading" in serving.stdout)
        os.killpg(serving.process.pid, signal.SIGINT)
        serving.wait()
        assert serving.stderr == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_ctrl_c_is_quiet(tmp_path: Path, workers: str) -> None:
    """And leaves nothing behind, whenever it comes."""
    with Serving(tmp_path / "home", "--demo", "--workers", workers) as serving:
        assert serving.url
        while serving.process.poll() is None:
            os.killpg(serving.process.pid, signal.SIGINT)
            time.sleep(0.02)
        assert serving.process.returncode == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


@pytest.mark.parametrize("arguments", [["schema", "export"], ["serve", "--port", "0", "--demo-still"]])
def test_a_pipe_that_is_closed_ends_it_quietly(tmp_path: Path, arguments: list[str]) -> None:
    """As `| head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [*MODULE, *arguments],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=environment(tmp_path / "home"),
            cwd=tmp_path,
            timeout=DEADLINE,
            check=False,
            text=True,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
