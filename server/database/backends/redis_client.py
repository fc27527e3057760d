"""Makes redis-py clients of a URL: TCP, TLS, Unix socket or Sentinel, with timeouts and masked passwords."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.database.backends.redis_sentinels import Address, Sentinels
from server.database.backends.tls import TLS, check_files
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.tasks import end_tasks

LOG = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds to connect, and for an answer; redis-py alone would wait a minute."""
_READ_SIZE = 256 * 1024
"""Bytes, as many as asyncio takes from a socket at once: a notice of every run has megabytes, and is read in passes of
the event loop, between which other tasks run."""
_TIMEOUTS = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}

SENTINEL_SCHEME = "redis+sentinel"
SCHEMES: Mapping[str, str] = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    SENTINEL_SCHEME: SENTINEL_SCHEME,
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+sentinel": SENTINEL_SCHEME,
}
"""Valkey's own mean what Redis's do."""
_SENTINEL_PORT = 26379
_SENTINEL_TIMEOUT = 1.0
"""Seconds for the sentinels to say who is the master, before they are asked anew."""
_SENTINEL_PAUSE = 1.0
"""Seconds between two questions who is the master, unless a sentinel tells of another one before."""
BUSY = "BUSY "
"""The code by which a server refuses everything while a script runs longer than its `lua-time-limit`."""
_CUT = "closed by server|reset by peer|while writing to socket"
"""How redis-py and the system call a connection that the other side has ended."""


def mask(url: str) -> str:
    """The URL without password and query, to be shown; only its scheme where its parts can't be told."""
    parts = _split(url)
    if parts is None:
        return f"{url.partition(':')[0]}://***"
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{user}:***" if colon else "***" if user else ""  # one word alone may be a password that lacks its colon
    return urlunsplit((parts.scheme, f"{shown}{at}{place}", parts.path, "", ""))


def _split(url: str) -> SplitResult | None:
    """None where a password that is not percent-encoded may stand in any of the parts."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return None if parts.netloc and "@" in parts.path + parts.query + parts.fragment else parts


Places = tuple[tuple[str, int], ...]
"""Hosts and ports."""
_TEXTS = {"decode_responses": True, "encoding_errors": "surrogateescape"}
"""Replies are decoded where they are parsed, in C; what is no UTF-8 comes through, and the codec tells of it."""


class RedisClients:
    """Makes clients for one URL. Raises `WrongDatabaseError` for one that can't be read."""

    def __init__(
        self, url: str, password: str | None = None, tls: TLS | None = None, *, noun: str = "database"
    ) -> None:
        """`noun`: what messages call the server."""
        self.connection = mask(url)
        self._noun = noun
        if _split(url) is None:
            raise self._unreadable("it is no URL; in a password each of / ? # @ [ ] is percent-encoded")
        scheme, _, rest = url.partition(":")
        url = f"{SCHEMES[scheme.lower()]}:{rest}"
        self.is_sentinel = urlsplit(url).scheme == SENTINEL_SCHEME
        tls = tls or TLS()
        try:
            sentinels, self._arguments = _read_sentinel_url(url) if self.is_sentinel else ((), _read_url(url))
        except ValueError as error:
            raise self._unreadable(error) from None
        if password is not None:
            self._arguments["password"] = password
        self.database = int(self._arguments.get("db", 0))
        """Its number."""
        self._is_tls = _is_tls(self._arguments)
        if self._is_tls:
            self._arguments |= tls.arguments()
        elif tls.arguments() or any(name.startswith("ssl_") for name in self._arguments):
            raise WrongDatabaseError(
                f"TLS files are given, but {self.connection} is a connection without TLS: use rediss://, "
                f"or ?ssl=true with {SENTINEL_SCHEME}://."
            )
        self._secrets = [secret for name, secret in self._arguments.items() if "password" in name and secret]
        self._service = self._arguments.pop("service", "")
        self._sentinel = self._make_sentinel(sentinels)
        self._made: list[Redis] = []
        self._master: Address | None = None
        """Whom the sentinels named last."""

    def make(self, *, protocol: int = 2, retries: int = 2) -> Redis:
        """Whoever makes a client closes it, and then these."""
        arguments = self._arguments | _TIMEOUTS | _TEXTS | {"protocol": protocol, "socket_read_size": _READ_SIZE}
        arguments["retry"] = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, (RedisConnectionError,))
        try:
            client: Redis = (
                self._sentinel.master_for(self._service, **arguments)
                if self._sentinel
                else Redis.from_pool(ConnectionPool(**arguments))
            )
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # reads the arguments only
        except (RedisError, TypeError, ValueError) as error:
            raise self._unreadable(error) from None
        self._made.append(client)
        return client

    def _make_sentinel(self, places: Places) -> Sentinels | None:
        names = [name for name in self._arguments if name.startswith("sentinel_")]
        arguments = {name.removeprefix("sentinel_"): self._arguments.pop(name) for name in names}
        arguments |= _TIMEOUTS | {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
        try:
            return Sentinels(places, arguments) if places else None
        except TypeError as error:
            raise self._unreadable(error) from None

    def check_files(self) -> None:
        """Raises `WrongDatabaseError` for TLS files that can't be used."""
        if self._is_tls:
            check_files(self._arguments)

    async def close(self) -> None:
        if self._sentinel is not None:
            await self._sentinel.aclose()

    @contextlib.asynccontextmanager
    async def following_master(self) -> AsyncIterator[None]:
        """Meanwhile sentinels are asked for the master, and when it changes all clients leave the old one at once."""
        if self._sentinel is None:
            yield
            return
        task = asyncio.create_task(self._follow_master(self._sentinel))
        try:
            yield
        finally:
            await end_tasks([task])

    def check_master(self, connection: AbstractConnection) -> None:
        """Raises redis-py's `ConnectionError` for a connection to another server than the master."""
        if self._master is not None and _address_of(connection) != self._master:
            raise RedisConnectionError("another server is the master now")

    async def _follow_master(self, sentinels: Sentinels) -> None:
        switched = asyncio.Event()
        async with sentinels.listening(self._service, switched.set):
            while True:
                switched.clear()
                await self._look_for_master(sentinels)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SENTINEL_PAUSE):
                        await switched.wait()

    async def _look_for_master(self, sentinels: Sentinels) -> None:
        with contextlib.suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_SENTINEL_TIMEOUT):
                master = await sentinels.discover_master(self._service)
            if self._master not in (master, None):
                LOG.info("The sentinels name another master: %s, port %d.", *master)
            self._master = master
        self._leave_others()

    def _leave_others(self) -> None:
        """Ends the connections that lead to another server than the master, also those in use.

        Whoever uses one finds it broken: its streams stay, since redis-py fails in an unknown way where it meets none.
        """
        for pool in [client.connection_pool for client in self._made]:
            for connection in [*pool._available_connections, *pool._in_use_connections]:  # noqa: SLF001 - there is no public way to them
                writer = connection._writer  # noqa: SLF001 - as above
                if writer is not None and self._master not in (_address_of(connection), None):
                    writer.transport.abort()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turns what redis-py raises into the errors of this layer."""
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise self.translate(error) from error

    def translate(self, error: Exception) -> BackendError:
        while isinstance(error.__cause__, RedisError):  # on a Unix socket the login fails while connecting
            error = error.__cause__
        reason = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        reason += "" if reason.endswith((".", "?")) else "."
        match error:
            case AuthenticationError() | AuthorizationError():
                return BackendUnavailableError(f"{self.connection} refuses the login: {reason}")
            case ResponseError() if self.is_sentinel and "unknown command 'SENTINEL'" in reason:
                return WrongDatabaseError(f"{self.connection} is no Sentinel: name its port, which is often 26379.")
            case ResponseError() if reason.startswith(BUSY):
                return BackendUnavailableError(f"{self.connection} is busy with a script: {reason}")
            case ResponseError():
                return WrongDatabaseError(f"{self.connection} refuses a command: {reason}")
            case MasterNotFoundError():
                return BackendUnavailableError(
                    f"Can't reach the {self._noun} {self.connection}: {self._why_no_master(str(error))}."
                )
            case _:
                return BackendUnavailableError(
                    f"Can't reach the {self._noun} {self.connection}: {reason}{self._hint(error, reason)}"
                )

    def _why_no_master(self, reason: str) -> str:
        """redis-py lists those that did not answer, each as it shows the object, a dash, and the error."""
        known = 0 if self._sentinel is None else len(self._sentinel.sentinels)
        if reason.count("> - ") >= known:
            return "none of these sentinels answers" if known > 1 else "the sentinel does not answer"
        return f"no sentinel that answers knows a master named {self._service!r} that is up"

    def _hint(self, error: Exception, reason: str) -> str:
        """A server of Redis that is spoken to by TLS and knows none waits for more, and answers nothing.

        One that wants TLS hangs up, which shows as the end of its answer or as a request that can't be sent.
        """
        is_cut = isinstance(error, RedisConnectionError) and re.search(_CUT, reason)
        if self._is_tls:
            is_silent = isinstance(error, RedisTimeoutError | TimeoutError)
            if is_silent or is_cut or "WRONG_VERSION_NUMBER" in reason:
                return " Does it speak TLS? Without TLS it is redis:// (in app.yaml: name: redis), not rediss://."
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                ca_certs = "--database-ca-certs" if self._noun == "database" else "?ssl_ca_certs=FILE"
                return f" {ca_certs} names the certificates that it is verified by."
        elif is_cut:
            return " Does it want TLS? Then it is rediss://."
        return ""

    def _unreadable(self, why: object) -> WrongDatabaseError:
        return WrongDatabaseError(f"Can't read the {self._noun} URL {self.connection}: {str(why).rstrip('.')}.")


def _address_of(connection: Any) -> Address:
    """Of a connection that a sentinel has led to."""
    return connection.host, connection.port


def _is_tls(arguments: dict[str, Any]) -> bool:
    connection_class = arguments.get("connection_class")
    return bool(arguments.get("ssl")) or (connection_class is not None and "SSL" in connection_class.__name__)


@cache
def _options() -> frozenset[str]:
    """That a URL may have: what redis-py's connections take."""
    classes = {*SSLConnection.__mro__, *UnixDomainSocketConnection.__mro__} - {object}
    names = {name for one in classes for name in inspect.signature(one).parameters}
    return frozenset(names - {"args", "kwargs"})


def _check_options(query: str, more: Collection[str] = (), prefix: str = "") -> None:
    """Raises `ValueError`."""
    known = {*_options(), *more, *(f"{prefix}{name}" for name in _options() if prefix)}
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}" if near else ""
            raise ValueError(f"it has no option {name}{hint}")


def _read_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    _check_options(parts.query)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+/?", parts.path):
        raise ValueError(f"{parts.path!r} is no database number; write /0 at its end")
    return dict(parse_url(url))


def _read_sentinel_url(url: str) -> tuple[Places, dict[str, Any]]:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db][?sentinel_password=…&ssl=true]`."""
    parts = urlsplit(url)
    _check_options(parts.query, ("ssl",), "sentinel_")
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not places or not service:
        raise ValueError(f"write {SENTINEL_SCHEME}://host:port,host:port/service/0")
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
