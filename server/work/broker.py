"""The broker: the server that holds Celery's queues, as a URL and a password name it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from server.database.backends.tls import TLS, check_files
from server.database.errors import WrongDatabaseError
from server.errors import UsageError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from server.database.backends.redis_client import RedisClients

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


class BrokerError(UsageError):
    """The broker can't be used as it is named. The message repeats no password."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and how to log in. Made by `make_broker`, which checks it."""

    url: str = field(repr=False)
    """Of redis-py (`redis://`, `rediss://`, `unix://`), else `amqp://` or `amqps://`; without the TLS files."""
    is_redis: bool
    connection: str
    """The URL as it may be shown."""
    database: int = 0
    """The number of the database on Redis, which the names of Celery's channels contain."""
    password: str | None = field(default=None, repr=False)
    """Instead of the one in the URL."""
    tls: TLS = field(default_factory=TLS)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Redis]:
        """A client of a broker on Redis until the block ends; it connects at its first command, and when it is cut off.

        What redis-py raises in the block becomes a `BackendError`, whose message holds no password.
        """
        clients = _clients(self.url, self.password, self.tls)
        client = clients.make()
        try:
            with clients.translated():
                yield client
        finally:
            await client.aclose()
            await clients.close()


def make_broker(url: str, password: str | None = None) -> Broker:
    """The broker of a URL, which is not asked yet. `password`: instead of the one in the URL. Raises `BrokerError`."""
    scheme, separator, _ = url.partition("://")
    match scheme.lower() if separator else "":
        case "redis+socket" | "unix":
            return _on_redis(_as_socket(url), password)
        case "redis" | "rediss":
            return _on_redis(url, password)
        case "amqp" | "amqps":
            return _on_amqp(url, password)
    raise BrokerError(
        "No broker has a URL that begins like this one: use redis://, rediss://, unix://, redis+socket://, amqp:// "
        "or amqps://."
    )


def _clients(url: str, password: str | None, tls: TLS | None = None) -> RedisClients:
    from server.database.backends.redis_client import RedisClients  # noqa: PLC0415 - a driver is loaded where it is used

    return RedisClients(url, password, tls, noun="broker")


def _on_redis(url: str, password: str | None) -> Broker:
    try:
        clients = _clients(url, password)
        clients.check_files()
        clients.make()
    except WrongDatabaseError as error:
        raise BrokerError(str(error)) from None
    return Broker(url, is_redis=True, connection=clients.connection, database=clients.database, password=password)


def _as_socket(url: str) -> str:
    """redis-py's form of Celery's `redis+socket:///path?virtual_host=0`."""
    parts = _parts_of(url)
    options = [("db" if name == "virtual_host" else name, value) for name, value in parse_qsl(parts.query)]
    return f"unix://{parts.netloc}{parts.path}?{urlencode(options)}"


def _parts_of(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or "@" in parts.path + parts.query + parts.fragment:
        raise BrokerError(
            f"Can't read the broker URL {url.partition(':')[0]}://***: it is no URL; in a password each of / ? # @ [ ] "
            "is percent-encoded."
        )
    return parts


def _on_amqp(url: str, password: str | None) -> Broker:
    parts = _parts_of(url)
    shown = f"{parts.scheme}://{parts.hostname}{'' if parts.port is None else f':{parts.port}'}{parts.path}"
    if not parts.hostname:
        raise BrokerError(f"Can't read the broker URL {parts.scheme}://: it names no host.")
    if find_spec("amqp") is None:
        raise BrokerError(f"RabbitMQ at {shown} needs a library: pipx install 'merlin-graphql[amqp]'.")
    options = dict(parse_qsl(parts.query))
    tls = _tls_of({name: options.pop(name) for name in _TLS_OPTIONS if name in options})
    if tls.arguments() and parts.scheme != "amqps":
        raise BrokerError(f"TLS files are given, but {shown} is a connection without TLS: use amqps://.")
    try:
        check_files(tls.arguments())
    except WrongDatabaseError as error:
        raise BrokerError(str(error)) from None
    bare = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(options), ""))
    return Broker(bare, is_redis=False, connection=shown, password=password, tls=tls)


def _tls_of(options: Mapping[str, str]) -> TLS:
    cert_reqs = options.get("ssl_cert_reqs")
    if cert_reqs not in (None, "required", "optional", "none"):
        raise BrokerError("The broker URL's ssl_cert_reqs must be required, optional or none.")
    return TLS(*(options.get(name) for name in _TLS_OPTIONS))
