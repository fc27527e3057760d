"""What `serve`, `integrity` and `status` share: the settings of a command line, and the database that they name."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging.config
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from server.commands.flags import mistyped
from server.database.backends.sqlite_path import path_of
from server.database.errors import DatabaseError
from server.database.merlin_config import find_broker, find_database, local_database
from server.errors import UsageError
from server.observability.logs import logging_config
from server.open_database import backend_of, workspace_roots_of
from server.open_work import broker_of
from server.settings import Settings, read_settings
from server.work.broker import make_broker

LOG = logging.getLogger(__name__)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command line; logs follow them from now on. Raises `SettingsError`."""
    settings = read_settings(os.environ, options)
    logging.config.dictConfig(dict(logging_config(settings.log_format)))
    for line in mistyped(os.environ):
        LOG.warning(line)
    return settings


def with_database(settings: Settings, stack: contextlib.ExitStack) -> tuple[Settings, str]:
    """The settings with a database, and the source of its URL. Merlin's own is created if missing, as Merlin does."""
    if settings.is_demo:
        return _with_demo(settings, stack)
    if settings.database is not None:
        return dataclasses.replace(settings, create=settings.create or _is_merlins(settings.database)), "as given"
    try:
        home, here = Path.home(), Path.cwd()
    except (OSError, RuntimeError):
        raise UsageError(
            "Merlin's configuration can't be found without a home and a working directory: pass --database URL."
        ) from None
    found = find_database(here, home)
    if found.url.startswith("sqlite:"):
        with contextlib.suppress(OSError):  # opening the database reports what is wrong
            (home / ".merlin").mkdir(exist_ok=True)
    return dataclasses.replace(settings, database=found.url, create=True), f"from {found.source}"


def _with_demo(settings: Settings, stack: contextlib.ExitStack) -> tuple[Settings, str]:
    """With a folder for the workspaces of the sample data as the first root, but for a demo that needs no disk."""
    given = workspace_roots_of(settings)
    settings = dataclasses.replace(settings, create=True)
    if settings.database is not None and backend_of(settings).kind == "memory":
        return settings, "as given"
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="merlin-graphql-demo-")))
    workspaces = directory / "workspaces"
    workspaces.mkdir()
    settings = dataclasses.replace(settings, workspace_root=(workspaces, *given))
    if settings.database is not None:
        return settings, "as given"
    return dataclasses.replace(settings, database=f"sqlite:///{directory}/demo.db"), "sample data, deleted at the end"


def with_broker(settings: Settings, named: Settings) -> Settings:
    """The settings with the broker that Merlin's configuration names, unless `--broker` or `--demo` is given.

    `named`: the settings before Merlin's own database was added to them. A broker that can't be used is a warning: the
    database is served without it. Raises `SettingsError` for that of `--broker`.
    """
    if broker_of(settings) is not None or settings.is_demo:
        return settings
    try:
        found = find_broker(Path.cwd(), Path.home(), named.database)
        if found is None:
            return settings
        make_broker(found.url)
    except (OSError, RuntimeError):  # there is no home, or no working directory
        return settings
    except UsageError as error:
        LOG.warning("Without the queues of a broker: %s", error)
        return settings
    return dataclasses.replace(settings, broker=found.url, broker_password_file=None)


def _is_merlins(url: str) -> bool:
    """Whether it is the SQLite file of `merlin run --local`."""
    try:
        return url.startswith("sqlite:") and path_of(url).absolute() == local_database(Path.home())
    except RuntimeError:  # there is no home
        return False


@contextlib.contextmanager
def naming(source: str | None) -> Iterator[None]:
    """Puts the source of the database's URL in front of the message of a database error."""
    try:
        yield
    except DatabaseError as error:
        if source is None:
            raise
        raise UsageError(f"{source.removeprefix('from ')}: {error}") from None


def print_database(settings: Settings, source: str, file: TextIO) -> None:
    """Prints which database is used: one from a configuration before anything, such as a password, is sent to it."""
    print(f"Merlin's database: {backend_of(settings).connection} ({source})", file=file, flush=True)


def check_exists(settings: Settings) -> None:
    """Refuses a missing file: to create it would show a mistyped path as an empty database. Raises `UsageError`."""
    url = settings.database or ""
    if url.startswith("sqlite:") and not path_of(url).exists():
        raise UsageError(f"There is no database {path_of(url)}.")
