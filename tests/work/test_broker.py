"""How a broker is named and reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.errors import BackendUnavailableError
from server.work.broker import BrokerError, make_broker
from tests.support.backends import BINARIES, SECRET
from tests.support.servers import LOOPBACK, RedisServer, TlsFiles, supports_tls

TLS_BINARY = next((path for path in BINARIES.values() if supports_tls(path)), None)


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("redis://h", 0),
        ("redis://h:6379/3", 3),
        ("rediss://u:p@h/1", 1),
        ("unix:///run/redis.sock?db=2", 2),
        ("redis+socket:///run/redis.sock?virtual_host=4", 4),
        ("redis+socket:///run/redis.sock", 0),
    ],
)
def test_the_number_of_the_database_is_known(url: str, database: int) -> None:
    """The names of Celery's channels contain it."""
    broker = make_broker(url)
    assert (broker.is_redis, broker.database) == (True, database)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "begins like this one: use redis://"),
        ("sqs://secret", "begins like this one: use redis://"),
        ("redis://h/secret", "is no database number"),
        ("redis://h?secet=1", "has no option"),
        ("redis://u:sec/ret@h", "percent-encoded"),
        ("redis+socket://[::1", "percent-encoded"),
        ("amqp://u:sec@ret@h/v?a@b", "percent-encoded"),
        ("amqp://u:secret@/v", "names no host"),
        ("amqp://u:secret@h:port/v", "percent-encoded"),
        ("amqp://u:secret@h/v?ssl_cert_reqs=none", "a connection without TLS: use amqps://"),
        ("amqps://u:secret@h/v?ssl_cert_reqs=maybe", "must be required, optional or none"),
        ("amqps://u:secret@h/v?ssl_ca_certs=/none.pem", "Can't read the certificates of the authorities"),
        ("rediss://h?ssl_ca_certs=/none.pem", "Can't read the certificates of the authorities"),
    ],
)
def test_a_url_that_can_not_be_used_is_explained(url: str, message: str) -> None:
    """Before anything connects, and without repeating a password."""
    with pytest.raises(BrokerError) as caught:
        make_broker(url)
    assert message in str(caught.value)
    assert "u:sec" not in str(caught.value)


def test_a_broker_of_amqp_is_shown_without_its_login() -> None:
    """Its TLS files are taken out of the URL, which a library reads."""
    broker = make_broker("amqps://ann:secret@h:7/lab?ssl_cert_reqs=none&heartbeat=9", "other")
    assert (broker.is_redis, broker.connection, broker.tls.cert_reqs) == (False, "amqps://h:7/lab", "none")
    assert broker.url == "amqps://ann:secret@h:7/lab?heartbeat=9"
    assert "secret" not in repr(broker)
    assert "other" not in repr(broker)


@pytest.mark.anyio
@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
async def test_redis_is_reached_by_each_kind_of_url(binary: Path, tmp_path: Path) -> None:
    """By TCP and by its socket, with a password in the URL or beside it."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        sockets = f"redis+socket://{server.unix_path}?virtual_host=2", f"unix://{server.unix_path}?db=2"
        for url in (f"redis://{LOOPBACK}:{server.port}/2", *sockets):
            async with make_broker(url, SECRET).connect() as redis:
                assert (await redis.client_info())["db"] == 2
        with pytest.raises(BackendUnavailableError, match="refuses the login") as caught:
            async with make_broker(f"redis://{LOOPBACK}:{server.port}", f"{SECRET}s").connect() as redis:
                await redis.ping()
        assert SECRET not in str(caught.value)


@pytest.mark.anyio
async def test_a_broker_that_is_away_is_called_the_broker(tmp_path: Path) -> None:
    """A message of the database would mislead."""
    with pytest.raises(BackendUnavailableError, match="Can't reach the broker unix:/"):
        async with make_broker(f"unix://{tmp_path}/none.sock").connect() as redis:
            await redis.ping()


@pytest.mark.anyio
@pytest.mark.skipif(TLS_BINARY is None, reason="no server binary here has TLS built in")
async def test_tls_files_stand_in_the_url(tmp_path: Path) -> None:
    """A certificate of an unknown authority is refused, and the message says what to add."""
    assert TLS_BINARY is not None
    files = TlsFiles.create(tmp_path / "tls")
    with RedisServer.start(TLS_BINARY, tmp_path, tls=files) as server:
        async with make_broker(f"{server.url}?ssl_ca_certs={files.ca}").connect() as redis:
            assert await redis.ping()
        with pytest.raises(BackendUnavailableError, match=r"\?ssl_ca_certs=FILE names the certificates"):
            async with make_broker(server.url).connect() as redis:
                await redis.ping()
