"""From a URL to redis-py clients: TCP, TLS, Unix socket or Sentinel, with timeouts of seconds and masked passwords."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis, Sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from server.database.backends.tls import TLS
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError

TIMEOUT = 5.0
"""Seconds to connect, and for an answer; redis-py alone would wait a minute."""

SENTINEL_SCHEME = "redis+sentinel"
SCHEMES = ("redis", "rediss", "unix", SENTINEL_SCHEME)
_SENTINEL_PORT = 26379


def mask(url: str) -> str:
    """The URL without password and query, to be shown."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    return urlunsplit((parts.scheme, f"{user}{':***' if colon else ''}{at}{place}", parts.path, "", ""))


class RedisClients:
    """Makes clients for one URL. Raises `WrongDatabaseError` for one that can't be read."""

    def __init__(self, url: str, password: str | None = None, tls: TLS | None = None) -> None:
        self.connection = mask(url)
        self.is_sentinel = urlsplit(url).scheme == SENTINEL_SCHEME
        tls = tls or TLS()
        try:
            self._sentinels, self._arguments = _read_sentinel_url(url) if self.is_sentinel else ((), _read_url(url))
        except ValueError as error:
            raise WrongDatabaseError(f"Can't read the database URL {self.connection}: {error}") from None
        if password is not None:
            self._arguments["password"] = password
        if _is_tls(self._arguments):
            self._arguments |= tls.arguments()
        elif tls.arguments():
            raise WrongDatabaseError(
                f"TLS files are given, but {self.connection} is a connection without TLS: use rediss://, "
                f"or ?ssl=true with {SENTINEL_SCHEME}://."
            )
        self._secrets = [secret for name, secret in self._arguments.items() if "password" in name and secret]

    def make(self, *, protocol: int = 2, retries: int = 2) -> Redis:
        arguments = self._arguments | {
            "protocol": protocol,
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "encoding_errors": "surrogateescape",
            "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries) if retries else Retry(NoBackoff(), 0),
        }
        if not self.is_sentinel:
            return Redis.from_pool(ConnectionPool(**arguments))
        service = arguments.pop("service")
        sentinel_arguments = {
            name.removeprefix("sentinel_"): arguments.pop(name)
            for name in tuple(arguments)
            if name.startswith("sentinel_")
        }
        sentinel_arguments |= {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        sentinel = Sentinel(self._sentinels, sentinel_kwargs=sentinel_arguments)  # type: ignore[no-untyped-call]  # redis-py's
        client: Redis = sentinel.master_for(service, **arguments)
        return client

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turns what redis-py raises into the errors of this layer."""
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> BackendError:
        reason = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        match error:
            case AuthenticationError() | AuthorizationError():
                return BackendUnavailableError(f"{self.connection} refuses the login: {reason}")
            case ResponseError():
                return WrongDatabaseError(f"{self.connection} refuses a command: {reason}")
            case _:
                return BackendUnavailableError(f"Can't reach the database {self.connection}: {reason}")


def _is_tls(arguments: dict[str, Any]) -> bool:
    connection_class = arguments.get("connection_class")
    return bool(arguments.get("ssl")) or (connection_class is not None and "SSL" in connection_class.__name__)


def _read_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+/?", parts.path):
        raise ValueError(f"{parts.path!r} is no database number; write /0 at its end.")
    return dict(parse_url(url))


def _read_sentinel_url(url: str) -> tuple[tuple[tuple[str, int], ...], dict[str, Any]]:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db][?sentinel_password=…&ssl=true]`."""
    parts = urlsplit(url)
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not places or not service:
        raise ValueError(f"write {SENTINEL_SCHEME}://host:port,host:port/service/0.")
    arguments: dict[str, Any] = {"service": unquote(service), "db": int(db or 0)}
    if user:
        arguments["username"] = unquote(user)
    if password:
        arguments["password"] = unquote(password)
    for name, value in parse_qsl(parts.query):
        arguments[name] = value.lower() in ("1", "true", "yes") if name == "ssl" else value
    return tuple(map(_place, places.split(","))), arguments


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or _SENTINEL_PORT
