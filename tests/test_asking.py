"""Filters, orders, counts and pages, against a naive reading of the plain records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.database import ordered
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
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
from tests.asking import ask, execute
from tests.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
Said: TypeAlias = dict[str, Any]
"""A filter, as a client's variables say it."""


async def refusal(database: MerlinDatabase, query: str, **variables: Any) -> str:
    """The message of an answer's only error, which is the client's fault."""
    (error,) = (await execute(database, query, variables)).errors
    assert error.extensions["code"] == "BAD_USER_INPUT"
    return error.message


# --- the reference -----------------------------------------------------------------------------------------------


def instant(naive: datetime | None) -> datetime | None:
    return None if naive is None else naive.replace(tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """The plain records, read without any index."""

    studies: Sequence[StudyModel]
    runs: Sequence[RunModel]
    workers: Sequence[LogicalWorkerModel]
    processes: Sequence[PhysicalWorkerModel]

    @property
    def records(self) -> list[Model]:
        return [*self.studies, *self.runs, *self.workers, *self.processes]

    def of_study(self, owner: StudyModel) -> list[RunModel]:
        return [one for one in self.runs if one.study_id == owner.id or one.id in owner.runs]

    def of_worker(self, owner: LogicalWorkerModel) -> list[RunModel]:
        return [one for one in self.runs if owner.id in one.workers or one.id in owner.runs]

    def instances_of(self, owner: LogicalWorkerModel) -> list[PhysicalWorkerModel]:
        return [one for one in self.processes if one.logical_worker_id == owner.id or one.id in owner.physical_workers]

    def study_of(self, member: RunModel) -> StudyModel | None:
        owners = [one for one in self.studies if member in self.of_study(one)]
        return min(owners, key=lambda one: (one.id != member.study_id, one.name, one.id), default=None)


Meaning: TypeAlias = dict[str, Callable[[Any, Any], bool]]
"""What each key of a filter asks: of what the client says, and of the value."""

OF_VALUES: Meaning = {
    "eq": lambda it, value: bool(value == it),
    "in": lambda it, value: value in it,
    "notIn": lambda it, value: value not in it,
    "isNull": lambda it, value: (value is None) == it,
    "contains": lambda it, value: value is not None and it in value,
    "startsWith": lambda it, value: value is not None and value.startswith(it),
    "endsWith": lambda it, value: value is not None and value.endswith(it),
    "ignoreCase": lambda _it, _value: True,
    "lt": lambda it, value: bool(value < it),
    "lte": lambda it, value: bool(value <= it),
    "gt": lambda it, value: bool(value > it),
    "gte": lambda it, value: bool(value >= it),
    "before": lambda it, value: value is not None and value < datetime.fromisoformat(it),
    "after": lambda it, value: value is not None and value > datetime.fromisoformat(it),
    "containsAny": lambda it, values: any(one in values for one in it),
    "containsAll": lambda it, values: all(one in values for one in it),
    "isEmpty": lambda it, values: (list(values) == []) == it,
}


def value_holds(said: Said, value: Any) -> bool:
    return all(OF_VALUES[key](it, value) for key, it in said.items())


def folded(value: Any) -> Any:
    match value:
        case str():
            return value.casefold()
        case list():
            return [folded(one) for one in value]
        case _:
            return value


def text_holds(said: Said, text: str | None) -> bool:
    if said.get("ignoreCase"):
        return value_holds({key: folded(it) for key, it in said.items()}, folded(text))
    return value_holds(said, text)


def holds(said: Said, one: Any, world: World) -> bool:
    """Whether a filter of any kind matches a record."""
    return all(OF_RECORDS[key](it, one, world) for key, it in said.items())


def study_holds(said: Said, one: RunModel, world: World) -> bool:
    owner = world.study_of(one)
    return owner is not None and holds(said, owner, world)


def worker_holds(said: Said, one: RunModel, world: World) -> bool:
    return any(one in world.of_worker(other) and holds(said, other, world) for other in world.workers)


FINISHED = ("COMPLETED", "CANCELLED", "FAILED")
OF_RECORDS: dict[str, Callable[[Any, Any, World], bool]] = {
    "and": lambda it, one, world: all(holds(other, one, world) for other in it),
    "or": lambda it, one, world: any(holds(other, one, world) for other in it),
    "not": lambda it, one, world: not holds(it, one, world),
    "id": lambda it, one, _: value_holds(it, one.id),
    "name": lambda it, one, _: text_holds(it, one.name),
    "workspace": lambda it, one, _: text_holds(it, one.workspace),
    "host": lambda it, one, _: text_holds(it, one.host),
    "status": lambda it, one, _: value_holds(it, status_of(one)),
    "isFinished": lambda it, one, _: (one.run_status.value in FINISHED) == it,
    "queues": lambda it, one, _: value_holds(it, one.queues),
    "studyId": lambda it, one, _: value_holds(it, one.study_id),
    "study": study_holds,
    "workerIds": lambda it, one, _: value_holds(it, one.workers),
    "worker": worker_holds,
    "hasRuns": lambda it, one, world: (runs_of(one, world) != []) == it,
    "launchedAt": lambda it, one, _: value_holds(it, instant(one.launched_at)),
    "heartbeatAt": lambda it, one, _: value_holds(it, instant(one.heartbeat_timestamp)),
    "logicalWorkerId": lambda it, one, _: value_holds(it, one.logical_worker_id),
    "restartCount": lambda it, one, _: value_holds(it, one.restart_count),
}


def status_of(one: RunModel | PhysicalWorkerModel) -> str:
    return (one.run_status if isinstance(one, RunModel) else one.worker_status).value


def runs_of(one: StudyModel | LogicalWorkerModel, world: World) -> list[RunModel]:
    return world.of_study(one) if isinstance(one, StudyModel) else world.of_worker(one)


RUN_STATUSES = ["INITIALIZED", "QUEUED", "RUNNING", "COMPLETED", "CANCELLED", "FAILED", "UNKNOWN"]
WORKER_STATUSES = ["RUNNING", "STALLED", "STOPPED", "REBOOTING", "UNKNOWN"]


def value_of(field: str, one: Any, world: World) -> Any:
    match field:
        case "RUN_COUNT":
            return len(runs_of(one, world))
        case "LAUNCHED_AT":
            return one.launched_at
        case "HEARTBEAT_AT":
            return one.heartbeat_timestamp
        case "STATUS":
            return (RUN_STATUSES if isinstance(one, RunModel) else WORKER_STATUSES).index(status_of(one))
        case _:
            return getattr(one, field.lower())


def in_order(records: Iterable[Any], order: Said | None, world: World) -> list[str]:
    """Their ids: nulls last, ties by id."""
    rest = sorted(records, key=lambda one: str(one.id))
    if order is None:
        is_run = any(isinstance(one, RunModel) for one in rest)
        order = {"field": "LAUNCHED_AT", "direction": "DESC"} if is_run else {"field": "NAME"}
    values = {one.id: value_of(order["field"], one, world) for one in rest}
    distinct = sorted({value for value in values.values() if value is not None})
    if order.get("direction") == "DESC":
        distinct.reverse()
    return [one.id for value in (*distinct, None) for one in rest if values[one.id] == value]


# --- what is asked, and of what ----------------------------------------------------------------------------------

NAMES = ["a", "B", "b", "A", "straße", "STRASSE", "ä", "Äb", "日本", "😀", "\uffee", "ab/a"]
QUEUES = ["[merlin]_a", "[merlin]_b", "q"]
DATES = ["", "_20260101-000000", "_20260102-000000", "_20251231-235959", "_20269999-000000", "_99991231-235959"]
BASE = datetime(2026, 1, 1)
TIMES = [BASE + timedelta(microseconds=step) for step in (-1, 0, 1, 86_400_000_000)]
STUDY_IDS = [uid(number) for number in range(1, 4)]
RUN_IDS = [uid(number) for number in range(11, 17)]
PROCESS_IDS = [uid(number) for number in range(21, 25)]
GONE = uid(99)
WORKER_KEYS = [(name, queues) for name in ("a", "B") for queues in (("[merlin]_a",), ("[merlin]_a", "q"))]
WORKER_IDS = [LogicalWorkerModel.generate_id(name, queues) for name, queues in WORKER_KEYS]
IDS = [*STUDY_IDS, *RUN_IDS, *WORKER_IDS, *PROCESS_IDS, GONE]


def some(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


def maybe(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *values])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Small databases with dangling and one-sided links, nulls and duplicate names."""
    names = st.sampled_from(NAMES)
    run_ids = some([*RUN_IDS, GONE], 4)
    return World(
        [study(int(id_[-4:]), draw(names), runs=draw(run_ids)) for id_ in draw(some(STUDY_IDS))],
        [
            run(
                int(id_[-4:]),
                f"/{draw(names)}{draw(st.sampled_from(DATES))}",
                study_id=draw(maybe([*STUDY_IDS, GONE])),
                workers=draw(some([*WORKER_IDS, GONE])),
                queues=draw(some(QUEUES)),
                run_status=draw(st.sampled_from(RunStatus)),
            )
            for id_ in draw(some(RUN_IDS, 6))
        ],
        [
            logical_worker(name, queues, runs=draw(run_ids), physical_workers=draw(some([*PROCESS_IDS, GONE])))
            for name, queues in draw(some(WORKER_KEYS))
        ],
        [
            physical_worker(
                int(id_[-4:]),
                draw(names),
                host=draw(maybe(NAMES)),
                logical_worker_id=draw(maybe([*WORKER_IDS, GONE])),
                worker_status=draw(st.sampled_from(WorkerStatus)),
                heartbeat_timestamp=draw(maybe(TIMES)),
                restart_count=draw(st.integers(0, 3)),
            )
            for id_ in draw(some(PROCESS_IDS, 4))
        ],
    )


def said(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Said]:
    """Some of the keys; a name ends with `_` where it is a keyword."""
    fields = {key.rstrip("_"): values for key, values in keys.items()}
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))


def nested(leaves: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    def around(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
        several = st.lists(inner, max_size=3)
        more = said(and_=several, or_=several, not_=inner)
        return st.tuples(leaves, more).map(lambda pair: {**pair[0], **pair[1]})

    return st.recursive(leaves, around, max_leaves=5)


FLAGS = st.booleans()
ID = said(eq=maybe(IDS), in_=some([*IDS, "x"], 8).map(list), notIn=some([*IDS, "x"], 8).map(list), isNull=FLAGS)
PARTS = st.sampled_from(["", "a", "A", "/", "ss", "ß", "日", "😀", "_2026", *NAMES])
TEXTS = st.lists(PARTS, max_size=3)
TEXT = said(
    eq=st.none() | PARTS,
    in_=TEXTS,
    notIn=TEXTS,
    contains=PARTS,
    startsWith=PARTS,
    endsWith=PARTS,
    isNull=FLAGS,
).flatmap(lambda one: st.sampled_from([one, {**one, "ignoreCase": True}, {**one, "ignoreCase": False}]))


def text_list(values: Sequence[str]) -> st.SearchStrategy[Said]:
    return said(containsAny=some(values).map(list), containsAll=some(values).map(list), isEmpty=FLAGS)


ZONED = st.sampled_from(
    [time.replace(tzinfo=UTC).isoformat() for time in TIMES]
    + ["2026-01-01T01:00:00+01:00", "2025-12-31T23:59:58-00:01"]
)
TIME = said(before=ZONED, after=ZONED, isNull=FLAGS)
NUMBERS = st.integers(-1, 4)
NUMBER = said(eq=NUMBERS, lt=NUMBERS, lte=NUMBERS, gt=NUMBERS, gte=NUMBERS)


def enum(values: Sequence[str]) -> st.SearchStrategy[Said]:
    return said(eq=st.sampled_from(values), in_=some(values).map(list), notIn=some(values).map(list))


STUDY = nested(said(id=ID, name=TEXT, hasRuns=FLAGS))
WORKER = nested(said(id=ID, name=TEXT, queues=text_list(QUEUES), hasRuns=FLAGS))
RUN = nested(
    said(
        id=ID,
        workspace=TEXT,
        status=enum(RUN_STATUSES),
        isFinished=FLAGS,
        queues=text_list(QUEUES),
        studyId=ID,
        study=STUDY,
        workerIds=text_list([*WORKER_IDS, GONE]),
        worker=WORKER,
        launchedAt=TIME,
    )
)
PROCESS = nested(
    said(
        id=ID,
        name=TEXT,
        host=TEXT,
        status=enum(WORKER_STATUSES),
        logicalWorkerId=ID,
        heartbeatAt=TIME,
        restartCount=NUMBER,
    )
)


def orders(*fields: str) -> st.SearchStrategy[Said | None]:
    return st.none() | st.fixed_dictionaries(
        {"field": st.sampled_from(fields)}, optional={"direction": st.sampled_from(["ASC", "DESC"])}
    )


RUN_ORDER = orders("LAUNCHED_AT", "WORKSPACE", "STATUS", "ID")

ASKED = """
query ($s: StudyFilter, $so: StudyOrder, $r: RunFilter, $ro: RunOrder,
       $w: LogicalWorkerFilter, $wo: LogicalWorkerOrder, $p: PhysicalWorkerFilter, $po: PhysicalWorkerOrder) {
  studies(filter: $s, orderBy: $so) { ...S }
  runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
  logicalWorkers(filter: $w, orderBy: $wo) { totalCount nodes { id } }
  physicalWorkers(filter: $p, orderBy: $po) { totalCount nodes { id } }
  runCounts(filter: $r) { status count }
  physicalWorkerCounts(filter: $p) { status count }
  queues { queue runs logicalWorkers }
  all: studies { nodes { id runCounts(filter: $r) { status count }
                         runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
                         workers { id } latestRun { id } } }
  everyone: logicalWorkers { nodes { id runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
                                     physicalWorkers(filter: $p, orderBy: $po) { totalCount nodes { id } } } }
}
fragment S on StudyConnection { totalCount nodes { id } }
"""


def counted(statuses: Sequence[str], records: Iterable[Any]) -> list[Said]:
    found = [status_of(one) for one in records]
    return [{"status": status, "count": found.count(status)} for status in statuses]


QUESTIONS = st.fixed_dictionaries(
    {
        "s": STUDY,
        "r": RUN,
        "w": WORKER,
        "p": PROCESS,
        "so": orders("NAME", "RUN_COUNT", "ID"),
        "ro": RUN_ORDER,
        "wo": orders("NAME", "RUN_COUNT", "ID"),
        "po": orders("NAME", "HOST", "STATUS", "HEARTBEAT_AT", "RESTART_COUNT", "ID"),
    }
)
NEVER, ALWAYS, ELSE_AS_EVER = 10**9, 0, 2
"""Where an index is worth it."""


@pytest.mark.parametrize("worth_it", [NEVER, ALWAYS, ELSE_AS_EVER])
@settings(SLOW, max_examples=12)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_question_is_answered_as_the_records_say(
    new_url: Callable[[], str], worth_it: int, world: World, questions: list[Said]
) -> None:
    """Any filter and order of any kind gives what a naive reading of the records gives, from every database."""
    anyio.run(answer_all, new_url(), worth_it, world, questions)


@pytest.mark.soak
@pytest.mark.parametrize("worth_it", [NEVER, ALWAYS, ELSE_AS_EVER])
@settings(SLOW, max_examples=100)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_one_of_many_questions_is_answered(
    new_url: Callable[[], str], worth_it: int, world: World, questions: list[Said]
) -> None:
    """As above, for longer."""
    anyio.run(answer_all, new_url(), worth_it, world, questions)


async def answer_all(url: str, worth_it: int, world: World, questions: list[Said]) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(world.records)
    before, ordered._WORTH_IT = ordered._WORTH_IT, worth_it
    try:
        async with opened(backend, time_zone=UTC) as database:
            for question in questions:
                check(await ask(database, ASKED, **question), world, question)
    finally:
        ordered._WORTH_IT = before


def check(data: Said, world: World, question: Said) -> None:
    def matches(key: str, records: Iterable[Any]) -> list[Any]:
        return [one for one in records if holds(question[key], one, world)]

    def page(key: str, records: Iterable[Any]) -> Said:
        ids = in_order(matches(key, records), question[f"{key}o"], world)
        return {"totalCount": len(ids), "nodes": [{"id": id_} for id_ in ids]}

    assert data["studies"] == page("s", world.studies)
    assert data["runs"] == page("r", world.runs)
    assert data["logicalWorkers"] == page("w", world.workers)
    assert data["physicalWorkers"] == page("p", world.processes)
    assert data["runCounts"] == counted(RUN_STATUSES, matches("r", world.runs))
    assert data["physicalWorkerCounts"] == counted(WORKER_STATUSES, matches("p", world.processes))
    of_runs = [queue for one in world.runs for queue in one.queues]
    of_workers = [queue for one in world.workers for queue in one.queues]
    assert data["queues"] == [
        {
            "queue": queue,
            "runs": of_runs.count(queue),
            "logicalWorkers": of_workers.count(queue),
        }
        for queue in sorted({*of_runs, *of_workers})
    ]
    for owner in data["all"]["nodes"]:
        (record,) = [one for one in world.studies if one.id == owner["id"]]
        assert owner["runs"] == page("r", world.of_study(record))
        assert owner["runCounts"] == counted(RUN_STATUSES, matches("r", world.of_study(record)))
        ids = {one.id for one in world.workers if any(it in world.of_study(record) for it in world.of_worker(one))}
        assert owner["workers"] == [{"id": id_} for id_ in in_order(world.workers, None, world) if id_ in ids]
        launched = [one for one in world.of_study(record) if one.launched_at is not None]
        latest = in_order(launched, None, world)[:1]
        assert owner["latestRun"] == ({"id": latest[0]} if latest else None)
    for worker in data["everyone"]["nodes"]:
        (member,) = [one for one in world.workers if one.id == worker["id"]]
        assert worker["runs"] == page("r", world.of_worker(member))
        assert worker["physicalWorkers"] == page("p", world.instances_of(member))


# --- pages while others write ------------------------------------------------------------------------------------

PAGES = """
query ($order: RunOrder, $filter: RunFilter, $first: Int, $after: String, $last: Int, $before: String) {
  runs(orderBy: $order, filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@st.composite
def some_runs(draw: st.DrawFn, numbers: st.SearchStrategy[int]) -> list[RunModel]:
    places = st.builds("/{}{}".format, st.sampled_from(NAMES), st.sampled_from(DATES))
    found = st.lists(numbers, max_size=12, unique=True)
    statuses = st.sampled_from(RunStatus)
    return [run(number, draw(places), run_status=draw(statuses)) for number in draw(found)]


async def insert(database: MerlinDatabase, records: Sequence[Model]) -> None:
    await database.backend.insert(records)
    await database.feed.refresh([Key(EntityKind.RUN, record.id) for record in records])


async def delete(database: MerlinDatabase, ids: Iterable[str]) -> None:
    backend = database.backend
    assert isinstance(backend, MemoryBackend)
    keys = [Key(EntityKind.RUN, id_) for id_ in ids]
    for key in keys:
        backend.store(key, None)
    await database.feed.refresh(keys)


@settings(SLOW, max_examples=80)
@given(
    st.data(),
    some_runs(st.integers(100, 140)),
    RUN_ORDER,
    st.sampled_from([{}, {"isFinished": False}]),
    st.booleans(),
)
def test_a_walk_sees_what_stands_exactly_once(
    data: st.DataObject, at_first: list[RunModel], order: Said | None, only: Said, forward: bool
) -> None:
    """Whatever stood during a whole walk is seen once and in order, whatever came and went between its pages."""
    standing = {one.id: one for one in at_first}
    gone: set[str] = set()
    seen: list[str] = []

    async def walk() -> None:
        async with opened(await memory_of(*at_first), time_zone=UTC) as database:
            cursor, more, number = None, True, 200
            while more:
                size = data.draw(st.integers(1, 4))
                span = {"first": size, "after": cursor} if forward else {"last": size, "before": cursor}
                page = (await ask(database, PAGES, order=order, filter=only, **span))["runs"]
                ids = [node["id"] for node in page["nodes"]]
                seen[:] = [*seen, *ids] if forward else [*ids, *seen]
                info = page["pageInfo"]
                cursor = info["endCursor" if forward else "startCursor"] or cursor
                more = info["hasNextPage" if forward else "hasPreviousPage"]
                if number < 220:
                    new = data.draw(some_runs(st.integers(number, number + 3)))
                    number += 4
                    await insert(database, new)
                    if here := [id_ for id_ in standing if id_ not in gone]:
                        leaving = set(data.draw(some(here, 4)))
                        gone.update(leaving)
                        await delete(database, leaving)

    anyio.run(walk)
    world = World([], at_first, [], [])
    stayed = [one for one in at_first if one.id not in gone and holds(only, one, world)]
    assert len(seen) == len(set(seen))
    assert [id_ for id_ in seen if id_ in {one.id for one in stayed}] == in_order(stayed, order, world)


async def test_a_walk_goes_on_when_only_those_without_a_value_are_left() -> None:
    """A cursor keeps its meaning when all entities that had a value are deleted."""
    async with opened(await memory_of(run(1, "/a_20260101-000000"), run(2, "/b"))) as database:
        order = {"field": "LAUNCHED_AT"}
        page = (await ask(database, PAGES, order=order, first=1))["runs"]
        await delete(database, [uid(1)])
        rest = (await ask(database, PAGES, order=order, first=1, after=page["pageInfo"]["endCursor"]))["runs"]
    assert rest["nodes"] == [{"id": uid(2)}]


# --- single cases ------------------------------------------------------------------------------------------------


async def found(kind: str, said: Said, *records: Model) -> list[int]:
    """The last digits of the ids that a filter finds."""
    async with opened(await memory_of(*records), time_zone=UTC) as database:
        field = f"{kind[0].lower()}{kind[1:]}s"
        query = f"query ($f: {kind}Filter) {{ {field}(filter: $f, orderBy: {{field: ID}}) {{ nodes {{ id }} }} }}"
        return [int(node["id"][-4:]) for node in (await ask(database, query, f=said))[field]["nodes"]]


@pytest.mark.parametrize(
    ("kind", "said", "path"),
    [
        ("Run", {"id": None}, "filter.id"),
        ("Run", {"isFinished": None}, "filter.isFinished"),
        ("Run", {"status": {"eq": None}}, "filter.status.eq"),
        ("Run", {"status": {"notIn": None}}, "filter.status.notIn"),
        ("Run", {"studyId": {"in": None}}, "filter.studyId.in"),
        ("Run", {"workspace": {"startsWith": None}}, "filter.workspace.startsWith"),
        ("Run", {"workspace": {"ignoreCase": None}}, "filter.workspace.ignoreCase"),
        ("Run", {"queues": {"containsAny": None}}, "filter.queues.containsAny"),
        ("Run", {"launchedAt": {"before": None}}, "filter.launchedAt.before"),
        ("Run", {"study": {"name": {"isNull": None}}}, "filter.study.name.isNull"),
        ("Run", {"and": [{}, {"not": {"worker": {"or": None}}}]}, "filter.and[1].not.worker.or"),
        ("Study", {"hasRuns": None}, "filter.hasRuns"),
        ("Study", {"and": None}, "filter.and"),
        ("LogicalWorker", {"not": None}, "filter.not"),
        ("PhysicalWorker", {"restartCount": {"eq": None}}, "filter.restartCount.eq"),
        ("PhysicalWorker", {"logicalWorkerId": {"isNull": None}}, "filter.logicalWorkerId.isNull"),
    ],
)
async def test_null_where_it_says_nothing_is_refused(kind: str, said: Said, path: str) -> None:
    """null that means nothing is bad input, told with the path to it."""
    field = f"{kind[0].lower()}{kind[1:]}"
    field = "studies" if kind == "Study" else f"{field}s"
    async with opened(await memory_of()) as database:
        query = f"query ($f: {kind}Filter) {{ {field}(filter: $f) {{ totalCount }} }}"
        assert (await refusal(database, query, f=said)).startswith(f"{path}: null")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"host": {}}, [1, 2, 3]),
        ({"host": {"ignoreCase": True}}, [1, 2, 3]),
        ({"host": {"eq": None}}, [1]),
        ({"host": {"isNull": False}}, [2, 3]),
        ({"host": {"in": []}}, []),
        ({"host": {"notIn": []}}, [1, 2, 3]),
        ({"host": {"notIn": ["Straße"]}}, [1, 3]),
        ({"host": {"eq": "STRASSE", "ignoreCase": True}}, [2, 3]),
        ({"host": {"eq": "STRASSE"}}, [3]),
        ({"host": {"contains": "ß", "ignoreCase": True}}, [2, 3]),
        ({"host": {"in": ["sTRASSE"], "ignoreCase": True}}, [2, 3]),
        ({"host": {"contains": ""}}, [2, 3]),
        ({"not": {"host": {"eq": "STRASSE"}}}, [1, 2]),
        ({"not": {}}, []),
        ({"and": []}, [1, 2, 3]),
        ({"or": []}, []),
        ({"or": [{}]}, [1, 2, 3]),
        ({"logicalWorkerId": {"eq": None}}, [1, 2, 3]),
    ],
)
async def test_what_the_corners_of_filters_mean(said: Said, expected: list[int]) -> None:
    """null, empty lists, empty filters and letter case mean what the documentation says."""
    hosts = [None, "Straße", "STRASSE"]
    records = [physical_worker(number, host=host) for number, host in enumerate(hosts, 1)]
    assert await found("PhysicalWorker", said, *records) == expected


async def test_a_run_without_a_study_matches_no_filter_of_studies() -> None:
    """An empty filter of the study asks that there is one, and a dangling reference is none."""
    records: list[Model] = [study(1), run(2, study_id=uid(1)), run(3, study_id=GONE), run(4)]
    assert await found("Run", {"study": {}}, *records) == [2]
    assert await found("Run", {"worker": {}}, *records) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"heartbeatAt": {"before": "2026-01-01T01:00:00+01:00"}}, [1]),
        ({"heartbeatAt": {"after": "2026-01-01T01:00:00+01:00"}}, [3]),
        ({"heartbeatAt": {"isNull": True}}, [4]),
        ({"restartCount": {"lt": 2}}, [1]),
        ({"restartCount": {"lte": 2}}, [1, 2]),
        ({"restartCount": {"gt": 2}}, [3, 4]),
        ({"restartCount": {"gte": 2}}, [2, 3, 4]),
    ],
)
async def test_where_bounds_end(said: Said, expected: list[int]) -> None:
    """`before`, `after`, `lt` and `gt` leave their bound out, `lte` and `gte` do not."""
    beats = [*TIMES[:3], None]
    records = [physical_worker(n, restart_count=n, heartbeat_timestamp=beat) for n, beat in enumerate(beats, 1)]
    assert await found("PhysicalWorker", said, *records) == expected


NOTHING_SAID: list[Said] = [{}, {"id": {}}, {"and": []}, {"and": [{}, {"workspace": {"ignoreCase": True}}]}]
NOTHING_SAID += [{"or": [{"isFinished": True}, {}]}, {"id": {"notIn": []}}, {"queues": {"containsAll": []}}]


@pytest.mark.parametrize("said", NOTHING_SAID)
async def test_a_filter_that_says_nothing_deletes_nothing(said: Said) -> None:
    """Runs are not all deleted by a filter that is empty in a roundabout way."""
    query = """mutation ($f: RunFilter!) {
                 deleteRuns(input: {filter: $f}) { deletedIds userErrors { code path } } }"""
    async with opened(await memory_of(run(1))) as database:
        answer = (await ask(database, query, f=said))["deleteRuns"]
        assert answer["deletedIds"] == []
        assert answer["userErrors"][0]["path"][-1] == "filter"
        assert len(database.runs.all()) == 1


async def test_a_cursor_of_another_order_is_refused() -> None:
    """A cursor belongs to a field and a direction; without any, to the default ones."""
    asked = "query ($o: RunOrder, $c: String) { runs(orderBy: $o, after: $c) { pageInfo { endCursor } } }"
    async with opened(await memory_of(run(1))) as database:
        given_orders: list[Said | None] = [
            None,
            {"field": "LAUNCHED_AT"},
            {"field": "ID", "direction": "DESC"},
            {"field": "ID"},
        ]
        cursors = [(await ask(database, asked, o=one))["runs"]["pageInfo"]["endCursor"] for one in given_orders]
        for index, order in enumerate(given_orders):
            for other, cursor in enumerate(cursors):
                if index == other:
                    assert (await ask(database, asked, o=order, c=cursor))["runs"]["pageInfo"]["endCursor"] is None
                else:
                    assert "this cursor is of the order" in await refusal(database, asked, o=order, c=cursor)


@pytest.mark.parametrize(("direction", "arrange"), [("ASC", list), ("DESC", lambda names: names[::-1])])
async def test_texts_are_ordered_by_code_point(direction: str, arrange: Callable[[list[str]], list[str]]) -> None:
    """Names beyond ASCII stand in one order, page by page, both ways round, with ties by id and nulls last."""
    hosts = ["B", "a", "a", "ab", "ä", "日本", "\uffee", "😀"]
    records = [physical_worker(number, host=host) for number, host in enumerate([*hosts, None], 1)]
    asked = """query ($o: PhysicalWorkerOrder, $c: String) { physicalWorkers(orderBy: $o, first: 1, after: $c) {
                 nodes { id host } pageInfo { endCursor hasNextPage } } }"""
    seen: list[tuple[str | None, str]] = []
    async with opened(await memory_of(*records)) as database:
        cursor, more = None, True
        while more:
            page = (await ask(database, asked, o={"field": "HOST", "direction": direction}, c=cursor))[
                "physicalWorkers"
            ]
            seen += [(node["host"], node["id"]) for node in page["nodes"]]
            cursor, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert [host for host, _ in seen] == [*arrange(hosts), None]
    assert [id_ for host, id_ in seen if host == "a"] == [uid(2), uid(3)]


async def test_times_far_off_keep_their_microseconds() -> None:
    """Times of any year are ordered and paged exactly."""
    far = datetime(9999, 12, 30, 23, 59, 59)
    beats = [far + timedelta(microseconds=step) for step in (3, 1, 2)]
    records = [physical_worker(number, heartbeat_timestamp=beat) for number, beat in enumerate(beats, 1)]
    asked = "{ physicalWorkers(orderBy: {field: HEARTBEAT_AT}) { nodes { id } } }"
    async with opened(await memory_of(*records), time_zone=UTC) as database:
        nodes = (await ask(database, asked))["physicalWorkers"]["nodes"]
    assert [node["id"] for node in nodes] == [uid(2), uid(3), uid(1)]


async def test_long_lists_are_asked_as_short_ones_are() -> None:
    """However many values a filter of a list holds, it means the same."""
    many = [f"q{number}" for number in range(50)]
    async with opened(await memory_of(run(1, queues=("q3", "q4")), run(2, queues=tuple(many)))) as database:
        asked = "query ($f: RunFilter) { runs(filter: $f, orderBy: {field: ID}) { nodes { id } } }"

        async def found(said: Said) -> list[str]:
            return [node["id"] for node in (await ask(database, asked, f={"queues": said}))["runs"]["nodes"]]

        assert await found({"containsAny": many}) == [uid(1), uid(2)]
        assert await found({"containsAll": many}) == [uid(2)]
        assert await found({"containsAny": many[5:]}) == [uid(2)]


async def test_a_filter_may_be_nested_deeply() -> None:
    """A hundred levels are no problem."""
    said: Said = {"id": {"eq": uid(1)}}
    for _ in range(50):
        said = {"not": {"and": [said]}}
    async with opened(await memory_of(run(1), run(2))) as database:
        data = await ask(database, "query ($f: RunFilter) { runs(filter: $f) { nodes { id } } }", f=said)
        assert data["runs"]["nodes"] == [{"id": uid(1)}]
