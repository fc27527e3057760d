"""What the managers change, on every backend, beside others who write the same records."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.sqlite import SQLiteBackend
from server.database.backends.write_set import WriteSet
from server.database.effects import Action, Effect
from server.database.errors import (
    ConflictError,
    InvalidValueError,
    MissingPartnerError,
)
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    RunStatus,
    WorkerStatus,
)
from tests.conftest import Store
from tests.support.asking import ask
from tests.support.managers import NOWHERE, ONE, QUEUE, TWO, E, K, database_of, doing, housed, linked, refused, sound
from tests.support.raw_store import change, read_store
from tests.support.records import logical_worker, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio


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

    async def late(batch: WriteSet, *_: object) -> bool:
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

        async def late(batch: WriteSet, *_: object) -> bool:
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
