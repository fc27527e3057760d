"""Opens the database that the settings name, and fills it for a demonstration."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from uuid import uuid4

from server.database.backends.base import Progress, ResultsBackend, no_progress
from server.database.backends.codec import CURRENT, LEGACY, Dialect
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.tls import TLS
from server.database.backends.write_set import WriteSet
from server.database.demo_data import demo_records
from server.database.demo_histories import demo_histories
from server.database.errors import WrongDatabaseError
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import Model
from server.settings import Settings, SettingsError

_DIALECTS: Mapping[str | None, Dialect] = {"current": CURRENT, "legacy": LEGACY}
_GC_THRESHOLDS = 20_000, 25, 10
"""For `gc.set_threshold`. To collect so many new objects takes some 10 ms, when they are records. All that is new since
the start is collected much more seldom, since that takes 80 ms if meanwhile each of 100,000 records has changed."""


@asynccontextmanager
async def open_database(settings: Settings, progress: Progress = no_progress) -> AsyncIterator[MerlinDatabase]:
    """Opens the database that the settings name: it is read once, and kept fresh until the block ends.

    Raises `BackendError` and `SettingsError`.
    """
    roots = workspace_roots_of(settings)
    backend = backend_of(settings)
    if settings.is_demo and backend.kind == "memory":
        await fill_with_demo(backend, settings.zone())
    async with AsyncExitStack() as stack:
        gc.disable()  # records are no garbage: to collect while they are read takes a fifth of the time
        try:
            opening = opened(
                backend,
                time_zone=settings.zone(),
                dialect=_DIALECTS.get(settings.dialect),
                compare_interval=settings.compare_interval,
                workspace_roots=roots,
                progress=progress,
                read_only=settings.read_only,
            )
            database = await stack.enter_async_context(opening)
        finally:
            gc.enable()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        yield database


def workspace_roots_of(settings: Settings) -> tuple[Path, ...]:
    """The workspace roots as absolute paths. Raises `SettingsError` for one that is not a directory."""
    roots = tuple(root.absolute() for root in settings.workspace_root or ())
    for root in roots:
        try:
            is_there = root.is_dir()
        except OSError:  # such as a missing permission
            is_there = False
        if not is_there:
            raise SettingsError(
                f"workspace-root: {str(root)!r} is not a directory here; name one that this server can reach."
            )
    return roots


def backend_of(settings: Settings) -> ResultsBackend:
    """The backend of the database that the settings name, not yet opened. Raises `WrongDatabaseError`."""
    if settings.database is None:
        raise WrongDatabaseError("No database is named: pass --database URL.")
    options = BackendOptions(
        password=first_line(settings.database_password_file),
        tls=TLS(
            ca_certs=_text(settings.database_ca_certs),
            certfile=_text(settings.database_certfile),
            keyfile=_text(settings.database_keyfile),
            cert_reqs=settings.database_cert_reqs,
        ),
        poll_interval=settings.database_poll_interval,
        min_replicas=settings.min_replicas,
        create=settings.create,
        read_only=settings.read_only,
    )
    return make_backend(settings.database, options)


async def fill_with_demo(backend: ResultsBackend, time_zone: tzinfo | None) -> Sequence[Model]:
    """Writes the sample data, and returns its records.

    Raises `WrongDatabaseError` for a database that holds records of Merlin.
    """
    async with aclosing(backend.load()) as batches:
        async for batch in batches:
            if batch:
                raise WrongDatabaseError(
                    f"{backend.connection} holds records: sample data goes into an empty database only."
                )
    now = datetime.now(time_zone).astimezone(time_zone)
    records = demo_records(now.replace(tzinfo=None))  # naive, as Merlin stores times
    await backend.insert(records)
    notes = demo_histories(records, now)
    await backend.commit(WriteSet(str(uuid4()), {}, {}, {}, frozenset(), {}, notes=notes))
    return records


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def first_line(path: Path | None) -> str | None:
    """Of a file with a password; None if none is named. Raises `WrongDatabaseError`."""
    if path is None:
        return None
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise WrongDatabaseError(f"Can't read the password file {path}: {error.__class__.__name__}.") from None
    return lines[0].strip() if lines else ""
