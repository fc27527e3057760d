"""How a Redis is named, and how it is reached: TCP, TLS, Unix sockets, Sentinel, passwords."""

from __future__ import annotations

import gc
import traceback
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from server.database.backends import redis_heartbeat
from server.database.backends.base import Alive, Changed, Lost, Reload
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.redis_client import mask
from server.database.backends.tls import TLS
from server.database.errors import BackendUnavailableError, WrongDatabaseError
from server.database.models import Key
from tests.support.backends import (
    BINARIES,
    SECRET,
    STUDY,
    by_key,
    free_port,
    lose_patience,
    next_of,
    open_backend,
    read,
    records,
    refusal,
    within,
)
from tests.support.records import study, uid
from tests.support.servers import LOOPBACK, RedisServer, Sentinel, TlsFiles, supports_tls
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio


async def test_a_plain_url_names_a_redis(redis_server: RedisServer) -> None:
    """Host and port suffice; the database number stands in the path or in the query."""
    base = f"redis://{LOOPBACK}:{redis_server.port}"
    for number, urls in {0: (base, f"{base}/", f"{base}/0"), 3: (f"{base}/3", f"{base}?db=3")}.items():
        with closing(RedisWriter(redis_server.url_for(database=number))) as writer:
            writer.create(study(number))
        for url in urls:
            async with open_backend(url) as backend:
                assert await records(backend) == by_key(study(number))
                assert backend.connection == url.partition("?")[0]


async def test_a_unix_socket_is_reached(binary: Path, tmp_path: Path) -> None:
    """A socket's path names a Redis, with password, database number and notices."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        async with open_backend(server.unix_url) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            await backend.insert([study(1)])
            await next_of(notices, Changed)
            assert backend.connection == f"unix://:***@{server.unix_path}"
        options = BackendOptions(password=SECRET)
        async with open_backend(f"unix://{server.unix_path}?db=0", options) as backend:
            assert await records(backend) == by_key(study(1))
        async with open_backend(f"unix://{server.unix_path}?db=2", options) as backend:
            assert await read(backend) == {}


TLS_BINARY = next((path for path in BINARIES.values() if supports_tls(path)), None)


@pytest.mark.skipif(TLS_BINARY is None, reason="no server binary here has TLS built in")
async def test_tls_is_spoken_and_verified(tmp_path: Path) -> None:
    """With rediss:// the server's certificate is verified, by the system's authorities or by a file."""
    assert TLS_BINARY is not None
    files = TlsFiles.create(tmp_path / "tls")
    ca = str(files.ca)
    mutual = TLS(ca_certs=ca, certfile=str(files.certificate), keyfile=str(files.key))
    with RedisServer.start(TLS_BINARY, tmp_path, tls=files, password=SECRET) as server:
        for tls in (TLS(ca_certs=ca), mutual, TLS(cert_reqs="none")):
            async with open_backend(server.url, BackendOptions(tls=tls)) as backend:
                async with aclosing(backend.watch()) as notices:
                    await next_of(notices, Reload)
                    await backend.insert([study(1)])
                    await next_of(notices, Changed)
                assert backend.connection == f"rediss://:***@{LOOPBACK}:{server.port}/0"
        async with open_backend(f"{server.url}?ssl_ca_certs={ca}") as backend:
            assert await records(backend) == by_key(study(1))
        for tls in (TLS(), TLS(ca_certs=str(tmp_path / "none.pem")), TLS(cert_reqs="sometimes")):
            await refusal(server.url, BackendOptions(tls=tls))
        assert "TLS" in str(await refusal(server.url.replace("rediss", "redis"), BackendOptions(tls=mutual)))
        error = await refusal(server.url.replace("rediss", "redis"))
        assert isinstance(error, BackendUnavailableError)


async def test_tls_to_a_server_without_is_refused(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not speak TLS can't be reached by rediss://."""
    lose_patience(monkeypatch)
    error = await refusal(redis_server.url.replace("redis://", "rediss://"))
    assert isinstance(error, BackendUnavailableError)


async def test_a_sentinel_names_the_server(binary: Path, tmp_path: Path) -> None:
    """Of several sentinels the first that answers leads to the master, with a password and a database number."""
    with (
        RedisServer.start(binary, tmp_path, password=SECRET) as master,
        Sentinel.start(binary, tmp_path, master) as sentinel,
        closing(RedisWriter(master.url_for(password=SECRET, database=2))) as writer,
    ):
        writer.create(study(1))
        places = f"{LOOPBACK}:{free_port()},{LOOPBACK}:{sentinel.port}"
        url = f"redis+sentinel://{places}/mymaster/2"
        async with open_backend(url, BackendOptions(password=SECRET)) as backend:
            assert await records(backend) == by_key(study(1))
            assert backend.connection == url
            async with aclosing(backend.watch()) as notices:
                await next_of(notices, Reload)
                writer.create(study(2))
                await next_of(notices, Changed, lambda changed: bool(changed.keys))
                await next_of(notices, Alive)
        escaped = "s3cret%2Fp%40ss%3Aw%3Frd%231"
        async with open_backend(f"redis+sentinel://:{escaped}@{places}/mymaster/2") as backend:
            assert await records(backend) == by_key(study(1), study(2))
            assert backend.connection == f"redis+sentinel://:***@{places}/mymaster/2"
        wrong = await refusal(f"redis+sentinel://{places}/nobody/2")
        assert "no sentinel that answers knows a master named 'nobody'" in str(wrong)
        gone = await refusal(
            f"redis+sentinel://:{escaped}@{LOOPBACK}:{free_port()}/mymaster?sentinel_password={escaped}"
        )
        assert isinstance(gone, BackendUnavailableError)
        await refusal(f"redis+sentinel://{places}/mymaster/2")
    gc.collect()  # whatever was left open would warn now


async def test_a_watch_needs_a_master_and_no_sentinel(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no sentinel answers the master is watched as before; a server that is no master any more is lost."""
    monkeypatch.setattr(redis_heartbeat, "HEARTBEAT", 0.05)
    with (
        RedisServer.start(binary, tmp_path) as master,
        Sentinel.start(binary, tmp_path, master) as sentinel,
        closing(RedisWriter(master.url)) as writer,
    ):
        url = f"redis+sentinel://{LOOPBACK}:{sentinel.port}/mymaster"
        async with open_backend(url) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            await next_of(notices, Alive)
            sentinel.kill()
            for number in range(3):
                assert await within(anext(notices)) == Alive()
                writer.create(study(number))
                await next_of(notices, Changed, lambda changed, n=number: Key(STUDY, uid(n)) in changed.keys)  # type: ignore[misc]
            writer.client.replicaof(LOOPBACK, free_port())
            assert "no master any more" in (await next_of(notices, Lost)).reason


async def test_a_password_opens_the_store(binary: Path, tmp_path: Path) -> None:
    """The password stands in the URL or beside it, a user's too; it is shown nowhere."""
    users = {"reader": f"on >{SECRET} ~* &* +@all"}
    with RedisServer.start(binary, tmp_path, password=SECRET, users=users) as server:
        plain = server.url_for()
        for url, options in (
            (server.url, BackendOptions()),
            (plain, BackendOptions(password=SECRET)),
            (server.url_for(password="an old one"), BackendOptions(password=SECRET)),
            (server.url_for("reader", SECRET), BackendOptions()),
            (plain.replace("redis://", "redis://reader@"), BackendOptions(password=SECRET)),
            (f"{plain}?password=s3cret%2Fp%40ss%3Aw%3Frd%231", BackendOptions()),
        ):
            async with open_backend(url, options) as backend:
                await backend.name_owners(STUDY, ["x"])
                assert "s3cret" not in backend.connection
                assert "s3cret" not in repr(options)
        for url, options in (
            (plain, BackendOptions()),
            (server.url_for(password="wrong-s3cret"), BackendOptions()),
            (plain, BackendOptions(password="wrong-s3cret")),
            (server.url_for("nobody", SECRET), BackendOptions()),
        ):
            error = await refusal(url, options)
            assert isinstance(error, BackendUnavailableError)
            assert "refuses the login" in str(error)


async def test_a_wrong_login_is_refused_on_a_unix_socket_too(binary: Path, tmp_path: Path) -> None:
    """The reason is the login, not the socket."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        assert "refuses the login" in str(await refusal(f"unix://{server.unix_path}"))
        wrong = await refusal(f"unix://{server.unix_path}", BackendOptions(password="wrong-s3cret"))
        assert "refuses the login" in str(wrong)
        out_of_range = await refusal(f"unix://{server.unix_path}?db=99", BackendOptions(password=SECRET))
        assert isinstance(out_of_range, WrongDatabaseError)


async def test_a_password_that_is_not_asked_for_is_refused(redis_server: RedisServer) -> None:
    """A server without a password refuses one, and says so."""
    error = await refusal(redis_server.url_for(password=SECRET))
    assert "refuses the login" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:1/abc",
        "redis://h:1/0/1",
        "redis://h:port/0",
        "redis://h:99999/0",
        "redis://[::1/0",
        "redis://h:1?db=x",
        "redis://h:1/0?no_such_option=1",
        "rediss://h:1/0?ssl_cert_reqs=sometimes",
        "redis+sentinel://h:1",
        "redis+sentinel:///mymaster",
        "redis+sentinel://h:1/mymaster/x",
        "redis+sentinel://h:x/mymaster/0",
        "redis+sentinel://h:1/mymaster/0?no_such_option=1",
        "redis+sentinel://h:1/mymaster/0?sentinel_no_such_option=1",
        "unix:///tmp/redis.sock?no_such_option=1",
        "postgres://h/0",
        "merlin.db",
        "",
        "sqlite://merlin.db",
        "sqlite://",
        "sqlite://[x/merlin.db",
        "sqlite:////tmp/merlin.db?mode=ro",
        "sqlite:////tmp/a#b/merlin.db",
    ],
)
async def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """It is said what is wrong with it, before anything is tried."""
    with pytest.raises(WrongDatabaseError) as caught:
        make_backend(url, BackendOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+sentinel"])
@pytest.mark.parametrize("user", ["", "user"])
async def test_a_password_that_was_not_escaped_is_not_shown(scheme: str, user: str) -> None:
    """However a password breaks its URL, no part of it is in an error or in what is shown."""
    for character in "/?#@:[]% ":
        url = f"{scheme}://{user}:left{character}right@h/0"
        told = [mask(url)]
        try:
            backend = make_backend(url, BackendOptions())
        except WrongDatabaseError as error:
            told += traceback.format_exception(error)
        else:
            told += backend.connection
            await backend.close()
        assert not any("left" in text or "right" in text for text in told)
