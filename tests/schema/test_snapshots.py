"""The begin and the end of a snapshot: a client that subscribes again knows from them what is gone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.database.merlin_database import MerlinDatabase
from server.database.models import Entry, RunStatus
from server.database.workspaces import TaskStatus
from tests.support.made_up_workspaces import MadeUpReader, workspace_of
from tests.support.records import run, study, uid
from tests.support.subscribers import CHANGES, RUN_CHANGES, Subscriber, copy_of, key_of, put, subscribed

pytestmark = pytest.mark.anyio

TASK_CHANGES = "subscription ($run: ID!) { change: taskChanges(runId: $run, snapshot: true) { kind id: taskId } }"
BOTH = ["SNAPSHOT_BEGIN", "SNAPSHOT_END"]
KINDS = """
subscription ($kinds: [EntityKind!]) { change: changes(kinds: $kinds, snapshot: true) { entityKind kind id: entityId } }
"""


@pytest.mark.parametrize("document", [CHANGES, RUN_CHANGES])
async def test_an_empty_snapshot_ends_too(document: str) -> None:
    """Else a client would wait for it, and keep what it had before."""
    async with subscribed(copy_of(), document, snapshot=True) as subscriber:
        assert await subscriber.read() == []
        assert subscriber.marks == BOTH


@pytest.mark.parametrize("document", [CHANGES, RUN_CHANGES])
async def test_without_a_snapshot_there_are_no_marks(document: str) -> None:
    """Nothing that exists is told, either."""
    async with subscribed(copy_of(run(1)), document) as subscriber:
        assert await subscriber.read() == []
        assert subscriber.marks == []


@pytest.mark.parametrize(
    ("kinds", "told"), [(None, "STUDY"), (["RUN"], "RUN"), (["RUN", "STUDY"], "RUN"), ([], "STUDY")]
)
async def test_a_mark_has_the_first_kind_that_was_asked_for(kinds: list[str] | None, told: str) -> None:
    """So that a client which sorts its events by kind does not overlook it."""
    database = copy_of(run(1), study(2, "s"))
    async with subscribed(database, KINDS, kinds=kinds) as subscriber:
        said = await subscriber.read_any()
    assert said == {"data": {"change": {"entityKind": told, "kind": "SNAPSHOT_BEGIN", "id": ""}}}


async def test_tasks_that_are_known_come_between_the_marks() -> None:
    """As soon as their files were read."""
    database = copy_of(run(1))
    MadeUpReader(database.observations, {uid(1): workspace_of(a=[TaskStatus.FAILED] * 2)})
    async with subscribed(database, TASK_CHANGES, run=uid(1)) as subscriber:
        assert len(await subscriber.read()) == 2
        assert subscriber.marks == BOTH


async def test_where_no_files_can_be_read_a_snapshot_of_tasks_is_empty() -> None:
    """What is found later is new."""
    database = copy_of(run(1))
    reader = MadeUpReader(database.observations, {})
    async with subscribed(database, TASK_CHANGES, run=uid(1)) as subscriber:
        assert await subscriber.read() == []
        assert subscriber.marks == BOTH
        reader.workspaces[uid(1)] = workspace_of(a=[TaskStatus.FAILED])
        reader.observe(uid(1))
        assert [said["data"]["change"]["kind"] for said in await subscriber.read()] == ["CREATED"]


# --- the recipe of docs/subscribing.md ---------------------------------------------------------------------------

Move = tuple[str, int]
MOVES = st.lists(
    st.tuples(st.sampled_from(["put", "finish", "delete", "read", "read one", "again"]), st.integers(1, 4))
)


class Client:
    """Keeps a map by id, over all of its subscriptions."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self._stale: set[str] = set()

    def hear(self, change: dict[str, Any]) -> None:
        id_ = change["id"]
        match change["kind"]:
            case "SNAPSHOT_BEGIN":
                self._stale = set(self.runs)
            case "SNAPSHOT_END":
                for gone in self._stale:
                    del self.runs[gone]
                self._stale = set()
            case "LEFT" | "DELETED":
                self.runs.pop(id_, None)
                self._stale.discard(id_)
            case _:
                self.runs[id_] = change["node"]
                self._stale.discard(id_)


def subscriptions_of(moves: list[Move]) -> list[list[Move]]:
    """The moves during each subscription."""
    parts: list[list[Move]] = [[]]
    for move in moves:
        if move[0] == "again":
            parts.append([])
        else:
            parts[-1].append(move)
    return parts


def change(database: MerlinDatabase, move: str, number: int) -> None:
    match move:
        case "put":
            put(database, run(number, run_status=RunStatus.RUNNING))
        case "finish":
            put(database, run(number, run_status=RunStatus.COMPLETED))
        case "delete":
            database.read_model.apply([Entry(key_of(run(number)), None)])


async def hear(client: Client, subscriber: Subscriber, *, only_one: bool = False) -> None:
    while (said := await subscriber.read_any()) is not None:
        client.hear(said["data"]["change"])
        if only_one:
            return


@given(MOVES, st.booleans())
def test_a_map_by_id_is_right_however_often_its_client_subscribes_again(moves: list[Move], has_filter: bool) -> None:
    """Also if it was cut off in the middle of a snapshot: once it has read everything, it has what exists."""

    async def follow() -> None:
        database, client = copy_of(run(1), run(2)), Client()
        given_filter = {"isFinished": False} if has_filter else None
        parts = subscriptions_of(moves)
        for part in parts:
            async with subscribed(database, RUN_CHANGES, snapshot=True, filter=given_filter) as subscriber:
                for move, number in part:
                    change(database, move, number)
                    if move.startswith("read"):
                        await hear(client, subscriber, only_one=move == "read one")
                if part is parts[-1]:
                    await hear(client, subscriber)
        exist = database.read_model.runs.records
        wanted = {id_ for id_, it in exist.items() if not has_filter or it.run_status is not RunStatus.COMPLETED}
        assert {id_: node["status"] for id_, node in client.runs.items()} == {
            id_: exist[id_].run_status.name for id_ in wanted
        }

    anyio.run(follow)
