"""Every write of the managers, on every backend: exactly what is meant changes, and it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
import redis

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import LEGACY, decode, encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.backends.write_set import WriteSet
from server.database.errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    ConflictError,
    InvalidRequestError,
    InvalidValueError,
    MissingPartnerError,
    RefusedError,
    RunNotFoundError,
)
from server.database.integrity import Problem, ProblemKind
from server.database.managers import Instances
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)
from server.database.transactions import Action, Effect, UnitOfWork
from tests.asking import ask
from tests.conftest import Store
from tests.raw_store import Stored, change, name_in_map, read_store
from tests.records import logical_worker, physical_worker, run, study, uid
from tests.servers import RedisServer
from tests.writers import key_of, merlins_file

pytestmark = pytest.mark.anyio

Result = TypeVar("Result")
QUEUE = "[merlin]_q"
NOWHERE = uid(999)


@asynccontextmanager
async def database_of(backend: ResultsBackend, *records: Model) -> AsyncIterator[MerlinDatabase]:
    await backend.insert(records)
    async with opened(backend) as database:
        yield database


def linked() -> tuple[Model, ...]:
    """Two studies, three runs in a row, two logical workers and three physical ones, all links on both sides."""
    one, two = logical_worker("one"), logical_worker("two")
    return (
        study(1, runs=(uid(11), uid(12))),
        study(2, runs=(uid(13),)),
        run(11, study_id=uid(1), workers=(one.id,), child=uid(12), queues=(QUEUE,)),
        run(12, study_id=uid(1), workers=(one.id, two.id), parent=uid(11), child=uid(13)),
        run(13, study_id=uid(2), workers=(two.id,), parent=uid(12)),
        dataclasses.replace(one, runs=(uid(11), uid(12)), physical_workers=(uid(21), uid(22))),
        dataclasses.replace(two, runs=(uid(12), uid(13)), physical_workers=(uid(23),)),
        physical_worker(21, logical_worker_id=one.id),
        physical_worker(22, logical_worker_id=one.id, worker_status=WorkerStatus.RUNNING),
        physical_worker(23, logical_worker_id=two.id),
    )


def housed(*runs: RunModel) -> tuple[Model, ...]:
    """The runs, in a study."""
    home = study(900, runs=tuple(each.id for each in runs))
    return (home, *(dataclasses.replace(each, study_id=home.id) for each in runs))


ONE, TWO = logical_worker("one").id, logical_worker("two").id


def told(work: UnitOfWork) -> dict[Key, Effect]:
    return {
        key: dataclasses.replace(effect, fields=tuple(sorted(effect.fields))) for key, effect in work.effects.items()
    }


def summary(effects: Mapping[Key, Effect]) -> Counter[tuple[Any, ...]]:
    """Without the ids of what is new: they are drawn anew each time."""
    return Counter(
        (effect.action, key.kind, effect.fields, "" if effect.action is Action.CREATED else key.id)
        for key, effect in effects.items()
    )


async def doing(
    database: MerlinDatabase, act: Callable[[UnitOfWork], Awaitable[Result]]
) -> tuple[Result, dict[Key, Effect], UnitOfWork]:
    """Does it dry, then really: told is exactly what changed, dry as well, and the copy has it at once."""
    before = read_store(database.backend)
    dry = database.unit(dry_run=True)
    await act(dry)
    await dry.finish()
    assert read_store(database.backend) == before
    work = database.unit()
    result = await act(work)
    await work.finish()
    after = read_store(database.backend)
    found = {
        key: dataclasses.replace(effect, fields=tuple(sorted(effect.fields)))
        for key, effect in before.difference(after).items()
    }
    assert told(work) == found
    assert summary(told(dry)) == summary(found)
    assert dry.skipped == work.skipped
    assert after.others == before.others
    for key in found:
        assert database.read_model.get(key) == after.model(key)
    return result, found, work


async def refused(
    database: MerlinDatabase, error: type[RefusedError], field: str | None, attempt: Callable[[], Awaitable[object]]
) -> None:
    """It is, for that field, and nothing changed."""
    before = read_store(database.backend)
    with pytest.raises(error) as raised:
        await attempt()
    assert raised.value.field == field
    assert read_store(database.backend) == before


async def sound(database: MerlinDatabase) -> bool:
    """Whether nothing but garbage is reported."""
    database._problems = None
    garbage = (ProblemKind.EMPTY_STUDY, ProblemKind.ORPHAN_WORKER)
    return [problem for problem in await problems_of(database) if problem.kind not in garbage] == []


async def problems_of(database: MerlinDatabase) -> list[Problem]:
    """Without the references that these small records leave out: tests/test_severity.py is about those."""
    return [problem for problem in await database.integrity() if problem.kind is not ProblemKind.MISSING_REFERENCE]


# --- creating ---------------------------------------------------------------------------------------------------------


async def test_a_study_is_made_once(backend: ResultsBackend) -> None:
    """`create` makes a study, and gives the same one from then on."""
    async with database_of(backend) as database:
        made, effects, _ = await doing(database, lambda work: database.studies.create("hello", work))
        again, nothing, _ = await doing(database, lambda work: database.studies.create("hello", work))
        assert made == again == database.studies.get("hello")
        assert [effect.action for effect in effects.values()] == [Action.CREATED]
        assert nothing == {}
        stored = read_store(backend)
        assert stored.records[Key(EntityKind.STUDY, made.id)] == encode(StudyModel(made.id, "hello"))
        if backend.name_maps:
            assert stored.names == {EntityKind.STUDY: {"hello": made.id}}


async def test_a_run_is_made_with_its_study_and_every_link_on_both_sides(backend: ResultsBackend) -> None:
    """Keyword arguments that are fields stay fields, the rest is additional data, and all partners know of it."""
    async with database_of(backend, *linked()) as database:
        made, effects, _ = await doing(
            database,
            lambda work: database.runs.create(
                "new study",
                "/runs/new_20260102-030405",
                ["b", "a"],
                unit=work,
                steps=["s1", "s2"],
                parameters={"X": [1, 2.5, None]},
                samples={"count": 3},
                workers=[ONE, TWO, ONE],
                parent=uid(13),
                child=uid(11),
                run_status=RunStatus.QUEUED,
                ticket="A-1",
                additional_data={"note": True},
            ),
        )
        new = database.studies.get("new study")
        assert made == database.runs.get("/runs/new_20260102-030405")
        assert made.record == RunModel(
            made.id,
            "/runs/new_20260102-030405",
            new.id,
            ("s1", "s2"),
            ("b", "a"),
            (ONE, TWO),
            uid(13),
            uid(11),
            RunStatus.QUEUED,
            '{"X": [1, 2.5, null]}',
            '{"count": 3}',
            '{"note": true, "ticket": "A-1"}',
        )
        assert read_store(backend).records[Key(EntityKind.RUN, made.id)] == encode(made.record)
        assert [each.id for each in new.runs] == [made.id] == list(new.record.runs)
        assert {(effect.action, key.id, effect.fields) for key, effect in effects.items()} == {
            (Action.CREATED, new.id, ()),
            (Action.CREATED, made.id, ()),
            (Action.UPDATED, ONE, ("runs",)),
            (Action.UPDATED, TWO, ("runs",)),
            (Action.UPDATED, uid(13), ("child",)),
            (Action.UPDATED, uid(11), ("parent",)),
        }
        assert database.runs.get(uid(13)).record.child == made.id == database.runs.get(uid(11)).record.parent
        assert await sound(database)


async def test_a_workspace_has_one_run(backend: ResultsBackend) -> None:
    """A second run in a workspace is refused, and changes nothing."""
    async with database_of(backend, *linked()) as database:
        await refused(
            database, AlreadyExistsError, "workspace", lambda: database.runs.create("other", "/runs/run_11", [QUEUE])
        )
        await refused(
            database, AlreadyExistsError, "id", lambda: database.runs.create("other", "/runs/x", [QUEUE], id=uid(11))
        )
        await refused(
            database, AlreadyExistsError, "id", lambda: database.runs.create("other", "/runs/x", [QUEUE], id=uid(12))
        )


@pytest.mark.parametrize("partner", [{"workers": [ONE, NOWHERE]}, {"parent": NOWHERE}, {"child": NOWHERE}])
async def test_a_run_of_missing_partners_is_refused(backend: ResultsBackend, partner: dict[str, Any]) -> None:
    """One missing worker, parent or child, and not even the study is made."""
    async with database_of(backend, *linked()) as database:
        (field,) = partner
        await refused(
            database, MissingPartnerError, field, lambda: database.runs.create("new", "/runs/x", [QUEUE], **partner)
        )
        await refused(
            database, InvalidValueError, "parent", lambda: database.runs.create("n", "/runs/x", [QUEUE], parent=uid(11))
        )


async def test_what_merlin_would_misread_is_refused(backend: ResultsBackend) -> None:
    """Names, workspaces, queues and JSON that Merlin reads as something else, and statuses that are none."""
    async with database_of(backend, *linked()) as database:
        attempts: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("name", lambda: database.studies.create("123")),
            ("name", lambda: database.studies.create("")),
            ("name", lambda: database.studies.create("0" * 32)),
            ("workspace", lambda: database.runs.create("hello", "2024-01-01", [QUEUE])),
            ("study_name", lambda: database.runs.create("null", "/runs/x", [QUEUE])),
            ("queues", lambda: database.runs.create("hello", "/runs/x", [" "])),
            ("parameters", lambda: database.runs.create("hello", "/runs/x", [QUEUE], parameters="text")),
            ("samples", lambda: database.runs.create("hello", "/runs/x", [QUEUE], samples=[1])),
            ("run_status", lambda: database.runs.create("hello", "/runs/x", [QUEUE], run_status=RunStatus.UNKNOWN)),
            ("run_status", lambda: database.runs.update(uid(11), run_status=RunStatus.UNKNOWN)),
            ("parent", lambda: database.runs.update(uid(11), parent=uid(11))),
            ("additional_data", lambda: database.runs.update(uid(11), additional_data=[1])),
            ("name", lambda: database.logical_workers.create("a:b", [QUEUE])),
            ("queues", lambda: database.logical_workers.create("a", ["a,b"])),
            ("queues", lambda: database.logical_workers.create("a", [])),
            ("name", lambda: database.physical_workers.create("True")),
            ("host", lambda: database.physical_workers.create("w", host="20240101")),
            ("id", lambda: database.runs.create("hello", "/runs/x", [QUEUE], id="no id")),
            ("args", lambda: database.physical_workers.create("w", args="--flag")),
            ("worker_status", lambda: database.physical_workers.update(uid(21), worker_status=WorkerStatus.UNKNOWN)),
            ("restart_count", lambda: database.physical_workers.update(uid(21), restart_count=-1)),
        ]
        for field, attempt in attempts:
            await refused(database, InvalidValueError, field, attempt)
        with pytest.raises(InvalidRequestError):
            await database.runs.update(uid(11), workspace="/elsewhere")
        with pytest.raises(InvalidRequestError):
            await database.physical_workers.update(uid(21), host="elsewhere")
        with pytest.raises(RunNotFoundError):
            await database.runs.update(NOWHERE, run_status=RunStatus.FAILED)


async def test_a_logical_worker_is_made_once(backend: ResultsBackend) -> None:
    """Name and queues, in any order, make one worker."""
    async with database_of(backend) as database:
        made, effects, _ = await doing(
            database, lambda work: database.logical_workers.create("w", ["b", "a", "b"], work)
        )
        again, nothing, _ = await doing(database, lambda work: database.logical_workers.create("w", ["a", "b"], work))
        assert made == again == database.logical_workers.get(worker_name="w", queues=["a", "b"])
        assert (len(effects), nothing) == (1, {})
        wanted = LogicalWorkerModel(LogicalWorkerModel.generate_id("w", ["a", "b"]), "w", ("a", "b"))
        assert read_store(backend).records == {Key(EntityKind.LOGICAL_WORKER, wanted.id): encode(wanted)}


async def test_a_physical_worker_is_made_once_and_linked(backend: ResultsBackend) -> None:
    """It stands with all its fields, on both sides of its link; a second of the name is the first, unchanged."""
    started = datetime(2026, 1, 2, 3, 4, 5, 678)
    async with database_of(backend, *linked()) as database:

        async def create(work: UnitOfWork) -> Any:
            return await database.physical_workers.create(
                "celery@new.node",
                unit=work,
                logical_worker_id=ONE,
                launch_cmd="celery worker",
                args={"-c": 4},
                pid="4242",
                worker_status=WorkerStatus.RUNNING,
                heartbeat_timestamp=started,
                latest_start_time=started,
                host="node",
                restart_count=2,
                additional_data={"rack": 7},
            )

        made, effects, _ = await doing(database, create)
        again, nothing, _ = await doing(database, create)
        assert made == again == database.physical_workers.get("celery@new.node")
        assert (len(effects), nothing) == (2, {})
        assert made.record == PhysicalWorkerModel(
            made.id,
            "celery@new.node",
            ONE,
            "celery worker",
            '{"-c": 4}',
            "4242",
            WorkerStatus.RUNNING,
            started,
            started,
            "node",
            2,
            '{"rack": 7}',
        )
        assert database.logical_workers.get(ONE).record.physical_workers == (uid(21), uid(22), made.id)
        await refused(
            database,
            MissingPartnerError,
            "logical_worker_id",
            lambda: database.physical_workers.create("celery@other", logical_worker_id=NOWHERE),
        )
        assert await sound(database)


# --- changing ---------------------------------------------------------------------------------------------------------


async def test_a_run_is_updated(backend: ResultsBackend) -> None:
    """Its status, and its additional data key by key, where None drops a key."""
    async with database_of(backend, run(1, additional_data={"a": 1, "b": {"c": 2}, "d": 3})) as database:
        key = Key(EntityKind.RUN, uid(1))
        _, effects, _ = await doing(
            database,
            lambda work: database.runs.update(
                uid(1),
                unit=work,
                run_status=RunStatus.FAILED,
                additional_data={"a": None, "b": [], "new": "x", "no": None},
            ),
        )
        assert effects == {key: Effect(Action.UPDATED, key, ("additional_data", "run_status"))}
        assert json.loads(read_store(backend).records[key]["additional_data"]) == {"b": [], "d": 3, "new": "x"}
        _, nothing, _ = await doing(
            database, lambda work: database.runs.update("/runs/run_1", unit=work, run_status=RunStatus.FAILED)
        )
        assert nothing == {}


async def test_parent_and_child_move_on_both_sides(backend: ResultsBackend) -> None:
    """The former relative forgets the run, the new one names it; clearing clears both; a taken place is refused."""
    async with database_of(backend, *linked(), *housed(run(14))) as database:
        _, effects, _ = await doing(database, lambda work: database.runs.update(uid(12), unit=work, parent=uid(14)))
        assert {key.id: effect.fields for key, effect in effects.items()} == {
            uid(11): ("child",),
            uid(12): ("parent",),
            uid(14): ("child",),
        }
        assert await sound(database)
        _, effects, _ = await doing(
            database, lambda work: database.runs.update(uid(12), unit=work, parent=None, child=None)
        )
        assert {key.id: effect.fields for key, effect in effects.items()} == {
            uid(12): ("child", "parent"),
            uid(13): ("parent",),
            uid(14): ("child",),
        }
        assert await sound(database)
        await database.runs.update(uid(11), child=uid(12))
        await refused(database, InvalidValueError, "child", lambda: database.runs.update(uid(13), child=uid(12)))
        await refused(database, MissingPartnerError, "parent", lambda: database.runs.update(uid(13), parent=NOWHERE))


async def test_a_relative_of_one_side_is_cleared(backend: ResultsBackend) -> None:
    """Merlin writes parent and child on one side only; the cleared run has none left all the same."""
    async with database_of(
        backend, run(1, child=uid(2)), run(2), run(3, parent=uid(2)), run(4, parent=uid(2))
    ) as database:
        assert database.runs.get(uid(2)).parent is not None
        _, effects, _ = await doing(
            database, lambda work: database.runs.update(uid(2), unit=work, parent=None, child=None)
        )
        assert {key.id for key in effects} == {uid(1), uid(3), uid(4)}
        assert database.runs.get(uid(2)).parent is database.runs.get(uid(2)).child is None


async def test_workers_are_attached_and_detached(backend: ResultsBackend) -> None:
    """On both sides, mending a half link, again without effect, and also from a worker that is gone."""
    records = (run(1, workers=(ONE, NOWHERE)), logical_worker("one"), logical_worker("two"))
    async with database_of(backend, *records) as database:
        for expected in ({uid(1): ("workers",), ONE: ("runs",), TWO: ("runs",)}, {}):
            _, effects, _ = await doing(database, lambda work: database.runs.attach_workers(uid(1), [ONE, TWO], work))
            assert {key.id: effect.fields for key, effect in effects.items()} == expected
        await refused(
            database, MissingPartnerError, "workers", lambda: database.runs.attach_workers(uid(1), [TWO, uid(998)])
        )
        gone = [ONE, NOWHERE, uid(998)]
        for expected in ({uid(1): ("workers",), ONE: ("runs",)}, {}):
            _, effects, _ = await doing(database, lambda work: database.runs.detach_workers(uid(1), gone, work))
            assert {key.id: effect.fields for key, effect in effects.items()} == expected
        assert database.runs.get(uid(1)).record.workers == (TWO,)


async def test_a_physical_worker_is_updated(backend: ResultsBackend) -> None:
    """Every field that Merlin lets change."""
    changes: dict[str, Any] = {
        "launch_cmd": "again",
        "args": {"x": 1},
        "pid": "7",
        "worker_status": WorkerStatus.REBOOTING,
        "heartbeat_timestamp": datetime(2026, 1, 1),
        "latest_start_time": datetime(2026, 1, 2),
        "restart_count": 3,
    }
    async with database_of(backend, physical_worker(1)) as database:
        _, effects, _ = await doing(
            database, lambda work: database.physical_workers.update(uid(1), unit=work, **changes)
        )
        assert [effect.fields for effect in effects.values()] == [tuple(sorted(changes))]
        record = database.physical_workers.get(uid(1)).record
        assert {name: getattr(record, name) for name in changes} == changes | {"args": '{"x": 1}'}


async def test_a_client_reads_its_own_writes(backend: ResultsBackend) -> None:
    """As soon as a call returns, the copy has it, without any work of one's own."""
    async with database_of(backend) as database:
        for number in range(20):
            made = await database.runs.create("hello", f"/runs/{number}", [QUEUE])
            assert len(database.studies.get("hello").runs) == number + 1
            await database.runs.update(made.id, run_status=RunStatus.COMPLETED)
            assert database.runs.get(made.id).status is RunStatus.COMPLETED
        await database.runs.delete(made.id)
        assert database.runs.by_id(made.id) is None


# --- what others wrote stays ------------------------------------------------------------------------------------------


def writing_between(
    monkeypatch: pytest.MonkeyPatch, backend: ResultsBackend, key: Key, **values: str
) -> list[WriteSet]:
    """Another writer comes between what is read and the first commit; gives the batches as they are committed."""
    batches: list[WriteSet] = []
    commit = backend.commit

    async def late(batch: WriteSet) -> bool:
        batches.append(batch)
        if len(batches) == 1:
            change(backend, key, values)
        return await commit(batch)

    monkeypatch.setattr(backend, "commit", late)
    return batches


async def test_a_heartbeat_reverts_nothing(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that another sets between our reading and writing stands, and only the changed field is written."""
    key = Key(EntityKind.PHYSICAL_WORKER, uid(1))
    async with database_of(backend, physical_worker(1, worker_status=WorkerStatus.RUNNING)) as database:
        batches = writing_between(monkeypatch, backend, key, worker_status="STALLED")
        await database.physical_workers.update(uid(1), heartbeat_timestamp=datetime(2026, 1, 2))
        raw = read_store(backend).records[key]
        assert (raw["worker_status"], raw["heartbeat_timestamp"]) == ("STALLED", "2026-01-02T00:00:00")
        assert [batch.written for batch in batches] == [{key: {"heartbeat_timestamp": "2026-01-02T00:00:00"}}] * 2
        assert database.physical_workers.get(uid(1)).status is WorkerStatus.STALLED


async def test_a_run_that_another_adds_meanwhile_is_kept(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs are in the study's list, where Merlin would lose one."""
    async with database_of(backend, study(1)) as database:
        key = Key(EntityKind.STUDY, uid(1))
        writing_between(monkeypatch, backend, key, runs=json.dumps([uid(9)]))
        made = await database.runs.create("study_1", "/runs/x", [QUEUE])
        assert json.loads(read_store(backend).records[key]["runs"]) == [uid(9), made.id]


async def test_a_study_made_meanwhile_is_the_one(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loses the race gets the winner's study."""
    async with database_of(backend) as database:
        commit, racing = backend.commit, [True]

        async def late(batch: WriteSet) -> bool:
            if racing.pop() if racing else False:
                await backend.insert([study(1, "hello")])
            return await commit(batch)

        monkeypatch.setattr(backend, "commit", late)
        made = await database.studies.create("hello")
        assert made.id == uid(1)
        assert len(read_store(backend).records) == 1


async def test_concurrent_creates_make_one_study_that_lists_all_runs(store: Store) -> None:
    """Two servers with eight clients each: no run is lost, no study made twice, no lock waited for in vain."""
    async with (
        opened(make_backend(store.url, BackendOptions())) as one,
        opened(make_backend(store.url, BackendOptions())) as other,
    ):

        async def client(database: MerlinDatabase, name: str) -> list[str]:
            return [(await database.runs.create("hello", f"/runs/{name}_{each}", [QUEUE])).id for each in range(4)]

        clients = (
            client(database, f"{name}_{each}") for name, database in (("a", one), ("b", other)) for each in range(8)
        )
        made = [id_ for ids in await asyncio.gather(*clients) for id_ in ids]
        stored = read_store(one.backend).records
        (listed,) = (json.loads(raw["runs"]) for key, raw in stored.items() if key.kind is EntityKind.STUDY)
        assert sorted(listed) == sorted(made) == sorted(key.id for key in stored if key.kind is EntityKind.RUN)


async def test_a_run_makes_no_directory(backend: ResultsBackend, tmp_path: Path) -> None:
    """Where Merlin would write its metadata: a client names the place, so nothing is made there."""
    async with database_of(backend) as database:
        await database.runs.create("hello", str(tmp_path / "ws_20260102-030405"), [QUEUE])
        await database.runs.update(str(tmp_path / "ws_20260102-030405"), run_status=RunStatus.FAILED)
        assert not (tmp_path / "ws_20260102-030405").exists()


async def test_unreadable_lists_are_not_overwritten(backend: ResultsBackend) -> None:
    """A list that can't be read keeps its text, and the link stands from the other side."""
    broken = Key(EntityKind.STUDY, uid(1))
    await backend.insert([study(1), logical_worker("one"), run(2, study_id=uid(1), workers=(ONE,))])
    change(backend, broken, {"runs": "[broken"})
    change(backend, Key(EntityKind.LOGICAL_WORKER, ONE), {"runs": "[broken", "physical_workers": '["x", {}]'})
    async with opened(backend) as database:
        made, effects, _ = await doing(
            database, lambda work: database.runs.create("study_1", "/runs/x", [QUEUE], unit=work, workers=[ONE])
        )
        assert list(effects.values()) == [Effect(Action.CREATED, Key(EntityKind.RUN, made.id))]
        assert made.id in {each.id for each in database.studies.get("study_1").runs}
        assert made.id in {each.id for each in database.logical_workers.get(ONE).runs}
        await doing(database, lambda work: database.physical_workers.create("w", unit=work, logical_worker_id=ONE))
        await doing(database, lambda work: database.runs.detach_workers(made.id, [ONE], work))
        await doing(database, lambda work: database.runs.delete(made.id, work))
        raw = read_store(backend).records
        assert raw[broken]["runs"] == raw[Key(EntityKind.LOGICAL_WORKER, ONE)]["runs"] == "[broken"
        assert raw[Key(EntityKind.LOGICAL_WORKER, ONE)]["physical_workers"] == '["x", {}]'


async def test_unreadable_json_is_not_overwritten(backend: ResultsBackend) -> None:
    """Additional data that can't be read is not merged with, and other fields of the record still change."""
    key = Key(EntityKind.RUN, uid(1))
    await backend.insert([run(1)])
    change(backend, key, {"additional_data": "{broken", "samples": "[broken"})
    async with opened(backend) as database:
        await refused(
            database, ConflictError, "additional_data", lambda: database.runs.update(uid(1), additional_data={"a": 1})
        )
        await doing(database, lambda work: database.runs.update(uid(1), unit=work, run_status=RunStatus.FAILED))
        raw = read_store(backend).records[key]
        assert (raw["additional_data"], raw["samples"], raw["run_status"]) == ("{broken", "[broken", "FAILED")


async def test_half_a_surrogate_pair_is_told_readably_and_kept(backend: ResultsBackend) -> None:
    """It is reported, every answer can be encoded, and no change of another field or of a partner loses it."""
    half = r'{"\ud800": "\ud83d\ude00"}'
    stored = {
        Key(E.STUDY, uid(1)): {"runs": r'["\ud800"]'},
        Key(E.LOGICAL_WORKER, ONE): {"runs": r'["\udc00"]', "queues": r'{"__set__": ["q\ud800"]}'},
        Key(E.RUN, uid(2)): dict.fromkeys(("additional_data", "parameters", "samples"), half)
        | dict.fromkeys(("queues", "steps"), r'["\udfff"]'),
        Key(E.PHYSICAL_WORKER, uid(4)): {"args": half},
    }
    await backend.insert(
        [study(1), run(2, study_id=uid(1)), logical_worker("one"), physical_worker(4, logical_worker_id=ONE)]
    )
    for key, texts in stored.items():
        change(backend, key, texts)
    async with opened(backend) as database:
        unreadable = {
            (problem.key, problem.field)
            for problem in await database.integrity()
            if problem.kind is K.UNREADABLE_VALUE and not problem.repairable
        }
        assert unreadable == {(key, name) for key, texts in stored.items() for name in texts}
        told = await ask(
            database,
            "{ runs { nodes { queues steps parameters samples additionalData } } queues { queue }"
            " logicalWorkers { nodes { queues } } physicalWorkers { nodes { args } }"
            " integrity { problems { message otherId } } }",
        )
        assert orjson.dumps(told)  # takes no lone surrogate
        (node,) = told["runs"]["nodes"]
        assert node["queues"] == node["steps"] == ["\N{REPLACEMENT CHARACTER}"]
        assert node["additionalData"] == {"\N{REPLACEMENT CHARACTER}": "\N{GRINNING FACE}"}

        await refused(
            database, ConflictError, "additional_data", lambda: database.runs.update(uid(2), additional_data={"a": 1})
        )
        await doing(database, lambda work: database.runs.update(uid(2), unit=work, run_status=RunStatus.FAILED))
        await doing(database, lambda work: database.runs.attach_workers(uid(2), [ONE], work))
        await doing(database, lambda work: database.physical_workers.update(uid(4), unit=work, pid="7"))
        await doing(database, database.repair)
        records = read_store(backend).records
        assert {key: {name: records[key][name] for name in texts} for key, texts in stored.items()} == stored
        assert records[Key(E.RUN, uid(2))]["run_status"] == "FAILED"


async def test_extra_fields_of_a_record_survive(backend: ResultsBackend) -> None:
    """What no model knows stays as it is when its record changes, or its partners do."""
    key = Key(EntityKind.STUDY, uid(1))
    await backend.insert([study(1)])
    if isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.execute("ALTER TABLE study ADD COLUMN colour TEXT")
    change(backend, key, {"colour": "blue"})
    async with opened(backend) as database:
        await doing(database, lambda work: database.runs.create("study_1", "/runs/x", [QUEUE], unit=work))
        assert read_store(backend).records[key]["colour"] == "blue"


# --- deleting ---------------------------------------------------------------------------------------------------------


def gone_of(effects: Mapping[Key, Effect]) -> set[str]:
    return {key.id for key, effect in effects.items() if effect.action is Action.DELETED}


def updated_of(effects: Mapping[Key, Effect]) -> dict[str, tuple[str, ...]]:
    return {key.id: effect.fields for key, effect in effects.items() if effect.action is Action.UPDATED}


async def test_a_deleted_run_leaves_all_its_partners(backend: ResultsBackend) -> None:
    """Its study, its logical workers, its parent, its child and its workspace's name."""
    async with database_of(backend, *linked()) as database:
        ids, effects, work = await doing(database, lambda work: database.runs.delete("/runs/run_12", work))
        assert ids == [uid(12)]
        assert gone_of(effects) == {uid(12)}
        assert updated_of(effects) == {
            uid(1): ("runs",),
            ONE: ("runs",),
            TWO: ("runs",),
            uid(11): ("child",),
            uid(13): ("parent",),
        }
        assert work.skipped == {}
        assert "/runs/run_12" not in read_store(backend).names.get(EntityKind.RUN, {})
        assert await sound(database)


async def test_half_links_and_missing_partners_stop_no_deletion(backend: ResultsBackend) -> None:
    """Partners that only name the run forget it; those that are gone are noted as skipped, with what would change."""
    records = (
        study(1, runs=(uid(11), uid(11))),
        run(11, study_id=uid(901), workers=(uid(902),), parent=uid(903), child=uid(904)),
        dataclasses.replace(logical_worker("one"), runs=(uid(11),)),
        *housed(run(12, child=uid(11)), run(13, parent=uid(11))),
    )
    async with database_of(backend, *records) as database:
        _, effects, work = await doing(database, lambda work: database.runs.delete(uid(11), work))
        assert updated_of(effects) == {uid(1): ("runs",), ONE: ("runs",), uid(12): ("child",), uid(13): ("parent",)}
        assert {str(key): effect.fields for key, effect in work.skipped.items()} == {
            f"study:{uid(901)}": ("runs",),
            f"logical_worker:{uid(902)}": ("runs",),
            f"run:{uid(903)}": ("child",),
            f"run:{uid(904)}": ("parent",),
        }
        assert await sound(database)


async def test_a_study_goes_with_its_runs_or_without_any(backend: ResultsBackend) -> None:
    """Its runs go along, and leave their partners; where they are to be kept, only a study without runs goes."""
    async with database_of(backend, *linked()) as database:
        _, effects, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert gone_of(effects) == {uid(1), uid(11), uid(12)}
        assert updated_of(effects) == {ONE: ("runs",), TWO: ("runs",), uid(13): ("parent",)}
        assert await sound(database)
        keeping = partial(database.studies.delete, "study_2", remove_associated_runs=False)
        await refused(database, InvalidValueError, "runs", keeping)
        await refused(
            database,
            InvalidValueError,
            "runs",
            lambda: database.studies.delete_all(remove_associated_runs=False),
        )
        await database.runs.delete(uid(13))
        _, effects, _ = await doing(database, lambda work: keeping(unit=work))
        assert effects == {Key(EntityKind.STUDY, uid(2)): Effect(Action.DELETED, Key(EntityKind.STUDY, uid(2)))}
        assert read_store(backend).names.get(EntityKind.STUDY, {}) == {}


async def test_a_study_that_lists_a_missing_run_goes(backend: ResultsBackend) -> None:
    """With the runs that only they name it, too."""
    records = (study(1, runs=(NOWHERE, uid(11))), run(11, study_id=uid(1)), run(12, study_id=uid(1)))
    async with database_of(backend, *records) as database:
        ids, _, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert set(ids) == {uid(1), uid(11), uid(12)}
        assert read_store(backend) == Stored()


@pytest.mark.parametrize("instances", Instances)
async def test_a_logical_worker_goes_and_its_instances_as_chosen(backend: ResultsBackend, instances: Instances) -> None:
    """Its runs forget it; of its physical workers those that are stopped go, or all, or none; none is left nameless."""
    async with database_of(backend, *linked()) as database:
        _, effects, _ = await doing(
            database, lambda work: database.logical_workers.delete(ONE, physical_workers=instances, unit=work)
        )
        runs = {uid(11): ("workers",), uid(12): ("workers",)}
        deleted = {Instances.DELETE: {uid(21), uid(22)}, Instances.DELETE_STOPPED: {uid(21)}}.get(instances, set())
        assert gone_of(effects) == {ONE} | deleted
        assert updated_of(effects) == runs
        left = {worker.id for worker in database.physical_workers.all() if worker.logical_worker_id == ONE}
        assert left == {uid(21), uid(22)} - deleted
        assert await sound(database) == (not left)


@pytest.mark.parametrize("instances", Instances)
async def test_a_logical_worker_with_missing_partners_goes(backend: ResultsBackend, instances: Instances) -> None:
    """Missing runs are noted as skipped."""
    worker = dataclasses.replace(logical_worker("one"), runs=(uid(901),), physical_workers=(uid(902), uid(21), uid(22)))
    records = (worker, run(11, workers=(ONE,)), physical_worker(21), physical_worker(22, logical_worker_id=TWO))
    async with database_of(backend, *records) as database:
        _, effects, work = await doing(
            database, lambda work: database.logical_workers.delete(ONE, physical_workers=instances, unit=work)
        )
        assert ONE in gone_of(effects)
        assert updated_of(effects) == {uid(11): ("workers",)}
        assert {key.id for key in work.skipped} >= {uid(901)}


async def test_a_physical_worker_leaves_its_logical_worker(backend: ResultsBackend) -> None:
    """Named by it or only listed there, once or many times; one whose logical worker is gone goes as well."""
    worker = dataclasses.replace(logical_worker("one"), physical_workers=(uid(21), uid(22), uid(21)))
    records = (
        worker,
        physical_worker(21),
        physical_worker(22, logical_worker_id=ONE),
        physical_worker(23, logical_worker_id=TWO),
    )
    async with database_of(backend, *records) as database:
        _, effects, _ = await doing(database, lambda work: database.physical_workers.delete(uid(21), work))
        assert updated_of(effects) == {ONE: ("physical_workers",)}
        _, _, work = await doing(database, lambda work: database.physical_workers.delete("celery@worker_23.host", work))
        assert [key.id for key in work.skipped] == [TWO]
        assert database.logical_workers.get(ONE).record.physical_workers == (uid(22),)
        assert list(read_store(backend).names.get(EntityKind.PHYSICAL_WORKER, {}).values()) in ([], [uid(22)])


@pytest.mark.parametrize("deleted", [11, 12])
async def test_the_name_of_a_workspace_goes_to_the_run_that_is_left(backend: ResultsBackend, deleted: int) -> None:
    """Of two runs in one workspace, whichever goes, the other is found by it."""
    left = uid(23 - deleted)
    async with database_of(backend, run(11, "/same"), run(12, "/same")) as database:
        await doing(database, lambda work: database.runs.delete(uid(deleted), work))
        assert database.runs.get("/same").id == left
        assert await database.backend.name_owners(EntityKind.RUN, ["/same"]) == {"/same": left}
        await doing(database, lambda work: database.runs.delete(left, work))
        assert await database.backend.name_owners(EntityKind.RUN, ["/same"]) == {}


async def test_no_name_goes_to_a_run_that_an_earlier_step_deleted(backend: ResultsBackend) -> None:
    """Two studies with a run each in one workspace: after both nothing is left of the name."""
    records = (
        study(1, runs=(uid(11),)),
        study(2, runs=(uid(12),)),
        run(11, "/same", study_id=uid(1)),
        run(12, "/same", study_id=uid(2)),
    )
    async with database_of(backend, *records) as database:
        await doing(database, lambda work: database.studies.delete_all(unit=work))
        assert read_store(backend) == Stored()


@pytest.mark.parametrize(
    ("manager", "left"),
    [
        ("studies", {"logical_worker": 2, "physical_worker": 3}),
        ("runs", {"study": 2, "logical_worker": 2, "physical_worker": 3}),
        ("logical_workers", {"study": 2, "run": 3, "physical_worker": 1}),
        ("physical_workers", {"study": 2, "run": 3, "logical_worker": 2}),
    ],
)
async def test_all_of_a_kind_go(backend: ResultsBackend, manager: str, left: dict[str, int]) -> None:
    """And no other kind, but the runs of studies and stopped instances; an instance at work names what is gone."""
    async with database_of(backend, *linked()) as database:
        _, _, work = await doing(database, lambda work: getattr(database, manager).delete_all(unit=work))
        assert work.skipped == {}
        assert Counter(key.kind.value for key in read_store(backend).records) == left
        assert await sound(database) == (manager != "logical_workers")


async def test_many_go_in_steps(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction holds more than so many of them, and the effects are told as of one."""
    worker = dataclasses.replace(logical_worker("one"), runs=tuple(uid(number) for number in range(100, 107)))
    monkeypatch.setattr("server.database.managers.cleanup.BATCH_SIZE", 3)
    runs = [run(number, study_id=uid(1), workers=(ONE,)) for number in range(100, 107)]
    async with database_of(backend, study(1, runs=worker.runs), worker, *runs) as database:
        sizes: list[int] = []
        commit = backend.commit

        async def counting(batch: WriteSet) -> bool:
            sizes.append(len(batch.read))
            return await commit(batch)

        monkeypatch.setattr(backend, "commit", counting)
        _, effects, _ = await doing(database, lambda work: database.logical_workers.delete(ONE, unit=work))
        assert max(sizes) <= 4
        assert gone_of(effects) == {ONE}
        assert len(updated_of(effects)) == 7
        _, effects, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert len(gone_of(effects)) == 8


async def test_everything_goes_and_nothing_else(backend: ResultsBackend) -> None:
    """All four kinds with their name maps, stale entries too; what is not Merlin's stays."""
    await backend.insert(linked())
    if isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.execute("CREATE TABLE notes (text TEXT)")
            connection.execute("INSERT INTO notes VALUES ('keep')")
            connection.commit()
    elif not isinstance(backend, MemoryBackend):
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            client.set("celery-task-meta-1", "result")
            client.hset("another", "field", "value")
            client.hset("study:foreign", "field", "value")
    if backend.name_maps:
        name_in_map(backend, EntityKind.STUDY, "stale", NOWHERE)
    others = read_store(backend).others
    async with opened(backend) as database:
        assert bool(others) == (not isinstance(backend, MemoryBackend))
        ids, effects, work = await doing(database, database.delete_everything)
        assert work.skipped == {}
        assert len(set(ids)) == len(ids) == len(effects) == 10
        assert read_store(backend) == Stored(others=others)
        assert {problem.kind for problem in await database.integrity()} <= {ProblemKind.UNREADABLE_VALUE}


async def test_a_name_that_is_anothers_stays(backend: ResultsBackend) -> None:
    """The entry of the name map goes only with the entity that it names."""
    if not backend.name_maps:
        pytest.skip("this store has no name maps")
    await backend.insert([study(1), run(2), physical_worker(3)])
    for kind, name in ((EntityKind.STUDY, "study_1"), (EntityKind.RUN, "/runs/run_2")):
        name_in_map(backend, kind, name, NOWHERE)
    async with opened(backend) as database:
        await doing(database, lambda work: database.studies.delete(uid(1), unit=work))
        await doing(database, lambda work: database.runs.delete(uid(2), work))
        await doing(database, lambda work: database.physical_workers.delete(uid(3), work))
        assert read_store(backend).names == {
            EntityKind.STUDY: {"study_1": NOWHERE},
            EntityKind.RUN: {"/runs/run_2": NOWHERE},
        }


async def test_what_is_gone_already_is_passed_over(backend: ResultsBackend) -> None:
    """Of several that are to go, those that are there go, and only they are told."""
    async with database_of(backend, *linked()) as database:
        ids, _, _ = await doing(database, lambda work: database.runs.delete_these([NOWHERE, uid(11)], work))
        assert ids == [uid(11)]
        ids, _, _ = await doing(database, lambda work: database.logical_workers.delete_these([NOWHERE, ONE], work))
        assert ids == [uid(21), ONE]
        ids, _, _ = await doing(database, lambda work: database.physical_workers.delete_these([uid(22), NOWHERE], work))
        assert ids == [uid(22)]


async def test_one_piece_of_work_is_told_as_one(backend: ResultsBackend) -> None:
    """What it makes and deletes again is not told, and what it makes and changes was made."""
    async with database_of(backend) as database:

        async def act(work: UnitOfWork) -> None:
            made = await database.runs.create("hello", "/runs/x", [QUEUE], unit=work)
            await database.runs.create("hello", "/runs/y", [QUEUE], unit=work)
            await database.runs.delete_these([made.id], work)

        _, effects, _ = await doing(database, act)
        assert Counter((effect.action, key.kind) for key, effect in effects.items()) == {
            (Action.CREATED, EntityKind.STUDY): 1,
            (Action.CREATED, EntityKind.RUN): 1,
        }
        assert await sound(database)


async def test_an_interrupted_deletion_leaves_less_and_sound(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were done stay done, the copy has them, and calling again does the rest."""
    monkeypatch.setattr("server.database.managers.cleanup.BATCH_SIZE", 1)
    async with database_of(backend, *linked()) as database:
        commit, left = backend.commit, [True]

        async def failing(batch: WriteSet) -> bool:
            if not left:
                raise BackendUnavailableError("gone")
            left.pop()
            return await commit(batch)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "commit", failing)
            with pytest.raises(BackendUnavailableError):
                await database.studies.delete("study_1")
        assert len(database.runs) == 2
        assert len(database.studies) == 2
        assert await sound(database)
        await database.studies.delete("study_1")
        assert (len(database.runs), len(database.studies)) == (1, 1)
        assert await sound(database)


async def test_a_change_that_is_always_interfered_with_is_given_up(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error that says so, and nothing changed."""
    async with database_of(backend, *linked()) as database:

        async def losing(batch: WriteSet) -> bool:
            return False

        monkeypatch.setattr("server.database.transactions.RETRY_TIMEOUT", 0.05)
        monkeypatch.setattr(backend, "commit", losing)
        await refused(database, ConflictError, None, lambda: database.runs.delete(uid(11)))


# --- old dialects -----------------------------------------------------------------------------------------------------


async def old_database(backend: ResultsBackend, *records: Model) -> None:
    """As a Merlin before 2.0.0b3 writes it."""
    if isinstance(backend, MemoryBackend):
        for record in records:
            backend.store(key_of(record), encode(record, LEGACY))
            backend._names[key_of(record).kind][str(getattr(record, "workspace", record.id))] = record.id
    elif isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.execute("ALTER TABLE run RENAME COLUMN run_status TO run_complete")
            connection.execute("ALTER TABLE physical_worker RENAME COLUMN worker_status TO status")
        await backend.insert(records)
    else:
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            for record in records:
                client.hset(str(key_of(record)), mapping=encode(record, LEGACY))


async def test_an_old_database_stays_one(backend: ResultsBackend) -> None:
    """Updates stay in the stored dialect, new records follow it, and a status it has no word for is refused."""
    owner = dataclasses.replace(logical_worker("one"), physical_workers=(uid(2),))
    await old_database(backend, run(1, run_status=RunStatus.RUNNING), owner, physical_worker(2, logical_worker_id=ONE))
    async with opened(backend) as database:
        await doing(database, lambda work: database.runs.update(uid(1), unit=work, run_status=RunStatus.COMPLETED))
        await doing(
            database,
            lambda work: database.physical_workers.update(uid(2), unit=work, worker_status=WorkerStatus.STALLED),
        )
        made = await database.runs.create("hello", "/runs/new", [QUEUE])
        assert made.status is database.runs.get(made.id).status is RunStatus.RUNNING
        worker = await database.physical_workers.create("w", logical_worker_id=ONE, worker_status=WorkerStatus.RUNNING)
        raw = read_store(backend).records
        old_run, new_run = raw[Key(EntityKind.RUN, uid(1))], raw[Key(EntityKind.RUN, made.id)]
        assert (old_run["run_complete"], new_run["run_complete"]) == ("True", "False")
        assert old_run.keys() == new_run.keys() == encode(RunModel("", ""), LEGACY).keys()
        statuses = [raw[Key(EntityKind.PHYSICAL_WORKER, id_)]["status"] for id_ in (uid(2), worker.id)]
        assert statuses == ["WorkerStatus.STALLED", "WorkerStatus.RUNNING"]
        assert all("worker_status" not in fields for fields in raw.values())
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.QUEUED, RunStatus.INITIALIZED):
            await refused(
                database, InvalidValueError, "run_status", partial(database.runs.update, uid(1), run_status=status)
            )
            await refused(
                database,
                InvalidValueError,
                "run_status",
                partial(database.runs.create, "hello", "/runs/other", [QUEUE], run_status=status),
            )


async def test_a_setting_overrides_the_dialect() -> None:
    """New records are written in it, whatever stands there; those that stand keep theirs."""
    backend = MemoryBackend()
    await backend.insert([run(1)])
    async with opened(backend, dialect=LEGACY) as database:
        made = await database.runs.create("hello", "/runs/x", [QUEUE])
        await database.runs.update(uid(1), run_status=RunStatus.FAILED)
        raw = read_store(backend).records
        assert raw[Key(EntityKind.RUN, made.id)]["run_complete"] == "False"
        assert raw[Key(EntityKind.RUN, uid(1))]["run_status"] == "FAILED"
        assert "run_complete" not in raw[Key(EntityKind.RUN, uid(1))]


@pytest.mark.parametrize("version", ["1.13.0b1", "2.0.0b2"])
async def test_a_file_of_an_old_merlin_is_written_in_its_columns(tmp_path: Path, version: str) -> None:
    """Into the tables that the old Merlin made, an INTEGER `restart_count` among them."""
    path = tmp_path / "merlin.db"
    merlins_file(path, version).create(study(1), run(2, study_id=uid(1)))
    backend = SQLiteBackend(f"sqlite:///{path}")
    async with opened(backend) as database:
        made = await database.runs.create("study_1", "/runs/new", [QUEUE], run_status=RunStatus.COMPLETED)
        owner = await database.logical_workers.create("one", [QUEUE])
        worker = await database.physical_workers.create(
            "w", logical_worker_id=owner.id, worker_status=WorkerStatus.RUNNING, restart_count=2
        )
        raw = read_store(backend).records
        assert raw[Key(EntityKind.RUN, made.id)]["run_complete"] == "True"
        assert raw[Key(EntityKind.PHYSICAL_WORKER, worker.id)]["status"] == "WorkerStatus.RUNNING"
        assert database.physical_workers.get("w").record == worker.record


# --- integrity --------------------------------------------------------------------------------------------------------

K, E = ProblemKind, EntityKind
MINIMAL: dict[
    str, tuple[tuple[Model, ...], list[tuple[ProblemKind, EntityKind, str, str | None, str | None, bool]]]
] = {
    "dangling study": ((run(1, study_id=NOWHERE),), [(K.DANGLING_REFERENCE, E.RUN, uid(1), "study_id", NOWHERE, True)]),
    "dangling run": (
        (study(1, runs=(NOWHERE, uid(2))), run(2, study_id=uid(1))),
        [(K.DANGLING_REFERENCE, E.STUDY, uid(1), "runs", NOWHERE, True)],
    ),
    "dangling study without a name": (
        (run(1, "/runs/2026_20260102-030405", study_id=NOWHERE),),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "study_id", NOWHERE, False)],
    ),
    "dangling logical worker": (
        (physical_worker(1, logical_worker_id=NOWHERE, worker_status=WorkerStatus.RUNNING),),
        [(K.DANGLING_REFERENCE, E.PHYSICAL_WORKER, uid(1), "logical_worker_id", NOWHERE, False)],
    ),
    "dangling parent": (
        housed(run(1, parent=NOWHERE)),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "parent", NOWHERE, True)],
    ),
    "dangling worker": (
        housed(run(1, workers=(NOWHERE,))),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "workers", NOWHERE, True)],
    ),
    "run not listed": (
        (study(1), run(2, study_id=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "study_id", uid(1), True)],
    ),
    "study not named": (
        (study(1, runs=(uid(2),)), run(2)),
        [(K.ONE_SIDED_REFERENCE, E.STUDY, uid(1), "runs", uid(2), True)],
    ),
    "run of two studies": (
        (study(1, runs=(uid(3),)), study(2, runs=(uid(3),)), run(3, study_id=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.STUDY, uid(2), "runs", uid(3), True)],
    ),
    "child not named": (
        housed(run(1), run(2, parent=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "parent", uid(1), True)],
    ),
    "second child": (
        housed(run(1, child=uid(2)), run(2, parent=uid(1)), run(3, parent=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(3), "parent", uid(1), False)],
    ),
    "duplicate": (
        (study(1, runs=(uid(2), uid(2))), run(2, study_id=uid(1))),
        [(K.DUPLICATE_REFERENCE, E.STUDY, uid(1), "runs", uid(2), True)],
    ),
    "empty study": ((study(1),), [(K.EMPTY_STUDY, E.STUDY, uid(1), None, None, False)]),
    "orphan logical worker": ((logical_worker("one"),), [(K.ORPHAN_WORKER, E.LOGICAL_WORKER, ONE, None, None, False)]),
    "orphan physical worker": (
        (physical_worker(1, logical_worker_id=NOWHERE),),
        [
            (K.DANGLING_REFERENCE, E.PHYSICAL_WORKER, uid(1), "logical_worker_id", NOWHERE, False),
            (K.ORPHAN_WORKER, E.PHYSICAL_WORKER, uid(1), None, None, False),
        ],
    ),
    "nothing": (linked(), []),
    "alive workers": (
        (
            dataclasses.replace(logical_worker("one"), physical_workers=(uid(1),)),
            physical_worker(1, worker_status=WorkerStatus.STALLED, logical_worker_id=ONE),
        ),
        [],
    ),
}
"""Databases, and all that is to be said of each."""


def shown(problem: Problem) -> tuple[ProblemKind, EntityKind, str, str | None, str | None, bool]:
    return problem.kind, problem.key.kind, problem.key.id, problem.field, problem.other_id, problem.repairable


async def check_repair(database: MerlinDatabase) -> None:
    """It mends all that it can, at once, and has nothing left to do; dry it changes nothing."""
    repairable = [problem for problem in await database.integrity() if problem.repairable]
    others = [problem for problem in await database.integrity() if not problem.repairable]
    mended, _, _ = await doing(database, database.repair)
    assert mended == repairable
    left = await database.integrity()
    assert [problem for problem in left if problem.repairable] == []
    assert [problem for problem in others if problem not in left and problem.kind is not K.ORPHAN_WORKER] == []
    again, nothing, _ = await doing(database, database.repair)
    assert (again, nothing) == ([], {})


@pytest.mark.parametrize("case", MINIMAL)
async def test_each_problem_is_reported_alone_and_repaired(backend: ResultsBackend, case: str) -> None:
    """The smallest database with a problem has no other; what can be mended is, and stays so."""
    records, expected = MINIMAL[case]
    async with database_of(backend, *records) as database:
        assert [shown(problem) for problem in await problems_of(database)] == expected
        await check_repair(database)


async def test_two_children_keep_their_parent(backend: ResultsBackend) -> None:
    """A parent that names neither gets one of them, and the other's parent is not lost."""
    records = housed(run(1), run(2, parent=uid(1)), run(3, parent=uid(1)))
    async with database_of(backend, *records) as database:
        await doing(database, database.repair)
        assert {database.runs.get(uid(number)).record.parent for number in (2, 3)} == {uid(1)}
        child = database.runs.get(uid(1)).record.child
        assert child in (uid(2), uid(3))
        other = uid(3) if child == uid(2) else uid(2)
        assert [(shown(problem)[2], problem.repairable) for problem in await problems_of(database)] == [(other, False)]


async def test_unreadable_values_are_reported_and_left(backend: ResultsBackend) -> None:
    """What hangs on a list that can't be read is no garbage and can't be mended, and its text stays."""
    await backend.insert([study(1), run(2, study_id=uid(1)), study(3), logical_worker("one"), *housed(run(4))])
    change(backend, Key(E.STUDY, uid(1)), {"runs": "[broken"})
    change(backend, Key(E.STUDY, uid(3)), {"runs": "[broken"})
    change(backend, Key(E.LOGICAL_WORKER, ONE), {"runs": "[broken"})
    change(backend, Key(E.RUN, uid(4)), {"samples": "{broken"})
    async with opened(backend) as database:
        problems = {shown(problem) for problem in await problems_of(database)}
        assert problems == {
            (K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "study_id", uid(1), False),
            (K.UNREADABLE_VALUE, E.STUDY, uid(1), "runs", None, False),
            (K.UNREADABLE_VALUE, E.STUDY, uid(3), "runs", None, False),
            (K.UNREADABLE_VALUE, E.LOGICAL_WORKER, ONE, "runs", None, False),
            (K.UNREADABLE_VALUE, E.RUN, uid(4), "samples", None, False),
        }
        await check_repair(database)
        ids, _, _ = await doing(database, lambda work: database.collect_garbage(work, tuple(EntityKind)))
        assert ids == []


async def test_duplicate_names_are_reported(backend: ResultsBackend) -> None:
    """By the run that Merlin does not find by the workspace."""
    async with database_of(backend, *housed(run(1, "/same"), run(2, "/same"))) as database:
        owner = (await backend.name_owners(E.RUN, ["/same"]))["/same"]
        other = uid(2) if owner == uid(1) else uid(1)
        assert [shown(problem) for problem in await problems_of(database)] == [
            (K.DUPLICATE_NAME, E.RUN, other, "workspace", owner, False)
        ]


@pytest.mark.parametrize("wrong", ["missing", "stale", "gone", "taken"])
async def test_name_maps_are_compared_and_repaired(backend: ResultsBackend, wrong: str) -> None:
    """A name that is missing, an entry of a name that nobody has, and one that names another or nobody."""
    if not backend.name_maps:
        pytest.skip("this store has no name maps")
    await backend.insert(housed(run(1), run(2)))
    match wrong:
        case "missing":
            name_in_map(backend, E.RUN, "/runs/run_1", None)
        case "stale":
            name_in_map(backend, E.RUN, "/runs/old", uid(1))
        case "gone":
            name_in_map(backend, E.RUN, "/runs/run_1", NOWHERE)
        case _:
            name_in_map(backend, E.RUN, "/runs/run_1", uid(2))
    async with opened(backend) as database:
        problems = await problems_of(database)
        assert {(problem.kind, problem.repairable) for problem in problems} == {(K.NAME_INDEX_MISMATCH, True)}
        assert {problem.name for problem in problems} == {"/runs/old" if wrong == "stale" else "/runs/run_1"}
        await check_repair(database)
        assert read_store(backend).names[E.RUN] == {"/runs/run_1": uid(1), "/runs/run_2": uid(2)}


async def test_garbage_is_what_is_idle(backend: ResultsBackend) -> None:
    """Empty studies; where asked for, workers that nothing names, with their instances, unless one may live."""
    worker = dataclasses.replace(logical_worker("kept"), physical_workers=(uid(31),))
    idle = dataclasses.replace(logical_worker("idle"), physical_workers=(uid(32),))
    garbage = {
        uid(3),
        idle.id,
        uid(32),
        uid(33),
    }
    await backend.insert(
        [
            *linked(),
            study(3),
            worker,
            physical_worker(31, logical_worker_id=worker.id, worker_status=WorkerStatus.STALLED),
            idle,
            physical_worker(32, logical_worker_id=idle.id),
            physical_worker(33),
            physical_worker(34, worker_status=WorkerStatus.RUNNING),
            physical_worker(35),
        ]
    )
    change(backend, Key(E.PHYSICAL_WORKER, uid(35)), {"worker_status": "?"})
    async with opened(backend) as database:
        ids, _, _ = await doing(database, database.collect_garbage)
        assert ids == [uid(3)]
        ids, effects, _ = await doing(database, lambda work: database.collect_garbage(work, tuple(EntityKind)))
        assert {*ids, uid(3)} == garbage
        assert updated_of(effects) == {}


async def test_garbage_is_looked_at_again(backend: ResultsBackend) -> None:
    """What got a run, or a process, after the report is no garbage any more."""
    idle = logical_worker("idle")
    async with database_of(backend, study(1), idle, physical_worker(2)) as database:
        reported = await problems_of(database)
        assert len(reported) == 3
        await backend.insert([run(9, study_id=uid(1), workers=(idle.id,))])
        change(backend, Key(E.STUDY, uid(1)), {"runs": json.dumps([uid(9)])})
        change(backend, Key(E.LOGICAL_WORKER, idle.id), {"runs": json.dumps([uid(9)])})
        change(backend, Key(E.PHYSICAL_WORKER, uid(2)), {"worker_status": "RUNNING"})
        work = database.unit()
        assert await database.collect_garbage(work, tuple(EntityKind)) == []
        assert decode(E.STUDY, uid(1), read_store(backend).records[Key(E.STUDY, uid(1))]).record is not None


async def test_a_partner_that_is_no_record_is_skipped(redis_server: RedisServer) -> None:
    """What stands under a partner's key and is no hash never stops a deletion, and stays."""
    key = f"logical_worker:{uid(31)}"
    async with opened(make_backend(redis_server.url, BackendOptions())) as database:
        await database.backend.insert([study(1, runs=(uid(11),)), run(11, study_id=uid(1), workers=(uid(31),))])
        with redis_server.client() as client:
            client.set(key, "text")
            await database.feed.refresh([Key(EntityKind.RUN, uid(11)), Key(EntityKind.STUDY, uid(1))])
            work = database.unit()
            assert await database.runs.delete(uid(11), work) == [uid(11)]
            await work.finish()
            assert list(work.skipped) == [Key(EntityKind.LOGICAL_WORKER, uid(31))]
            assert client.get(key) in ("text", b"text")
