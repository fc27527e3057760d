"""How grave a problem is: an ERROR is what real Merlin fails at, and nothing else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.integrity import FIELD_SEVERITIES, SEVERITIES, SIDES, ProblemKind, Severity
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import KINDS, EntityKind, Entry, Key, Model, UnreadableValue, name_of
from tests.support.asking import ask
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.raw_store import change, name_in_map
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.serving import run as command

pytestmark = pytest.mark.anyio

K, E, S = ProblemKind, EntityKind, Severity
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "writing.md").read_text()
QUEUE = "[merlin]_q"
NOWHERE = uid(99)
TIME = datetime(2026, 1, 2, 3, 4, 5, 6)
A, B = logical_worker("a"), logical_worker("b")

SOUND: Mapping[str, Model] = {
    "study": study(1, runs=(uid(11), uid(12))),
    "other study": study(2, runs=(uid(13),)),
    "run": run(11, study_id=uid(1), workers=(A.id,)),
    "second run": run(12, study_id=uid(1), workers=(A.id, B.id)),
    "other run": run(13, study_id=uid(2), workers=(B.id,)),
    "worker": replace(A, runs=(uid(11), uid(12)), physical_workers=(uid(21),)),
    "other worker": replace(B, runs=(uid(12), uid(13)), physical_workers=(uid(22),)),
    "instance": physical_worker(21, logical_worker_id=A.id, heartbeat_timestamp=TIME, latest_start_time=TIME, host="h"),
    "other instance": physical_worker(22, logical_worker_id=B.id, heartbeat_timestamp=TIME, latest_start_time=TIME),
}
"""All links on both sides."""


@dataclass(frozen=True)
class Case:
    """What differs from the sound records, and what is to be said of it; beside that, only what is INFO."""

    kind: ProblemKind
    entity_kind: EntityKind
    field: str | None
    severity: Severity
    changes: Mapping[str, Mapping[str, Any] | None]
    """By record: fields of the model, and those below `raw`, as they are stored; None where it is gone."""

    def records(self, workspaces: Path) -> list[tuple[Model, dict[str, Any]]]:
        """With what is stored of each; Merlin makes the workspaces."""
        found = []
        for name, sound in {**SOUND, **BARE}.items():
            if name not in self.changes and name in BARE:
                continue
            fields = self.changes.get(name, {})
            if fields is None:
                continue
            stored: Any = dict(fields)
            raw = stored.pop("raw", {})
            if sound.id in (uid(number) for number in (11, 12, 13, 14)) and "workspace" not in stored:
                stored["workspace"] = str(workspaces / sound.id)
            record: Any = replace(sound, **stored)
            found.append((record, {**encode(record), **raw}))
        return found


BARE: Mapping[str, Model] = {
    "bare study": study(3),
    "bare run": run(14, study_id=uid(1)),
    "bare worker": logical_worker("c"),
}
"""Without links, so that nothing else is to be said where their lists can't be read; only in cases that name them."""


def case(
    kind: ProblemKind,
    entity_kind: EntityKind,
    field: str | None,
    severity: Severity,
    **changes: Mapping[str, Any] | None,
) -> Case:
    return Case(
        kind, entity_kind, field, severity, {name.replace("_", " "): fields for name, fields in changes.items()}
    )


def unreadable(entity_kind: EntityKind, field: str, severity: Severity, name: str, stored: Any) -> Case:
    return case(K.UNREADABLE_VALUE, entity_kind, field, severity, **{name: {"raw": {field: stored}}})


ELSEWHERE = {K.NAME_INDEX_MISMATCH, K.WRONG_TIME_ZONE, K.RESURRECTED, K.OUTDATED_TABLE}
"""Kinds that other tests of this folder try with Merlin."""
CASES = [
    case(K.DANGLING_REFERENCE, E.STUDY, "runs", S.ERROR, study={"runs": (uid(11), uid(12), NOWHERE)}),
    case(K.DANGLING_REFERENCE, E.RUN, "study_id", S.ERROR, other_run={"study_id": NOWHERE}, other_study=None),
    case(K.DANGLING_REFERENCE, E.RUN, "workers", S.ERROR, run={"workers": (A.id, NOWHERE)}),
    case(K.DANGLING_REFERENCE, E.RUN, "parent", S.WARNING, run={"parent": NOWHERE}),
    case(K.DANGLING_REFERENCE, E.RUN, "child", S.WARNING, run={"child": NOWHERE}),
    case(K.DANGLING_REFERENCE, E.LOGICAL_WORKER, "runs", S.WARNING, worker={"runs": (uid(11), uid(12), NOWHERE)}),
    case(
        *(K.DANGLING_REFERENCE, E.LOGICAL_WORKER, "physical_workers", S.ERROR),
        worker={"physical_workers": (uid(21), NOWHERE)},
    ),
    case(
        *(K.DANGLING_REFERENCE, E.PHYSICAL_WORKER, "logical_worker_id", S.WARNING),
        instance={"logical_worker_id": NOWHERE},
        worker={"physical_workers": ()},
    ),
    case(K.ONE_SIDED_REFERENCE, E.STUDY, "runs", S.ERROR, other_study={"runs": (uid(13), uid(11))}),
    case(K.ONE_SIDED_REFERENCE, E.STUDY, "runs", S.ERROR, other_run={"study_id": None}),
    case(K.ONE_SIDED_REFERENCE, E.RUN, "study_id", S.ERROR, study={"runs": (uid(12),)}),
    case(K.ONE_SIDED_REFERENCE, E.LOGICAL_WORKER, "runs", S.ERROR, run={"workers": ()}),
    case(K.ONE_SIDED_REFERENCE, E.RUN, "workers", S.ERROR, worker={"runs": (uid(12),)}),
    case(
        *(K.ONE_SIDED_REFERENCE, E.LOGICAL_WORKER, "physical_workers", S.INFO),
        other_worker={"physical_workers": (uid(22), uid(21))},
    ),
    case(K.ONE_SIDED_REFERENCE, E.LOGICAL_WORKER, "physical_workers", S.ERROR, instance={"logical_worker_id": None}),
    case(K.ONE_SIDED_REFERENCE, E.PHYSICAL_WORKER, "logical_worker_id", S.ERROR, worker={"physical_workers": ()}),
    case(K.ONE_SIDED_REFERENCE, E.RUN, "child", S.WARNING, run={"child": uid(12)}),
    case(K.ONE_SIDED_REFERENCE, E.RUN, "parent", S.WARNING, run={"parent": uid(12)}),
    case(K.DUPLICATE_REFERENCE, E.STUDY, "runs", S.ERROR, study={"runs": (uid(11), uid(12), uid(12))}),
    case(K.DUPLICATE_REFERENCE, E.LOGICAL_WORKER, "runs", S.ERROR, worker={"runs": (uid(11), uid(12), uid(12))}),
    case(K.DUPLICATE_REFERENCE, E.RUN, "workers", S.ERROR, run={"workers": (A.id, A.id)}),
    case(
        *(K.DUPLICATE_REFERENCE, E.LOGICAL_WORKER, "physical_workers", S.INFO),
        worker={"physical_workers": (uid(21), uid(21))},
    ),
    case(K.MISSING_REFERENCE, E.RUN, "study_id", S.ERROR, other_run={"study_id": None}, other_study=None),
    case(
        *(K.MISSING_REFERENCE, E.PHYSICAL_WORKER, "logical_worker_id", S.ERROR),
        instance={"logical_worker_id": None},
        worker={"physical_workers": ()},
    ),
    case(K.DUPLICATE_NAME, E.STUDY, "name", S.WARNING, other_study={"name": "study_1"}),
    case(K.DUPLICATE_NAME, E.PHYSICAL_WORKER, "name", S.WARNING, other_instance={"name": "celery@worker_21.host"}),
    case(K.EMPTY_STUDY, E.STUDY, None, S.INFO, bare_study={}),
    case(K.ORPHAN_WORKER, E.LOGICAL_WORKER, None, S.INFO, bare_worker={}),
    unreadable(E.STUDY, "name", S.ERROR, "study", None),
    unreadable(E.STUDY, "runs", S.ERROR, "bare study", "[x"),
    unreadable(E.STUDY, "additional_data", S.WARNING, "study", "{x"),
    unreadable(E.STUDY, "additional_data", S.ERROR, "study", b'{"a": "\xe9"}'),
    unreadable(E.RUN, "workspace", S.ERROR, "run", None),
    unreadable(E.RUN, "run_status", S.ERROR, "run", "NONSENSE"),
    case(
        *(K.UNREADABLE_VALUE, E.RUN, "workers", S.ERROR),
        bare_run={"raw": {"workers": "[x"}},
        study={"runs": (uid(11), uid(12), uid(14))},
    ),
    unreadable(E.RUN, "queues", S.WARNING, "run", '["\\ud800"]'),
    unreadable(E.RUN, "steps", S.WARNING, "run", "[x"),
    unreadable(E.RUN, "parameters", S.WARNING, "run", '{"\\ud800": 1}'),
    unreadable(E.LOGICAL_WORKER, "name", S.ERROR, "worker", None),
    unreadable(E.LOGICAL_WORKER, "queues", S.ERROR, "worker", '{"__set__": ["\\ud800"]}'),
    unreadable(E.LOGICAL_WORKER, "runs", S.ERROR, "bare worker", "[x"),
    unreadable(E.LOGICAL_WORKER, "physical_workers", S.ERROR, "bare worker", "[x"),
    unreadable(E.PHYSICAL_WORKER, "name", S.ERROR, "instance", None),
    unreadable(E.PHYSICAL_WORKER, "worker_status", S.ERROR, "instance", "NONSENSE"),
    unreadable(E.PHYSICAL_WORKER, "restart_count", S.ERROR, "instance", "x"),
    unreadable(E.PHYSICAL_WORKER, "heartbeat_timestamp", S.WARNING, "instance", "x"),
    unreadable(E.PHYSICAL_WORKER, "args", S.WARNING, "instance", "{x"),
    unreadable(E.PHYSICAL_WORKER, "host", S.ERROR, "instance", b"\xe9"),
]


def test_every_kind_has_a_severity() -> None:
    """And a row in docs/writing.md; every reference, and every field that makes a difference, is among the cases."""
    assert SEVERITIES.keys() == set(ProblemKind)
    assert [kind for kind in ProblemKind if f"`{kind}`" not in DOCUMENTED] == []
    tried = {(it.kind, it.entity_kind, it.field) for it in CASES}
    references = {(kind, *side) for side in SIDES for kind in (K.DANGLING_REFERENCE, K.ONE_SIDED_REFERENCE)}
    assert tried >= FIELD_SEVERITIES.keys() | references
    assert {it.kind for it in CASES} | ELSEWHERE == set(ProblemKind)


class Site:
    """Real Merlin over a file, whose rows a test sets."""

    def __init__(self, merlin: Merlin, workspaces: Path) -> None:
        self.merlin = merlin
        self.workspaces = workspaces
        self.rows: list[tuple[EntityKind, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"sqlite:///{self.merlin.database_file}"

    def store(self) -> None:
        """As it was: Merlin's commands change it."""
        with closing(sqlite3.connect(self.merlin.database_file)) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # a thousand times: the disk need not have it
            for kind in EntityKind:
                connection.execute(f"DELETE FROM {kind}")
            for kind, row in self.rows:
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {kind} ({', '.join(row)}) VALUES ({places})", list(row.values()))
            connection.commit()

    def load(self) -> None:
        """What stands now is what `store` brings back."""
        self.rows = []
        with closing(sqlite3.connect(self.merlin.database_file)) as connection:
            connection.row_factory = sqlite3.Row
            for kind in EntityKind:
                self.rows += [(kind, dict(row)) for row in connection.execute(f"SELECT * FROM {kind}")]

    def failure(self, records: list[Model]) -> str | None:
        """The first command that fails, and why; each is given the same database."""
        for name, attempt in self._commands(records):
            self.store()
            try:
                attempt()
            except MerlinError as error:
                self.store()
                return f"{name}: {error}"
        self.store()
        return None

    def _commands(self, records: list[Model]) -> Iterator[tuple[str, Callable[[], object]]]:
        """What Merlin's command line, its workers and its monitor do with a database."""
        keys = [Key(KINDS[type(record)], record.id) for record in records]
        yield "database get everything", partial(self._get_everything, keys)
        for kind in EntityKind:
            yield f"database delete all of {kind}", partial(self.merlin.call, "delete_all", kind.value)
        for key in keys:
            yield f"database delete {key}", partial(self.merlin.call, "delete", key.kind.value, key.id)
        names = {kind: [name_of(record) for record in records if KINDS[type(record)] is kind] for kind in EntityKind}
        yield "run", partial(self._run, names[E.STUDY])
        yield "monitor", partial(self._monitor, [key.id for key in keys if key.kind is E.RUN])
        yield "run-workers, stop-workers", partial(self._work, keys, names[E.PHYSICAL_WORKER])

    def _get_everything(self, keys: list[Key]) -> None:
        found = [Key(kind, id_) for kind in EntityKind for id_ in self.merlin.call("get_all", kind.value)]
        if lost := set(keys) - set(found):
            raise MerlinError(f"Merlin does not find {lost}")
        for key in found:
            self.merlin.entity(key.kind.value, key.id, "__str__")

    def _run(self, names: Iterable[str | None]) -> None:
        """As `merlin run` makes its records, of each study."""
        for number, name in enumerate(names):
            workspace = str(self.workspaces / f"new {number}")
            made = self.merlin.call("runs.create", study_name=name, workspace=workspace, queues=[QUEUE])
            for worker in (row["id"] for kind, row in self.rows if kind is E.LOGICAL_WORKER):
                self.merlin.entity("logical_worker", worker, "add_run", made)
                self.merlin.entity("run", made, "add_worker", worker)

    def _monitor(self, run_ids: Iterable[str]) -> None:
        """As `merlin monitor` begins with each run: `Monitor.wait_for_workers`."""
        for id_ in run_ids:
            for worker_id in self.merlin.entity("run", id_, "get_workers"):
                self.merlin.entity("logical_worker", worker_id, "get_name")

    def _work(self, keys: Iterable[Key], names: Iterable[str | None]) -> None:
        """What workers write: the status of their run, and their own."""
        for key in keys:
            if key.kind is E.RUN:
                self.merlin.entity("run", key.id, "set_run_status", "RUNNING")
        for name in names:
            self.merlin.entity("physical_worker", str(name), "set_worker_status", "STOPPED")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("merlin")
    with Merlin(home) as merlin:
        yield Site(merlin, home / "workspaces")


@pytest.mark.parametrize(
    "case", CASES, ids=lambda it: f"{it.kind}-{it.entity_kind}-{it.field}-{it.severity}".lower().replace("_", "-")
)
async def test_an_error_is_what_merlin_fails_at(site: Site, case: Case) -> None:
    """What is less leaves every command working; and what `repair` can mend works after it."""
    async with opened(SQLiteBackend(site.url)):
        pass  # makes the tables: physical workers of Merlin's own can't be read back
    stored = case.records(site.workspaces)
    site.rows = [(KINDS[type(record)], row) for record, row in stored]
    records = [record for record, _ in stored]
    failure = site.failure(records)
    assert (failure is not None) == (case.severity is Severity.ERROR), failure
    async with opened(SQLiteBackend(site.url)) as database:
        found = await database.integrity()
        (problem,) = [
            it for it in found if (it.kind, it.key.kind, it.field) == (case.kind, case.entity_kind, case.field)
        ]
        assert problem.severity is case.severity
        assert {it.severity for it in found if it is not problem} <= {Severity.INFO}
        work = database.unit()
        await database.repair(work)
        left = await database.integrity()
    site.load()
    assert not problem.repairable or problem not in left
    if problem.repairable and failure:
        failure = site.failure(records)
        assert (failure is not None) == any(it.severity is Severity.ERROR for it in left), failure
        assert failure is None, failure


async def test_a_healthy_site_is_green(site: Site) -> None:
    """Runs, a worker that is launched again, one that two specifications share, an empty study, idle workers: INFO."""
    async with opened(SQLiteBackend(site.url)):
        pass
    site.rows = []
    site.store()
    merlin = site.merlin
    for number in range(3):
        made = merlin.call("runs.create", study_name="s", workspace=str(site.workspaces / str(number)), queues=[QUEUE])
        for name in "ab":
            worker = merlin.call("logical_workers.create", name, {QUEUE})
            merlin.entity("logical_worker", worker, "add_run", made)
            merlin.entity("run", made, "add_worker", worker)
    for name in "aab":  # as `merlin.celery.handle_worker_startup`: a launches twice, and b's process has its name
        worker = merlin.call("logical_workers.create", name, {QUEUE})
        process = merlin.call("physical_workers.create", "celery@default_worker.%h", logical_worker_id=worker)
        merlin.entity("logical_worker", worker, "add_physical_worker", process)
    merlin.call("studies.create", "empty")
    merlin.call("logical_workers.create", "idle", {QUEUE})
    async with opened(SQLiteBackend(site.url)) as database:
        found = await database.integrity()
    assert {it.severity for it in found} == {Severity.INFO}
    assert {it.kind for it in found} == {
        *(K.DUPLICATE_REFERENCE, K.ONE_SIDED_REFERENCE, K.EMPTY_STUDY, K.ORPHAN_WORKER)
    }


# --- on Redis -----------------------------------------------------------------------------------------------------


REDIS: Mapping[str, tuple[ProblemKind, Severity, Callable[[Any], None]]] = {
    "a name that the map lacks": (K.NAME_INDEX_MISMATCH, S.ERROR, lambda b: name_in_map(b, E.STUDY, "study_1", None)),
    "an entry of nobody": (K.NAME_INDEX_MISMATCH, S.ERROR, lambda b: name_in_map(b, E.STUDY, "gone", NOWHERE)),
    "a record under another key": (
        *(K.UNREADABLE_VALUE, S.ERROR),
        lambda b: change(b, Key(E.STUDY, "copy"), encode(SOUND["study"])),
    ),
    "a hash that is no record": (
        *(K.UNREADABLE_VALUE, S.WARNING),
        lambda b: change(b, Key(E.STUDY, "lock"), {"held": "by somebody"}),
    ),
}


@pytest.mark.parametrize("wrong", REDIS)
async def test_an_error_is_what_merlin_fails_at_on_redis(redis_server: RedisServer, tmp_path: Path, wrong: str) -> None:
    """By names it finds what it should, or it is an ERROR."""
    kind, severity, spoil = REDIS[wrong]
    backend = make_backend(redis_server.url, BackendOptions())
    await backend.open()
    await backend.insert(list(SOUND.values()))
    spoil(backend)
    async with opened(backend) as database:
        (problem,) = await database.integrity()
        assert (problem.kind, problem.severity) == (kind, severity)
    failed = False
    with Merlin(tmp_path / "home", redis_server.url) as merlin:
        try:
            assert merlin.call("studies.get", "study_1") == uid(1)
            made = merlin.call("studies.create", "gone")
            assert merlin.call("studies.get", "gone") == made
            merlin.call("delete_all", "study", remove_associated_runs=False)
        except MerlinError:
            failed = True
    assert failed == (severity is Severity.ERROR)


# --- as it is told ------------------------------------------------------------------------------------------------


async def test_the_severity_and_readable_ids_are_told() -> None:
    """Also of what stands under bytes that are no text."""
    database = MerlinDatabase(MemoryBackend(), "1")
    key = Key(E.STUDY, "caf\udce9")
    worker = logical_worker("idle")
    database.read_model.apply(
        [
            Entry(key, None, (UnreadableValue(None, "It is no record.", fails_merlin=True),)),
            Entry(Key(E.LOGICAL_WORKER, worker.id), worker),
        ]
    )
    told = (await ask(database, "{ integrity { problems { kind severity entityId } } }"))["integrity"]["problems"]
    assert orjson.loads(orjson.dumps(told)) == [  # takes no lone surrogate
        {"kind": "UNREADABLE_VALUE", "severity": "ERROR", "entityId": "caf\N{REPLACEMENT CHARACTER}"},
        {"kind": "ORPHAN_WORKER", "severity": "INFO", "entityId": worker.id},
    ]


async def test_from_the_shell(tmp_path: Path) -> None:
    """`merlin database delete` fails, `integrity` says so by its exit code, mends it, and Merlin's command works."""
    with Merlin(tmp_path / "home") as merlin:
        url = f"sqlite:///{merlin.database_file}"
        backend = SQLiteBackend(url)
        await backend.open()
        workspace = str(tmp_path / "run")
        await backend.insert([study(1), run(11, workspace, study_id=uid(1)), study(2)])  # the study does not list it
        await backend.close()
        delete = ("database", "delete", "run", uid(11))
        with pytest.raises(MerlinError, match=r"x not in list"):
            merlin.cli(*delete)
        home = tmp_path / "home"
        assert command(home, "integrity", "--database", url).returncode == 1
        mended = command(home, "integrity", "--repair", "--database", url)
        assert (mended.returncode, mended.stdout.splitlines()[-1]) == (0, "1 problems: 1 INFO; 1 repaired")
        assert command(home, "integrity", "--level", "info", "--database", url).returncode == 1
        merlin.cli(*delete)
        assert f"{uid(1)}" in merlin.cli("database", "get", "all-studies")
