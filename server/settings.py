"""The settings: each once, with its default, its flag, its environment variable and its meaning."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schema.limits import DEFAULTS, STRICT, Limits
from server.allow_lists import check_origin, check_proxies, parts_of
from server.errors import UsageError
from server.setting_types import kind_of, type_of

PREFIX = "MERLIN_GRAPHQL_"
_ALL_MODES = 0o777
PRODUCTION = "production"
SHORTEST_TOKEN = 20
SHORTEST_KEY = 32
"""Characters."""
_MAY_BE_ZERO = ("min_replicas", "compare_interval", "rate_limit", "result_cache")
"""0 switches these off."""


class SettingsError(UsageError):
    """An invalid setting, in one line."""


def setting(
    default: Any,
    meaning: str,
    *,
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    flag: bool = True,
    production: Any = None,
) -> Any:
    """A field of `Settings`, with the text of its flag's help.

    `flag`: a secret has no flag, since everybody on a machine can read command lines. `production`: its default under
    that profile, if it differs.
    """
    metadata = {"meaning": meaning, "metavar": metavar, "choices": choices, "flag": flag, "production": production}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the server, valid as a whole. Raises `SettingsError`."""

    profile: str = setting(
        "development",
        "Which defaults the other settings have: those of production are strict, and hide the schema.",
        choices=("development", PRODUCTION),
    )
    database: str | None = setting(
        None,
        "The database: redis://, rediss://, unix://, redis+sentinel://, sqlite:///PATH or memory://. "
        "Without it: the one that Merlin's own configuration (app.yaml) names, else Merlin's local SQLite file.",
        metavar="URL",
        secret=True,
    )
    create: bool = setting(
        False,
        "Create the SQLite file of --database if it does not exist. Otherwise that is an error, since a path may be "
        "mistyped.",
    )
    database_password_file: Path | None = setting(
        None, "A file whose first line is the database's password, so that the URL need not contain it.", metavar="FILE"
    )
    database_ca_certs: Path | None = setting(
        None, "The CA certificates (PEM) that the database's certificate must be signed by.", metavar="FILE"
    )
    database_certfile: Path | None = setting(None, "This client's certificate (PEM) for the database.", metavar="FILE")
    database_keyfile: Path | None = setting(None, "The key (PEM) of this client's certificate.", metavar="FILE")
    database_cert_reqs: str | None = setting(
        None, "Whether the database must have a valid certificate.", choices=("required", "optional", "none")
    )
    database_poll_interval: float = setting(
        2.0, "Seconds between two polls of a Redis that does not allow keyspace notifications.", metavar="SECONDS"
    )
    min_replicas: int = setting(
        0,
        "Replicas of Redis that should confirm each write within a second; where fewer do, the write stands, and "
        "`extensions.replicas` of the response says so. 0: none is waited for.",
        metavar="COUNT",
    )
    compare_interval: float = setting(
        300.0,
        "Seconds that one comparison of the whole copy with the database takes; then the next begins. It finds changes "
        "that were not notified. 0: never.",
        metavar="SECONDS",
    )
    dialect: str | None = setting(
        None,
        "The format of new records on Redis: current (Merlin 2.0.0b3 or later) or legacy (up to 2.0.0b2). "
        "Without it: legacy if the database holds only legacy records, else current. "
        "With current, a legacy run can be given any status.",
        choices=("current", "legacy"),
    )
    time_zone: str | None = setting(
        None,
        "The time zone of the times that Merlin stores, such as Europe/Zurich. Without it: this machine's.",
        metavar="NAME",
    )
    workspace_root: tuple[Path, ...] | None = setting(
        None,
        "A directory that holds Merlin's workspaces. Tasks and logs of runs below it are read. A change of such a run "
        f"is also written to its run_metadata.json; otherwise Merlin undoes it. Separate several by {os.pathsep!r}, or "
        "repeat the flag.",
        metavar="DIR",
    )
    broker: str | None = setting(
        None,
        "The broker that holds Celery's queues: redis://, rediss://, unix://, redis+socket://, amqp:// or amqps://. "
        "Without it: the one in the app.yaml that names the database, else none.",
        metavar="URL",
        secret=True,
    )
    broker_password_file: Path | None = setting(
        None, "A file whose first line is the broker's password, so that the URL need not contain it.", metavar="FILE"
    )
    enable_task_events: bool = setting(
        False,
        "Ask Celery's workers to send events of their tasks, as `celery control enable_events` does: nothing else is "
        "ever sent to them. Without it, only the tasks of workers that run with -E are followed by events.",
    )
    host: str = setting("127.0.0.1", "The address to listen on.", metavar="ADDRESS")
    port: int = setting(8000, "The port to listen on; 0 takes a free one.", metavar="PORT")
    unix_socket: Path | None = setting(
        None, "A Unix socket to listen on, instead of an address and a port.", metavar="PATH"
    )
    unix_socket_mode: str = setting(
        "600", "The file mode of that socket, as for chmod: 660 lets its group connect.", metavar="MODE"
    )
    trusted_proxies: str | None = setting(
        None,
        "Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted: addresses or networks, separated by commas.",
        metavar="ADDRESSES",
    )
    max_connections: int = setting(
        4_096,
        "The maximum number of connections to a server process; further ones are answered by 503.",
        metavar="COUNT",
    )
    max_unread: int = setting(
        64,
        "The maximum size of the responses that a client leaves unread, over all its connections; above it, the "
        "connection that has waited longest is closed.",
        metavar="MEBIBYTES",
    )
    send_timeout: float = setting(
        30.0,
        "Seconds that a client may read nothing of its response; then the connection is closed.",
        metavar="SECONDS",
    )
    drain: float = setting(
        10.0, "Seconds that running requests have to finish, once the server is told to stop.", metavar="SECONDS"
    )
    deadline: float = setting(30.0, "Seconds that a request may take.", metavar="SECONDS")
    workers: int = setting(1, "The number of server processes; each holds a copy of the database.", metavar="COUNT")
    demo: bool = setting(
        False,
        "Fill the database with sample data, and keep changing it as a laboratory would. Without --database, a "
        "temporary database is used. A database that holds records is refused.",
    )
    demo_still: bool = setting(False, "As --demo, but the data does not change: for tests and screenshots.")
    no_auth: bool = setting(False, "Give the role ADMIN to everybody who can reach the server, without a login.")
    read_only: bool = setting(False, "Refuse all mutations: nobody has more than the role READ.")
    token: str | None = setting(
        None,
        "One token with the role ADMIN. If no way to log in is set, one is generated at the start.",
        secret=True,
        flag=False,
    )
    session_key: str | None = setting(
        None,
        "Signs the session cookies: 32 characters or more, the same for all servers behind one address. "
        "Without it, one is generated at the start.",
        secret=True,
        flag=False,
    )
    token_file: Path | None = setting(
        None, "The file with the tokens of services, as `merlin-graphql token create` writes it.", metavar="FILE"
    )
    jwks: str | None = setting(
        None,
        "The public keys (JWKS) of your identity provider, whose JSON Web Tokens are accepted.",
        metavar="FILE|URL",
    )
    jwt_issuer: str | None = setting(None, "The `iss` that these tokens must have.", metavar="TEXT")
    jwt_audience: str | None = setting(None, "The `aud` that these tokens must have.", metavar="TEXT")
    jwt_roles_claim: str = setting(
        "roles",
        "The claim that holds the roles read, write and admin. It may be a path, such as realm_access.roles.",
        metavar="PATH",
    )
    rate_limit: int = setting(
        0,
        "Requests a minute that a client may send to a server process; 0: no limit.",
        metavar="COUNT",
        production=3_000,
    )
    budget: int = setting(
        60_000_000,
        "Points that the operations of a client may cost in a minute, in a server process; at least --max-cost.",
        metavar="POINTS",
        production=12_000_000,
    )
    max_client_connections: int = setting(
        1_000,
        "The maximum number of websockets and event streams that a client may have open to a server process.",
        metavar="COUNT",
        production=200,
    )
    max_client_subscriptions: int = setting(
        2_000,
        "The maximum number of subscriptions of a client that a server process runs at once, over all its connections.",
        metavar="COUNT",
        production=500,
    )
    allow_origins: str | None = setting(
        None,
        "Origins whose pages may send requests and open websockets, besides the server's own: such as "
        "https://dash.example.org; separate several by commas.",
        metavar="ORIGINS",
    )
    allow_hosts: str | None = setting(
        None,
        "Host names that requests may use, besides loopback, this machine's names and the address that it is reached "
        "at: as browsers show them in their address, also behind a proxy; separate several by commas. *: any.",
        metavar="NAMES",
    )
    introspection: bool = setting(
        True, "Reveal the schema: introspection, /schema.graphql, suggestions in error messages.", production=False
    )
    board: bool = setting(True, "Serve the board, a page that shows studies and runs, at /board.", production=False)
    graphiql: bool = setting(True, "Serve GraphiQL at /graphiql.", production=False)
    get_queries: bool = setting(True, "Accept queries by GET, too; if off, only event streams are accepted by GET.")
    http_statuses: str = setting(
        "compatible",
        "The HTTP statuses of responses in application/graphql-response+json: those that clients know today, or those "
        "of GraphQL over HTTP, September 2026 (422 for invalid documents, 294 for data with errors).",
        choices=("compatible", "september-2026"),
    )
    log_format: str = setting("text", "The format of log lines.", choices=("text", "json"), production="json")
    log_operations: bool = setting(False, "Log a line for each operation.", production=True)
    compiled: bool = setting(
        True, "Use compiled functions and the fast path where possible; if off, every request takes the slow path."
    )
    result_cache: int = setting(
        64,
        "The size of each server process's response cache, which any change empties; 0: no cache.",
        metavar="MEBIBYTES",
    )
    tracing: bool = setting(False, "Send traces to OTEL_EXPORTER_OTLP_ENDPOINT; needs merlin-graphql[tracing].")
    trusted_documents: Path | None = setting(
        None,
        "Operations that clients may name by the SHA-256 of their documents: a folder of .graphql files, or a manifest "
        "of `merlin-graphql operations manifest`.",
        metavar="DIR|MANIFEST",
    )
    only_trusted: bool = setting(False, "Execute the trusted documents only, and refuse all others.")
    max_characters: int = setting(
        DEFAULTS.characters, "The maximum length of a document, in characters.", metavar="COUNT"
    )
    max_tokens: int = setting(DEFAULTS.tokens, "The maximum number of tokens in a document.", metavar="COUNT")
    max_directives: int = setting(
        DEFAULTS.directives,
        "The maximum number of directives in a document.",
        metavar="COUNT",
        production=STRICT.directives,
    )
    max_depth: int = setting(
        DEFAULTS.depth, "The maximum depth of an operation's fields.", metavar="COUNT", production=STRICT.depth
    )
    max_introspection_depth: int = setting(
        DEFAULTS.introspection_depth,
        "The maximum depth of the fields below __schema and __type, which --max-depth does not count.",
        metavar="COUNT",
    )
    max_root_fields: int = setting(
        DEFAULTS.root_fields,
        "The maximum number of root fields of an operation.",
        metavar="COUNT",
        production=STRICT.root_fields,
    )
    max_aliases: int = setting(
        DEFAULTS.aliases, "The maximum number of aliases in an operation.", metavar="COUNT", production=STRICT.aliases
    )
    max_terms: int = setting(
        DEFAULTS.terms,
        "The maximum number of conditions in the filters of an operation, variables included.",
        metavar="COUNT",
        production=STRICT.terms,
    )
    max_bytes: int = setting(
        DEFAULTS.bytes,
        "The maximum size of the large values in a response, in bytes: of all texts, lists and objects of more than "
        "1024 characters.",
        metavar="BYTES",
        production=STRICT.bytes,
    )
    max_cost: int = setting(
        DEFAULTS.cost,
        "The maximum cost of an operation: about the number of fields in its response, and what its searches take.",
        metavar="COUNT",
        production=STRICT.cost,
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_secrets()
        self.socket_mode()
        if self.only_trusted and self.trusted_documents is None:
            raise SettingsError("only-trusted: also name the trusted documents by --trusted-documents.")
        self.zone()
        for name, check in (("allow-origins", self._check_origins), ("trusted-proxies", self._check_proxies)):
            try:
                check()
            except ValueError as error:
                raise SettingsError(f"{name}: {error}.") from None

    def _check_numbers(self) -> None:
        if not 0 <= self.port < 2**16:
            raise SettingsError(f"port: {self.port} is invalid; use 0 to 65535.")
        if not self.max_cost <= self.budget < 2**31:  # else one within the limits could never be paid
            raise SettingsError(f"budget: {self.budget} is invalid; use {self.max_cost} (--max-cost) to {2**31 - 1}.")
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if (item.name.startswith("max_") or item.name == "workers") and value < 1:
                raise SettingsError(f"{flag_of(item)[2:]}: {value} is invalid; use 1 or more.")
            if item.name in _MAY_BE_ZERO:
                if not 0 <= value < math.inf:
                    raise SettingsError(f"{flag_of(item)[2:]}: {value} is invalid; use 0 or more.")
            elif item.metadata["metavar"] == "SECONDS" and not 0 < value < math.inf:
                raise SettingsError(f"{flag_of(item)[2:]}: {value} is invalid; use more than 0.")

    def _check_origins(self) -> None:
        for origin in parts_of(self.allow_origins):
            check_origin(origin)

    def _check_proxies(self) -> None:
        check_proxies(parts_of(self.trusted_proxies), over_unix_socket=self.unix_socket is not None)

    def _check_secrets(self) -> None:
        for name, shortest in (("token", SHORTEST_TOKEN), ("session_key", SHORTEST_KEY)):
            if (secret := getattr(self, name)) is not None and len(secret) < shortest:
                raise SettingsError(
                    f"{name.replace('_', '-')}: it is too short; use {shortest} random characters or more."
                )

    @property
    def is_demo(self) -> bool:
        return self.demo or self.demo_still

    @property
    def is_demo_alive(self) -> bool:
        return self.demo and not self.demo_still

    @property
    def has_login(self) -> bool:
        """Whether a way to log in is set."""
        return self.token is not None or self.token_file is not None or self.jwks is not None

    def socket_mode(self) -> int:
        """The file mode of the Unix socket, as a number. Raises `SettingsError`."""
        try:
            mode = int(self.unix_socket_mode, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= _ALL_MODES:
            raise SettingsError(f"unix-socket-mode: {self.unix_socket_mode!r} is not a file mode; use one such as 660.")
        return mode

    def zone(self) -> tzinfo | None:
        """The time zone of Merlin's times; None is this machine's. Raises `SettingsError`."""
        if self.time_zone is None:
            return None
        try:
            return ZoneInfo(self.time_zone)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            raise SettingsError(
                f"time-zone: {self.time_zone!r} is not a known time zone; use one such as UTC."
            ) from None

    def origins(self) -> frozenset[str]:
        return frozenset(parts_of(self.allow_origins))

    def hosts(self) -> frozenset[str]:
        return frozenset(parts_of(self.allow_hosts))

    def limits(self) -> Limits:
        return Limits(**{item.name: getattr(self, f"max_{item.name}") for item in dataclasses.fields(Limits)})

    def as_environ(self) -> dict[str, str]:
        """The environment variables of a process that is started with these settings."""
        return {
            variable_of(item): text_of(value)
            for item in dataclasses.fields(self)
            if (value := getattr(self, item.name)) is not None
        }


def variable_of(item: dataclasses.Field[Any]) -> str:
    return PREFIX + item.name.upper()


def text_of(value: object) -> str:
    """A value as text, in the form that the environment and the command line have it."""
    return os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_of(item: dataclasses.Field[Any]) -> str:
    return "--" + item.name.replace("_", "-")


def read_settings(environ: Mapping[str, str], arguments: argparse.Namespace | None = None) -> Settings:
    """Reads each setting from the command line, else the environment, else the profile. Raises `SettingsError`."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Settings):
        given = None if arguments is None else getattr(arguments, item.name, None)
        text = environ.get(variable_of(item)) or None
        if given is not None:
            values[item.name] = given
        elif text is not None:
            values[item.name] = _parsed(item, text)
        elif values.get("profile") == PRODUCTION and (strict := item.metadata["production"]) is not None:
            values[item.name] = strict
        else:
            values[item.name] = item.default
    return Settings(**values)


def _parsed(item: dataclasses.Field[Any], text: str) -> Any:
    try:
        value = type_of(item)(text)
    except ValueError:
        shown = repr(text) if item.repr else "this"
        raise SettingsError(f"{variable_of(item)}: {shown} is not {kind_of(item)}.") from None
    if (choices := item.metadata["choices"]) and text not in choices:
        raise SettingsError(f"{variable_of(item)}: {text!r} is not one of {', '.join(choices)}.")
    return value
