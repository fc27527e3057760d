"""Subscribers of the tests: what they are told, and what stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any, TypeAlias

from schema.context import Context
from schema.operation import GraphQLResponse
from schema.roles import Role
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase
from server.database.models import (
    KINDS,
    Entry,
    Key,
    Model,
)
from tests.support.asking import OPERATIONS

DEADLINE = 20.0
MARKS = ("SNAPSHOT_BEGIN", "SNAPSHOT_END")
Said: TypeAlias = dict[str, Any]

CHANGES = """
subscription ($kinds: [EntityKind!], $ids: [ID!], $snapshot: Boolean! = false) {
  change: changes(kinds: $kinds, ids: $ids, snapshot: $snapshot) {
    kind entityKind id: entityId revision
    node { id ... on Study { name } ... on Run { workspace status } ... on LogicalWorker { name }
           ... on PhysicalWorker { name } }
  }
}
"""
RUN_CHANGES = """
subscription ($filter: RunFilter, $snapshot: Boolean! = false) {
  change: runChanges(filter: $filter, snapshot: $snapshot) {
    kind id: runId revision node: run { id workspace status }
  }
}
"""


class Subscriber:
    """Reads when told to, and keeps what it was told of each entity. The marks of a snapshot it keeps apart."""

    def __init__(self, database: MerlinDatabase, document: str, **variables: Any) -> None:
        operation = OPERATIONS.parse(document)
        self.answers = OPERATIONS.execute(operation, variables, Context(database, "1", Role.ADMIN))
        self.known: dict[str, Any] = {}
        self.marks: list[str] = []
        self._next: asyncio.Task[GraphQLResponse] | None = None

    async def read(self) -> list[Said]:
        """All that it can be told now."""
        told = []
        while (answer := await self.read_one()) is not None:
            told.append(answer)
        return told

    async def read_one(self) -> Said | None:
        while (said := await self.read_any()) is not None and self._is_mark(said):
            pass
        return said

    async def read_any(self) -> Said | None:
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self.answers))
        for _ in range(10):  # steps of the loop, which an answer that is there needs
            if self._next.done():
                break
            await asyncio.sleep(0)
        else:
            return None
        answer = self._next.result()
        self._next = None
        return as_said(answer)

    async def wait(self) -> Said:
        """The next answer, whenever it comes."""
        async with asyncio.timeout(DEADLINE):
            while self._is_mark(said := as_said(await (anext(self.answers) if self._next is None else self._take()))):
                pass
            return said

    def _is_mark(self, said: Said) -> bool:
        change = said["data"].get("change")
        is_mark = change is not None and change["kind"] in MARKS
        if is_mark:
            assert change["id"] == ""
            self.marks.append(change["kind"])
        return is_mark

    async def _take(self) -> GraphQLResponse:
        assert self._next is not None
        task, self._next = self._next, None
        return await task

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self.answers.aclose()


def as_said(answer: GraphQLResponse) -> Said:
    assert answer.errors == []
    said: Said = json.loads(answer.encoded)
    return said


@asynccontextmanager
async def subscribed(database: MerlinDatabase, document: str, **variables: Any) -> AsyncGenerator[Subscriber]:
    subscriber = Subscriber(database, document, **variables)
    try:
        yield subscriber
    finally:
        await subscriber.close()


def key_of(record: Model) -> Key:
    return Key(KINDS[type(record)], record.id)


def put(database: MerlinDatabase, *records: Model) -> None:
    """In one step, as the feed does."""
    database.read_model.apply(Entry(key_of(record), record) for record in records)


def copy_of(*records: Model) -> MerlinDatabase:
    """A database whose copy the test changes itself."""
    database = MerlinDatabase(MemoryBackend(), "1", UTC)
    put(database, *records)
    return database


def kinds_and_ids(answers: list[Said]) -> list[tuple[str, str]]:
    return [(answer["data"]["change"]["kind"], answer["data"]["change"]["id"]) for answer in answers]
