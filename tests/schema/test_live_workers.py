"""What responses say of living workers, and of the sources of what this server sees itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase, opened
from server.database.observations import LiveWorker
from server.database.sizes import sizes_of
from server.database.workspaces import Source
from tests.support.asking import OPERATIONS, ask, execute
from tests.support.records import memory_of, physical_worker, uid
from tests.support.subscribers import subscribed
from tests.support.work import fields_of

pytestmark = pytest.mark.anyio

NAME = "celery@sim.%node1"
SEEN_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OBSERVED = "isAlive lastSeenAt livePid activeTasks processedTasks loadAverage"
WORKER = f'{{ physicalWorker(id: "{uid(21)}") {{ {OBSERVED} }} }}'
LIVE_WORKERS = """{ liveWorkers {
  name host pid isAlive lastSeenAt activeTasks processedTasks loadAverage physicalWorker { id }
} }"""
ALIVE = LiveWorker(NAME, "2", True, SEEN_AT, 3, 7, (0.5, 0.25, 0.0))
DEAD = LiveWorker(NAME, "1", False, SEEN_AT, None, 5, None)
NOTHING = dict.fromkeys(OBSERVED.split())


@pytest.fixture
async def listening() -> AsyncIterator[MerlinDatabase]:
    """A database with one worker, while somebody listens."""
    async with opened(await memory_of(physical_worker(21, NAME))) as database:
        database.observations.set_source(Source.CELERY_EVENTS, works=True)
        yield database


async def test_a_living_worker(listening: MerlinDatabase) -> None:
    """Its first process stands for it; before it is heard of, all is null."""
    assert await ask(listening, WORKER) == {"physicalWorker": NOTHING}
    listening.observations.set_workers(NAME, [ALIVE, DEAD])
    assert await ask(listening, WORKER) == {
        "physicalWorker": {
            "isAlive": True,
            "lastSeenAt": "2026-01-02T03:04:05+00:00",
            "livePid": "2",
            "activeTasks": 3,
            "processedTasks": 7,
            "loadAverage": [0.5, 0.25, 0.0],
        }
    }


async def test_a_dead_worker(listening: MerlinDatabase) -> None:
    """It has no process and no tasks now; when it was seen, and what it did until then, is still known."""
    listening.observations.set_workers(NAME, [DEAD])
    known = {"isAlive": False, "lastSeenAt": "2026-01-02T03:04:05+00:00", "processedTasks": 5}
    assert await ask(listening, WORKER) == {"physicalWorker": NOTHING | known}


async def test_while_nobody_listens(listening: MerlinDatabase) -> None:
    """It is unknown who lives, and what they do now."""
    listening.observations.set_workers(NAME, [ALIVE])
    listening.observations.set_source(Source.CELERY_EVENTS, works=False)
    known = {"lastSeenAt": "2026-01-02T03:04:05+00:00", "processedTasks": 7}
    assert await ask(listening, WORKER) == {"physicalWorker": NOTHING | known}
    assert await ask(listening, LIVE_WORKERS) == {"liveWorkers": []}


async def test_live_workers(listening: MerlinDatabase) -> None:
    """All processes by name, also those that no record names."""
    listening.observations.set_workers("celery@overlap", [LiveWorker("celery@overlap", None, True, SEEN_AT)])
    listening.observations.set_workers(NAME, [ALIVE, DEAD])
    seen = {"lastSeenAt": "2026-01-02T03:04:05+00:00"}
    recorded = {"name": NAME, "host": "node1", **seen, "physicalWorker": {"id": uid(21)}}
    nothing = {"activeTasks": None, "processedTasks": None, "loadAverage": None}
    assert (await ask(listening, LIVE_WORKERS))["liveWorkers"] == [
        {"name": "celery@overlap", "host": None, "pid": None, "isAlive": True, **seen, **nothing}
        | {"physicalWorker": None},
        {**recorded, "pid": "2", "isAlive": True, "activeTasks": 3, "processedTasks": 7}
        | {"loadAverage": [0.5, 0.25, 0.0]},
        {**recorded, **nothing, "pid": "1", "isAlive": False, "processedTasks": 5},
    ]


async def test_they_are_compiled(listening: MerlinDatabase) -> None:
    """No value of theirs makes a compiled function give up."""
    listening.observations.set_workers(NAME, [ALIVE, DEAD])
    engine = Engine(make_schema())
    for text in (WORKER, LIVE_WORKERS, "{ database { sources } }"):
        assert not (await execute(listening, text, None, engine)).errors
    counts = engine.execution_counts
    assert (counts.compiled, counts.not_compilable, counts.bailed_out) == (3, 0, 0)


async def test_what_they_cost(listening: MerlinDatabase) -> None:
    """As many as are remembered, about: no operation has more fields than it costs."""
    for number in range(0, 100, 10):
        name = f"celery@w{number}"
        listening.observations.set_workers(name, [LiveWorker(name, str(pid), True, SEEN_AT) for pid in range(number)])
        operation = OPERATIONS.parse(LIVE_WORKERS)
        context = context_of(listening)
        fields = fields_of(OPERATIONS._schema, operation, None, context)
        assert fields is not None
        assert fields <= OPERATIONS._cost(operation, OPERATIONS._documents.variables(operation, None), context)
    assert listening.observations.worker_count == 450
    assert 450 <= listening.sizes.live_workers <= 512
    listening.observations.set_workers("celery@w90", [])
    assert listening.observations.worker_count == 360
    assert sizes_of(listening.read_model).live_workers == 0


async def test_the_sources(listening: MerlinDatabase) -> None:
    """Those that work now, in the order of the enum."""
    for source in (Source.OWN_HISTORY, Source.BROKER_QUEUES):
        listening.observations.set_source(source, works=True)
    sources = {"sources": ["CELERY_EVENTS", "BROKER_QUEUES", "OWN_HISTORY"]}
    assert await ask(listening, "{ database { sources } }") == {"database": sources}


async def test_followers_hear_of_them(listening: MerlinDatabase) -> None:
    """Those of the worker, when something that matters changed; live queries, of every beat."""
    changes = (
        f'subscription {{ changes(ids: ["{uid(21)}"]) {{ kind node {{ ... on PhysicalWorker {{ isAlive }} }} }} }}'
    )
    live = f'subscription {{ live(throttle: 0) {{ physicalWorker(id: "{uid(21)}") {{ processedTasks }} }} }}'
    async with subscribed(listening, changes) as follower, subscribed(listening, live) as query:
        assert (await query.wait())["data"]["live"]["physicalWorker"] == {"processedTasks": None}
        listening.observations.set_workers(NAME, [ALIVE])
        assert (await query.wait())["data"]["live"]["physicalWorker"] == {"processedTasks": 7}
        assert await follower.read() == []
        listening.observations.set_workers(NAME, [DEAD], [uid(21)])
        change = (await follower.wait())["data"]["changes"]
        assert change == {"kind": "UPDATED", "node": {"isAlive": False}}


def context_of(database: MerlinDatabase) -> Context:
    return Context(database, "1", Role.ADMIN)
