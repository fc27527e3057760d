"""What can be configured: each setting once, with its flag, its environment variable and its meaning."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schema.limits import DEFAULTS, Limits

PREFIX = "MERLIN_GRAPHQL_"


class SettingsError(Exception):
    """A setting that can't be meant, in one line."""


def setting(
    default: Any, meaning: str, *, metavar: str | None = None, choices: tuple[str, ...] = (), secret: bool = False
) -> Any:
    return field(
        default=default, repr=not secret, metadata={"meaning": meaning, "metavar": metavar, "choices": choices}
    )


@dataclass(frozen=True, slots=True)
class Settings:
    database: str | None = setting(
        None,
        "The database: redis://, rediss://, unix://, redis+sentinel://, sqlite:///PATH or memory://. "
        "Without it: the one that Merlin's own configuration (app.yaml) names, else Merlin's local SQLite file.",
        metavar="URL",
        secret=True,
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
    dialect: str | None = setting(
        None,
        "In which dialect new records are written: current (Merlin 2.0.0b3 on) or legacy (up to 2.0.0b2). "
        "Without it: as the records already there.",
        choices=("current", "legacy"),
    )
    time_zone: str | None = setting(
        None,
        "The time zone of the times that Merlin stores, such as Europe/Zurich. Without it: this machine's.",
        metavar="NAME",
    )
    host: str = setting("127.0.0.1", "The address to listen on.", metavar="ADDRESS")
    port: int = setting(8000, "The port to listen on; 0 takes a free one.", metavar="PORT")
    workers: int = setting(1, "How many server processes; each holds a copy of the database.", metavar="COUNT")
    demo: bool = setting(
        False,
        "Fill the database with sample data. Without a database given: one of its own, gone at the end. "
        "A database that holds records is refused.",
    )
    allow_origins: str | None = setting(
        None,
        "Whose pages may open websockets, beside those of the server's own address: such as https://dash.example.org; "
        "several with commas between them.",
        metavar="ORIGINS",
    )
    trusted_documents: Path | None = setting(
        None,
        "Operations that clients may name by the SHA-256 of their documents: a folder of .graphql files, or a manifest "
        "of `merlin-graphql operations manifest`.",
        metavar="DIR|MANIFEST",
    )
    only_trusted: bool = setting(False, "Answer the trusted documents only, and refuse every other.")
    max_characters: int = setting(DEFAULTS.characters, "The longest document that is answered.", metavar="COUNT")
    max_tokens: int = setting(DEFAULTS.tokens, "The most tokens of a document.", metavar="COUNT")
    max_directives: int = setting(DEFAULTS.directives, "The most directives of a document.", metavar="COUNT")
    max_depth: int = setting(DEFAULTS.depth, "The deepest nesting of an operation's fields.", metavar="COUNT")
    max_root_fields: int = setting(DEFAULTS.root_fields, "The most root fields of an operation.", metavar="COUNT")
    max_aliases: int = setting(DEFAULTS.aliases, "The most aliases of an operation.", metavar="COUNT")
    max_cost: int = setting(
        DEFAULTS.cost,
        "The highest cost of an operation: about the number of fields of its answer, page sizes multiplied.",
        metavar="COUNT",
    )
    no_auth: bool = setting(False, "Serve without authentication.")

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise SettingsError(f"port: {self.port} is none; use 0 to 65535.")
        if self.workers < 1:
            raise SettingsError(f"workers: {self.workers} is none; use 1 or more.")
        if not 0 < self.database_poll_interval < math.inf:
            raise SettingsError(f"database-poll-interval: {self.database_poll_interval} is none; use more than 0.")
        for item in dataclasses.fields(self):
            if item.name.startswith("max_") and getattr(self, item.name) < 1:
                raise SettingsError(f"{flag_of(item)[2:]}: {getattr(self, item.name)} is none; use 1 or more.")
        if self.only_trusted and self.trusted_documents is None:
            raise SettingsError("only-trusted: name the documents, by --trusted-documents.")
        self.zone()

    def zone(self) -> tzinfo | None:
        """None is this machine's time zone."""
        if self.time_zone is None:
            return None
        try:
            return ZoneInfo(self.time_zone)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            raise SettingsError(f"time-zone: {self.time_zone!r} is unknown here; use one such as UTC.") from None

    def origins(self) -> frozenset[str]:
        return frozenset(filter(None, (text.strip() for text in (self.allow_origins or "").split(","))))

    def limits(self) -> Limits:
        return Limits(**{item.name: getattr(self, f"max_{item.name}") for item in dataclasses.fields(Limits)})

    def as_environ(self) -> dict[str, str]:
        """For processes that are started with these settings."""
        return {
            variable_of(item): str(value)
            for item in dataclasses.fields(self)
            if (value := getattr(self, item.name)) is not None
        }


def variable_of(item: dataclasses.Field[Any]) -> str:
    return PREFIX + item.name.upper()


def flag_of(item: dataclasses.Field[Any]) -> str:
    return "--" + item.name.replace("_", "-")


def read_settings(environ: Mapping[str, str], arguments: argparse.Namespace | None = None) -> Settings:
    """From the command line, else the environment, else the defaults. Raises `SettingsError`."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Settings):
        given = None if arguments is None else getattr(arguments, item.name, None)
        text = environ.get(variable_of(item)) or None
        if given is not None:
            values[item.name] = given
        elif text is not None:
            try:
                values[item.name] = _type_of(item)(text)
            except ValueError:
                raise SettingsError(f"{variable_of(item)}: {text!r} can't be read as {_kind_of(item)}.") from None
            if (choices := item.metadata["choices"]) and text not in choices:
                raise SettingsError(f"{variable_of(item)}: {text!r} is none of {', '.join(choices)}.")
    return Settings(**values)


DATABASE = tuple(
    item.name for item in dataclasses.fields(Settings) if item.name.startswith(("database", "dialect", "time_zone"))
)
"""The settings that say which database is meant, and how it is read."""


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """A flag for each setting, or for some of them."""
    for item in dataclasses.fields(Settings):
        if names is not None and item.name not in names:
            continue
        options: dict[str, Any] = {"dest": item.name, "default": None, "help": _help(item)}
        if _type_of(item) is _boolean:
            parser.add_argument(flag_of(item), action="store_true", **options)
        else:
            choices = item.metadata["choices"] or None
            parser.add_argument(
                flag_of(item), type=_type_of(item), metavar=item.metadata["metavar"], choices=choices, **options
            )


def _help(item: dataclasses.Field[Any]) -> str:
    default = "" if item.default in (None, False) else f" Default: {item.default}."
    return f"{item.metadata['meaning']}{default} [{variable_of(item)}]"


def _boolean(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


_TYPES: Mapping[str, Any] = {
    "str": str,
    "str | None": str,
    "Path | None": Path,
    "int": int,
    "float": float,
    "bool": _boolean,
}


def _type_of(item: dataclasses.Field[Any]) -> Any:
    return _TYPES[str(item.type)]


def _kind_of(item: dataclasses.Field[Any]) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}[str(item.type)]
