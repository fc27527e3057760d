"""Makes the backend for a URL, and imports its driver only then."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.database.backends.base import ResultsBackend
from server.database.backends.tls import TLS
from server.database.errors import WrongDatabaseError


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Options of a backend that its URL can't or should not have."""

    password: str | None = field(default=None, repr=False)
    tls: TLS = field(default_factory=TLS)
    poll_interval: float = 2.0
    """Seconds between two polls of a Redis that does not allow keyspace notifications."""
    min_replicas: int = 0
    """Replicas that should confirm each write."""
    create: bool = True
    """Whether an SQLite file that does not exist is created."""
    read_only: bool = False
    """Whether nothing is written; then an SQLite file need not be writable."""


def make_backend(url: str, options: BackendOptions) -> ResultsBackend:
    """The backend for a URL, not yet opened. Raises `WrongDatabaseError` for an invalid URL."""
    scheme, separator, _ = url.partition("://")
    match scheme.lower() if separator else "":
        case "redis" | "rediss" | "unix" | "redis+sentinel" | "valkey" | "valkeys" | "valkey+sentinel":
            from server.database.backends.redis import RedisBackend  # noqa: PLC0415 - a driver is loaded where it is used

            return RedisBackend(
                url,
                password=options.password,
                tls=options.tls,
                poll_interval=options.poll_interval,
                min_replicas=options.min_replicas,
            )
        case _ if options.min_replicas:
            raise WrongDatabaseError(
                f"min-replicas: only Redis has replicas, and the database is {scheme or 'unnamed'}: leave it out."
            )
        case "sqlite":
            from server.database.backends.sqlite import SQLiteBackend  # noqa: PLC0415 - as above

            return SQLiteBackend(url, create=options.create, read_only=options.read_only)
        case "memory":
            from server.database.backends.memory import MemoryBackend  # noqa: PLC0415 - as above

            return MemoryBackend()
        case unknown:
            raise WrongDatabaseError(
                f"No database has a URL that begins with {unknown or 'nothing'}: use redis://, rediss://, unix://, "
                "redis+sentinel://, sqlite:///PATH or memory://."
            )
