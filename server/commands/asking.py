"""Asks questions in GraphQL: a running server, or a database that is opened for it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.limits import DEFAULTS
from schema.operation import OperationError
from schema.roles import Role
from server import __version__
from server.contract.sources import PROTECTED
from server.database.merlin_database import MerlinDatabase
from server.database.workspaces import Source
from server.errors import UsageError
from server.http_client import SCHEMES, FetchError, begin_to_fetch
from server.open_database import open_database
from server.open_work import open_work
from server.settings import Settings

_SECONDS = 30.0
_MAX_SIZE = 2**26
"""Bytes of a response."""
_FIRST_READING = 3.0
"""Seconds that the first reading may take: a living worker tells of itself every two."""


class Answering(Protocol):
    """Whom questions are asked."""

    async def answer(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of the response to a query. Raises `ExpectedError`."""

    async def observe(self, run_id: str) -> None:
        """Waits until what can be observed of a run was observed once, or takes too long."""


class RunningServer(Answering):
    """A server at a URL."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Raises `UsageError`."""
        self._url = _endpoint(url)
        self._headers = headers

    async def answer(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        content = json.dumps({"query": document, "variables": variables}).encode()
        fetching = begin_to_fetch(self._url, self._headers, seconds=_SECONDS, largest=_MAX_SIZE, content=content)
        try:
            async with asyncio.timeout(_SECONDS):  # `wait_for` of Python 3.11 may swallow a Ctrl-C
                content = await asyncio.wrap_future(fetching)
            response = json.loads(content)
        except FetchError as error:
            hint = f" {PROTECTED}" if error.status == HTTPStatus.UNAUTHORIZED else ""
            raise FetchError(f"{error}{hint}", error.status) from None
        except TimeoutError:
            raise FetchError(f"{self._url}: it took longer than {_SECONDS:g} s.") from None
        except ValueError:
            response = None
        if not isinstance(response, dict) or not ("data" in response or "errors" in response):
            raise UsageError(f"{self._url}: this is no GraphQL server: pass the address of a merlin-graphql server.")
        if response.get("errors") or not isinstance(response.get("data"), dict):
            raise _refused(response.get("errors"), self._url)
        return dict(response["data"])

    async def observe(self, run_id: str) -> None:
        pass  # a server observes all the time


class OpenedDatabase(Answering):
    """A database, and what is observed of the work beside it."""

    def __init__(self, database: MerlinDatabase, sources: Collection[Source]) -> None:
        """`sources`: those that are expected to work."""
        self._database = database
        self._sources = sources
        self._engine = Engine(make_schema(), replace(DEFAULTS, cost=sys.maxsize), compiled=False)
        self._context = Context(database, __version__, Role.READ)

    async def answer(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with aclosing(
                self._engine.execute(self._engine.parse(document), variables, self._context)
            ) as responses:
                response = await anext(responses)
        except OperationError as error:
            raise _refused(error.errors, "the question") from None
        if response.errors or response.data is None:
            raise _refused(response.errors, "the question")
        return dict(json.loads(response.encoded)["data"])

    async def observe(self, run_id: str) -> None:
        observations = self._database.observations
        try:
            async with asyncio.timeout(_FIRST_READING):
                while True:
                    changed = observations.notifier.next
                    if self._has_observed(run_id):
                        return
                    await changed.wait()
        except TimeoutError:
            pass

    def _has_observed(self, run_id: str) -> bool:
        """Whether the sources work, and have told of the run's workers and queues if it is active."""
        observations, run = self._database.observations, self._database.runs.by_id(run_id)
        if not observations.has(*self._sources):
            return False
        if run is None or run.is_finished:
            return True
        workers = [process.name for worker in run.workers for process in worker.physical_workers]
        return (
            Source.CELERY_EVENTS not in self._sources or all(observations.worker(name) is not None for name in workers)
        ) and (
            Source.BROKER_QUEUES not in self._sources
            or all(observations.queue(name).waiting is not None for name in run.queues)
        )


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[OpenedDatabase]:
    """Opens the database that the settings name, and what observes the work. Raises `ExpectedError`."""
    async with open_database(settings) as database, open_work(settings, database) as sources:
        yield OpenedDatabase(database, [source.source for source in sources])


def _endpoint(url: str) -> str:
    """The GraphQL endpoint at an address. Raises `UsageError`, which does not repeat it: it may hold a token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not url.startswith(SCHEMES) or not parts.hostname:
        raise UsageError("--server: pass the address of a server, such as http://127.0.0.1:8000.")
    if parts.query or parts.username or parts.fragment:
        raise UsageError(f"--server: pass the address only, such as http://127.0.0.1:8000. {PROTECTED}")
    return url.rstrip("/") + ("/graphql" if parts.path in ("", "/") else "")


def _refused(errors: Any, whom: str) -> UsageError:
    """Of the first error: it repeats nothing that the user did not send."""
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    extensions = first.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else None
    told = str(first.get("message", "there is no data"))
    if code == "GRAPHQL_VALIDATION_FAILED":
        return UsageError(f"{whom}: the server is of another version than this command ({__version__}): {told}")
    return UsageError(f"{whom} is refused: {told}")
