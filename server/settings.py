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

PREFIX = "MERLIN_GRAPHQL_"
_ALL_MODES = 0o777
PRODUCTION = "production"
SHORTEST_TOKEN = 20
SHORTEST_KEY = 32
"""Characters."""
_OFF_BY_0 = ("compare_interval", "rate_limit", "result_cache")


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
    """`flag`: a secret has none, since everybody on a machine can read command lines.

    `production`: its default under that profile, where it is another one.
    """
    metadata = {"meaning": meaning, "metavar": metavar, "choices": choices, "flag": flag, "production": production}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    profile: str = setting(
        "development",
        "Which defaults the others have: production is strict, and tells nothing of the schema.",
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
        "Make the SQLite file of --database where there is none; else that is refused, for a path may be mistyped.",
    )
    database_password_file: Path | None = setting(
        None, "A file whose first line is the database's password, so that it stands in no URL.", metavar="FILE"
    )
    database_ca_certs: Path | None = setting(
        None, "The certificates (PEM) that the database's one must be signed by.", metavar="FILE"
    )
    database_certfile: Path | None = setting(None, "This client's certificate (PEM) for the database.", metavar="FILE")
    database_keyfile: Path | None = setting(None, "The key (PEM) of this client's certificate.", metavar="FILE")
    database_cert_reqs: str | None = setting(
        None, "Whether the database needs a valid certificate.", choices=("required", "optional", "none")
    )
    database_poll_interval: float = setting(
        2.0, "Seconds between two looks at a Redis that refuses to tell of changes.", metavar="SECONDS"
    )
    compare_interval: float = setting(
        300.0,
        "Seconds in which everything is compared with the database once, again and again, beside following its "
        "changes: finds what no notice told of. 0: never.",
        metavar="SECONDS",
    )
    dialect: str | None = setting(
        None,
        "In which dialect new records are written on Redis: current (Merlin 2.0.0b3 on) or legacy (up to 2.0.0b2). "
        "Without it: legacy where there are only such records, else current. "
        "With current, a legacy run takes any status.",
        choices=("current", "legacy"),
    )
    time_zone: str | None = setting(
        None,
        "The time zone of the times that Merlin stores, such as Europe/Zurich. Without it: this machine's.",
        metavar="NAME",
    )
    workspace_root: tuple[Path, ...] | None = setting(
        None,
        f"A directory below which Merlin's studies are written: what is changed of a run there is also written to its "
        f"run_metadata.json, else Merlin undoes it. Several with {os.pathsep!r} between them, or by several flags.",
        metavar="DIR",
    )
    host: str = setting("127.0.0.1", "The address to listen on.", metavar="ADDRESS")
    port: int = setting(8000, "The port to listen on; 0 takes a free one.", metavar="PORT")
    unix_socket: Path | None = setting(
        None, "A Unix socket to listen on, in place of an address and a port.", metavar="PATH"
    )
    unix_socket_mode: str = setting(
        "600", "Who may connect to that socket, as of chmod: 660 lets in its group.", metavar="MODE"
    )
    trusted_proxies: str | None = setting(
        None,
        "Whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or networks with commas between them.",
        metavar="ADDRESSES",
    )
    max_connections: int = setting(
        4_096, "The most connections to a server process; one more is answered by 503.", metavar="COUNT"
    )
    max_unread: int = setting(
        64,
        "The most of its answers that a client may leave unread, over all its connections; then the one that waits "
        "longest is cut off.",
        metavar="MEBIBYTES",
    )
    send_timeout: float = setting(
        30.0, "Seconds that a client may read nothing of its answer; then it is cut off.", metavar="SECONDS"
    )
    drain: float = setting(
        10.0, "Seconds that requests have to finish in, once the server is told to end.", metavar="SECONDS"
    )
    deadline: float = setting(30.0, "Seconds that a request may take.", metavar="SECONDS")
    workers: int = setting(1, "How many server processes; each holds a copy of the database.", metavar="COUNT")
    demo: bool = setting(
        False,
        "Fill the database with sample data, and let it go on as a laboratory does. Without a database given: one of "
        "its own, gone at the end. A database that holds records is refused.",
    )
    demo_still: bool = setting(False, "As --demo, but nothing happens in it: for tests and pictures.")
    no_auth: bool = setting(False, "Let in everybody who reaches the address, as ADMIN.")
    read_only: bool = setting(False, "Answer no mutation: nobody has more than the role READ.")
    token: str | None = setting(
        None,
        "One token with the role ADMIN. Without any way to log in, one is made at the start.",
        secret=True,
        flag=False,
    )
    session_key: str | None = setting(
        None,
        "Signs the cookies of browsers: 32 characters or more, the same for servers that stand for each other. "
        "Else it is made at the start.",
        secret=True,
        flag=False,
    )
    token_file: Path | None = setting(
        None, "The tokens of services, as `merlin-graphql token create` writes them.", metavar="FILE"
    )
    jwks: str | None = setting(
        None, "The keys of your identity provider, whose JSON Web Tokens are let in.", metavar="FILE|URL"
    )
    jwt_issuer: str | None = setting(None, "The `iss` that such a token must have.", metavar="TEXT")
    jwt_audience: str | None = setting(None, "The `aud` that such a token must have.", metavar="TEXT")
    jwt_roles_claim: str = setting(
        "roles", "The claim that names roles: read, write, admin. A path such as realm_access.roles.", metavar="PATH"
    )
    rate_limit: int = setting(
        0, "Requests a minute that a client may send to a server process; 0: any.", metavar="COUNT", production=3_000
    )
    allow_origins: str | None = setting(
        None,
        "Whose pages may ask and open websockets, beside those of the server's own address: such as "
        "https://dash.example.org; several with commas between them.",
        metavar="ORIGINS",
    )
    allow_hosts: str | None = setting(
        None,
        "The names by which the server may be asked, beside loopback, this machine's and the address that it is "
        "reached at: as they stand in the addresses of browsers, also before a proxy; several with commas between "
        "them. *: any.",
        metavar="NAMES",
    )
    introspection: bool = setting(
        True, "Tell of the schema: introspection, /schema.graphql, suggestions in messages.", production=False
    )
    graphiql: bool = setting(True, "Serve GraphiQL at /.", production=False)
    get_queries: bool = setting(
        True, "Answer queries by GET, too; event streams are always answered.", production=False
    )
    log_format: str = setting("text", "How log lines are written.", choices=("text", "json"), production="json")
    log_operations: bool = setting(False, "Log a line for each operation.", production=True)
    compiled: bool = setting(
        True, "Answer by compiled functions and in few steps where that can be; off, everything takes the slow path."
    )
    result_cache: int = setting(
        64, "How much of answers is kept by a server process until anything changes; 0: nothing.", metavar="MEBIBYTES"
    )
    tracing: bool = setting(False, "Send traces to OTEL_EXPORTER_OTLP_ENDPOINT; needs merlin-graphql[tracing].")
    trusted_documents: Path | None = setting(
        None,
        "Operations that clients may name by the SHA-256 of their documents: a folder of .graphql files, or a manifest "
        "of `merlin-graphql operations manifest`.",
        metavar="DIR|MANIFEST",
    )
    only_trusted: bool = setting(False, "Answer the trusted documents only, and refuse every other.")
    max_characters: int = setting(DEFAULTS.characters, "The longest document that is answered.", metavar="COUNT")
    max_tokens: int = setting(DEFAULTS.tokens, "The most tokens of a document.", metavar="COUNT")
    max_directives: int = setting(
        DEFAULTS.directives, "The most directives of a document.", metavar="COUNT", production=STRICT.directives
    )
    max_depth: int = setting(
        DEFAULTS.depth, "The deepest nesting of an operation's fields.", metavar="COUNT", production=STRICT.depth
    )
    max_root_fields: int = setting(
        DEFAULTS.root_fields,
        "The most root fields of an operation.",
        metavar="COUNT",
        production=STRICT.root_fields,
    )
    max_aliases: int = setting(
        DEFAULTS.aliases, "The most aliases of an operation.", metavar="COUNT", production=STRICT.aliases
    )
    max_cost: int = setting(
        DEFAULTS.cost,
        "The highest cost of an operation: about the number of fields of its answer, page sizes multiplied.",
        metavar="COUNT",
        production=STRICT.cost,
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_secrets()
        self.socket_mode()
        if self.only_trusted and self.trusted_documents is None:
            raise SettingsError("only-trusted: name the documents, by --trusted-documents.")
        self.zone()
        for name, check in (("allow-origins", self._check_origins), ("trusted-proxies", self._check_proxies)):
            try:
                check()
            except ValueError as error:
                raise SettingsError(f"{name}: {error}.") from None

    def _check_numbers(self) -> None:
        if not 0 <= self.port < 2**16:
            raise SettingsError(f"port: it can't be {self.port}; use 0 to 65535.")
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if (item.name.startswith("max_") or item.name == "workers") and value < 1:
                raise SettingsError(f"{flag_of(item)[2:]}: it can't be {value}; use 1 or more.")
            if item.name in _OFF_BY_0:
                if not 0 <= value < math.inf:
                    raise SettingsError(f"{flag_of(item)[2:]}: it can't be {value}; use 0 or more.")
            elif item.metadata["metavar"] == "SECONDS" and not 0 < value < math.inf:
                raise SettingsError(f"{flag_of(item)[2:]}: it can't be {value}; use more than 0.")

    def _check_origins(self) -> None:
        for origin in parts_of(self.allow_origins):
            check_origin(origin)

    def _check_proxies(self) -> None:
        check_proxies(parts_of(self.trusted_proxies), over_unix_socket=self.unix_socket is not None)

    def _check_secrets(self) -> None:
        for name, shortest in (("token", SHORTEST_TOKEN), ("session_key", SHORTEST_KEY)):
            if (secret := getattr(self, name)) is not None and len(secret) < shortest:
                raise SettingsError(
                    f"{name.replace('_', '-')}: it is too short; use {shortest} characters or more, of random."
                )

    @property
    def is_demo(self) -> bool:
        return self.demo or self.demo_still

    @property
    def is_demo_alive(self) -> bool:
        return self.demo and not self.demo_still

    @property
    def has_login(self) -> bool:
        """Whether a way to log in is named."""
        return self.token is not None or self.token_file is not None or self.jwks is not None

    def socket_mode(self) -> int:
        try:
            mode = int(self.unix_socket_mode, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= _ALL_MODES:
            raise SettingsError(
                f"unix-socket-mode: {self.unix_socket_mode!r} is no mode of a file; use one such as 660."
            )
        return mode

    def zone(self) -> tzinfo | None:
        """None is this machine's time zone."""
        if self.time_zone is None:
            return None
        try:
            return ZoneInfo(self.time_zone)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            raise SettingsError(f"time-zone: {self.time_zone!r} is unknown here; use one such as UTC.") from None

    def origins(self) -> frozenset[str]:
        return frozenset(parts_of(self.allow_origins))

    def hosts(self) -> frozenset[str]:
        return frozenset(parts_of(self.allow_hosts))

    def limits(self) -> Limits:
        return Limits(**{item.name: getattr(self, f"max_{item.name}") for item in dataclasses.fields(Limits)})

    def as_environ(self) -> dict[str, str]:
        """For processes that are started with these settings."""
        return {
            variable_of(item): text_of(value)
            for item in dataclasses.fields(self)
            if (value := getattr(self, item.name)) is not None
        }


def variable_of(item: dataclasses.Field[Any]) -> str:
    return PREFIX + item.name.upper()


def text_of(value: object) -> str:
    """As it is read from the environment, and from the command line."""
    return os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_of(item: dataclasses.Field[Any]) -> str:
    return "--" + item.name.replace("_", "-")


def read_settings(environ: Mapping[str, str], arguments: argparse.Namespace | None = None) -> Settings:
    """From the command line, else the environment, else the profile's defaults. Raises `SettingsError`."""
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
        raise SettingsError(f"{variable_of(item)}: {shown} can't be read as {_kind_of(item)}.") from None
    if (choices := item.metadata["choices"]) and text not in choices:
        raise SettingsError(f"{variable_of(item)}: {text!r} is none of {', '.join(choices)}.")
    return value


def boolean(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(path) for path in text.split(os.pathsep) if path)


_TYPES: Mapping[str, Any] = {
    "str": str,
    "str | None": str,
    "Path | None": Path,
    "tuple[Path, ...] | None": paths,
    "int": int,
    "float": float,
    "bool": boolean,
}


def type_of(item: dataclasses.Field[Any]) -> Any:
    return _TYPES[str(item.type)]


def _kind_of(item: dataclasses.Field[Any]) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}[str(item.type)]
