"""Filters, orders, counts and pages, against a naive reading of the plain records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from server.database.merlin_database import opened
from server.database.models import (
    Model,
)
from tests.support.asking import ask
from tests.support.filter_reference import GONE, TIMES, Said, refusal
from tests.support.records import memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio


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
