"""Records of several Merlins in one database: new ones are written so that the newest that works there reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import CURRENT, LEGACY, Dialect, Raw, encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.errors import InvalidValueError
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, RunStatus, WorkerStatus
from tests.support.dialects import NAMES, OLD_NAMES, PHYSICAL, RUN, made_in, owner_in, raw_of
from tests.support.live import until
from tests.support.merlin_process import Merlin
from tests.support.raw_store import change, read_store
from tests.support.records import physical_worker, run, uid
from tests.support.servers import RedisServer
from tests.support.writers import key_of

pytestmark = pytest.mark.anyio

in_hashes = pytest.mark.parametrize("backend", ["memory", "redis", "valkey"], indirect=True)
"""In SQLite the columns of a table are the dialect of its rows."""

DOUBLE = "double"
"""Of an older Merlin, saved by 2.0.0b4 since."""


def stand(backend: ResultsBackend, record: Model, dialect: Dialect | str) -> Key:
    """A record of another Merlin's."""
    key = key_of(record)
    fields = encode(record, CURRENT if dialect == CURRENT else LEGACY)
    change(backend, key, fields | ({"run_status": "RUNNING"} if dialect == DOUBLE else {}))
    return key


def empty(backend: ResultsBackend) -> None:
    """As Merlin's flush does."""
    if isinstance(backend, MemoryBackend):
        for key in read_store(backend).records:
            backend.store(key, None)
        for names in backend._names.values():
            names.clear()
    else:
        with redis.Redis.from_url(backend.connection) as client:
            client.flushdb()


def holds(database: MerlinDatabase, keys: Collection[Key]) -> bool:
    return set(keys) == set(database.read_model.keys())


# --- new records ------------------------------------------------------------------------------------------------------


@in_hashes
@pytest.mark.parametrize(
    ("record", "dialect"),
    [
        (run(90, "/runs/oldest_20010101-000000"), CURRENT),
        (run(90, "/runs/oldest_20010101-000000"), DOUBLE),
        (physical_worker(90, "celery@zzz.host"), CURRENT),
    ],
    ids=["run", "saved run", "worker"],
)
async def test_one_record_of_the_newest_merlin_decides(
    backend: ResultsBackend, record: Model, dialect: Dialect | str
) -> None:
    """However many of an older one there are, and though all of them sort before it."""
    for number in range(1, 4):
        stand(backend, run(number, f"/runs/new_2026010{number}-000000"), LEGACY)
        stand(backend, physical_worker(10 + number, f"celery@a{number}.host"), LEGACY)
    async with opened(backend) as database:
        assert await made_in(database) == set(OLD_NAMES.values())
    async with opened(backend) as database:
        key = stand(backend, record, dialect)
        await until(lambda: database.read_model.get(key) is not None)
        assert await made_in(database) == set(NAMES.values())


@in_hashes
async def test_new_records_follow_what_comes_and_goes(backend: ResultsBackend) -> None:
    """An empty database, and one whose records do not tell, get the newest dialect; an old one gets the old one."""
    async with opened(backend) as database:
        for dialects in ([], [LEGACY], [LEGACY, CURRENT], [LEGACY], [], [CURRENT], [LEGACY]):
            keys = [stand(backend, run(number), dialect) for number, dialect in enumerate(dialects)]
            keys.append(Key(PHYSICAL, uid(9)))
            change(backend, keys[-1], {"id": uid(9), "name": "celery@without_status.host"})
            await until(partial(holds, database, keys))
            assert await made_in(database) == set((OLD_NAMES if dialects == [LEGACY] else NAMES).values())
            empty(backend)
            await until(partial(holds, database, []))


async def test_what_was_told_and_not_yet_read_decides_too() -> None:
    """The first write after another Merlin's first one, which has not reached the copy yet."""
    backend = MemoryBackend()
    async with opened(backend) as database:
        stand(backend, run(1), LEGACY)
        assert len(database.runs) == 0
        assert await made_in(database) == set(OLD_NAMES.values())
        stand(backend, run(2), CURRENT)
        assert database.read_model.get(Key(RUN, uid(2))) is None
        assert await made_in(database) == set(NAMES.values())


@in_hashes
@pytest.mark.parametrize("dialects", [[CURRENT], [LEGACY], [LEGACY, CURRENT]], ids=["current", "legacy", "mixed"])
async def test_nothing_is_read_to_find_the_dialect(
    backend: ResultsBackend, dialects: list[Dialect], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a transaction is about is known, too: of a new worker no run and no other worker, and its logical one."""
    asked: list[Key] = []
    read_raw = backend.read_raw

    async def noting(keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        asked.extend(keys)
        return await read_raw(keys)

    for number, dialect in enumerate(dialects):
        stand(backend, run(number), dialect)
        stand(backend, physical_worker(10 + number), dialect)
    async with opened(backend) as database:
        monkeypatch.setattr(backend, "read_raw", noting)
        await database.physical_workers.create("celery@new.host", logical_worker_id=await owner_in(database))
        assert not asked


# --- --dialect current ------------------------------------------------------------------------------------------------


@in_hashes
async def test_a_status_stands_beside_the_old_one(backend: ResultsBackend) -> None:
    """With `--dialect current` an old run takes any status; what else stands in it, `run_complete` too, stays."""
    first, second = (stand(backend, run(number, run_status=RunStatus.COMPLETED), LEGACY) for number in (1, 2))
    worker = stand(backend, physical_worker(3), LEGACY)
    before = read_store(backend).records
    async with opened(backend, dialect=CURRENT) as database:
        await database.runs.update(second.id, additional_data={"note": 1})
        assert read_store(backend).records[second] == before[second] | {"additional_data": '{"note": 1}'}
        for status in (status for status in RunStatus if status is not RunStatus.UNKNOWN):
            changed = await database.runs.update(first.id, force=True, run_status=status)
            assert changed.status is database.runs.get(first.id).status is status
            assert read_store(backend).records[first] == before[first] | {"run_status": status.value}
        await database.physical_workers.update(worker.id, worker_status=WorkerStatus.STALLED)
        assert read_store(backend).records[worker] == before[worker] | {"status": "WorkerStatus.STALLED"}
    async with opened(backend) as database:  # without the setting: as it stands, and that is in both
        await database.runs.update(first.id, force=True, run_status=RunStatus.QUEUED)
        assert read_store(backend).records[first] == before[first] | {"run_status": "QUEUED"}
        with pytest.raises(InvalidValueError):
            await database.runs.update(second.id, force=True, run_status=RunStatus.QUEUED)
        await database.runs.update(second.id, force=True, run_status=RunStatus.RUNNING)
        assert raw_of(backend, RUN, second.id)["run_complete"] == "False"
        assert "run_status" not in raw_of(backend, RUN, second.id)


# --- beside the real one ----------------------------------------------------------------------------------------------


@pytest.fixture
def redis_merlin(redis_server: RedisServer, tmp_path: Path) -> Iterator[Merlin]:
    with Merlin(tmp_path / "home", redis_server.url) as merlin:
        yield merlin


_SPELLINGS = st.sampled_from([(RUN, CURRENT), (RUN, DOUBLE), (PHYSICAL, CURRENT)])
_OLD_SPELLINGS = st.sampled_from([(RUN, LEGACY), (PHYSICAL, LEGACY)])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=st.lists(_OLD_SPELLINGS, max_size=4).flatmap(
        lambda old: st.lists(_SPELLINGS, max_size=2).flatmap(lambda new: st.permutations([*old, *new]))
    ),
    numbers=st.permutations(range(1, 9)),
    late=st.integers(0, 6),
)
def test_merlin_reads_what_is_made_beside_anything_of_its_own(
    redis_server: RedisServer,
    redis_merlin: Merlin,
    mix: Sequence[tuple[EntityKind, Dialect | str]],
    numbers: Sequence[int],
    late: int,
) -> None:
    """In whatever order the records sort and came, before or after the server: one of 2.0.0b4's is enough."""
    with redis_server.client() as client:
        client.flushall()
    anyio.run(_make_beside, redis_server.url, redis_merlin, mix, numbers, late)


async def _make_beside(
    url: str, merlin: Merlin, mix: Sequence[tuple[EntityKind, Dialect | str]], numbers: Sequence[int], late: int
) -> None:
    backend = make_backend(url, BackendOptions())
    records = [
        (run(number, f"/runs/{number}_2026010{number}-000000"), dialect)
        if kind is RUN
        else (physical_worker(number), dialect)
        for (kind, dialect), number in zip(mix, numbers, strict=False)
    ]
    for record, dialect in records[late:]:
        stand(backend, record, dialect)
    async with opened(backend) as database:
        for record, dialect in records[:late]:
            stand(backend, record, dialect)
        await until(lambda: len(database.runs) + len(database.physical_workers) == len(records))
        new_run = await database.runs.create("made", "/runs/made_20260105-000000", ["[merlin]_q"])
        new_worker = await database.physical_workers.create(
            "celery@worker_5.made", logical_worker_id=await owner_in(database)
        )
    stored = raw_of(backend, RUN, new_run.id), raw_of(backend, PHYSICAL, new_worker.id)
    if records and all(dialect == LEGACY for _, dialect in records):
        assert ("run_complete" in stored[0], "status" in stored[1]) == (True, True)
        return
    assert {"run_status", "worker_status"} <= {*stored[0], *stored[1]}
    read = {kind: {record["id"] for record in found} for kind, found in merlin.dump().items()}
    assert new_run.id in read["run"]
    assert new_worker.id in read["physical_worker"]


@pytest.mark.parametrize("redis_server", ["redis", pytest.param("valkey", marks=pytest.mark.soak)], indirect=True)
async def test_merlins_commands_work_after_a_worker_is_made(redis_server: RedisServer, redis_merlin: Merlin) -> None:
    """Old records that sort first and that no logical worker names do not make the new one unreadable to 2.0.0b4."""
    worker = redis_merlin.call("logical_workers.create", "w", {"[merlin]_q"})
    theirs = redis_merlin.call("physical_workers.create", name="celery@w.theirs", logical_worker_id=worker)
    redis_merlin.entity("logical_worker", worker, "add_physical_worker", theirs)
    backend = make_backend(redis_server.url, BackendOptions())
    stand(backend, physical_worker(1, "celery@a.old"), LEGACY)
    stand(backend, run(2, "/runs/newest_20300101-000000"), LEGACY)
    listings = [("query-workers",), ("database", "get", "all-physical-workers")]
    assert all("celery@w.theirs" in redis_merlin.cli(*command) for command in listings)
    async with opened(backend) as database:
        await database.physical_workers.create("celery@w.ours", logical_worker_id=worker)
    for command in listings:
        told = redis_merlin.cli(*command)
        assert "celery@w.theirs" in told
        assert "celery@w.ours" in told


async def test_a_status_is_changed_as_merlin_changes_it(
    redis_server: RedisServer, redis_merlin: Merlin, tmp_path: Path
) -> None:
    """With `--dialect current` an old run is afterwards, field by field, what 2.0.0b4 makes of it."""
    backend = make_backend(redis_server.url, BackendOptions())
    key = Key(RUN, uid(1))
    old = encode(run(1, str(tmp_path / "r"), queues=("q",), samples={"n": 1}, run_status=RunStatus.COMPLETED), LEGACY)
    for status in ("FAILED", "RUNNING"):
        empty(backend)
        change(backend, key, old)
        redis_merlin.entity("run", key.id, "set_run_status", status)
        theirs = raw_of(backend, *key)
        empty(backend)
        change(backend, key, old)
        async with opened(make_backend(redis_server.url, BackendOptions()), dialect=CURRENT) as database:
            await database.runs.update(key.id, force=True, run_status=RunStatus(status))
        assert raw_of(backend, *key) == theirs == old | {"run_status": status}
        found = redis_merlin.get("run", key.id)
        assert found is not None
        assert found["run_status"] == status
