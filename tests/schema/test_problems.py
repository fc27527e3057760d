"""The integrity report part by part, as clients read it: pages, counts, keys, what they cost, and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import KINDS, Entry, Key, Model
from tests.schema.test_limits import measured
from tests.support.asking import ask, execute
from tests.support.managers import NOWHERE
from tests.support.records import memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

FIELDS = "key kind severity repairable entityKind entityId field otherId message"
PART = f"""query ($kinds: [ProblemKind!], $severities: [Severity!], $first: Int, $offset: Int = 0, $after: String,
    $keys: [String!], $orderBy: ProblemOrder! = SEVERITY) {{
  integrity {{ totalCount counts {{ kind severity repairable count }}
    problems(kinds: $kinds, severities: $severities, first: $first, offset: $offset, after: $after, keys: $keys,
      orderBy: $orderBy) {{ {FIELDS} }} }} }}"""
FIELD_OF = {"kinds": "kind", "severities": "severity"}
GRAVITY = ("ERROR", "WARNING", "INFO")


def records(random: Random) -> list[Model]:
    """Runs and studies that name each other by chance."""
    ids = [*map(uid, range(20)), NOWHERE]
    found: list[Model] = [study(n, f"study_{n % 3}", runs=tuple(random.choices(ids, k=3))) for n in range(5)]
    for n in range(5, 18):
        links = {"study_id": random.choice([None, *ids[:5]]), "parent": random.choice([None, *ids])}
        found.append(run(n, child=random.choice([None, *ids]), **links))
    return [*found, physical_worker(18), physical_worker(19, logical_worker_id=NOWHERE)]


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    async with opened(await memory_of(*records(Random(1)))) as found:
        yield found


async def part(database: MerlinDatabase, **variables: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(database, PART, **variables))["integrity"]["problems"]
    return found


async def test_pages_joined_are_the_whole_and_counts_are_its_sums(database: MerlinDatabase) -> None:
    """By number and by key, in both orders, filtered and not; also after random changes."""
    random = Random(2)
    for _ in range(5):
        whole = (await ask(database, f"{{ integrity {{ totalCount problems {{ {FIELDS} }} }} }}"))["integrity"]
        problems = whole["problems"]
        assert await part(database, orderBy="REPAIR") == problems
        gravest = await part(database)
        assert sorted(gravest, key=str) == sorted(problems, key=str)
        assert [it["severity"] for it in gravest] == sorted((it["severity"] for it in problems), key=GRAVITY.index)
        for order, ordered in (("REPAIR", problems), ("SEVERITY", gravest)):
            kinds = random.sample(sorted({it["kind"] for it in problems}), 2)
            filters: list[dict[str, list[str]]] = [
                {},
                {"kinds": kinds},
                {"severities": ["ERROR", "INFO"]},
                {"kinds": []},
            ]
            for wanted in filters:
                expected = [it for it in ordered if all(it[FIELD_OF[name]] in some for name, some in wanted.items())]
                assert await _joined(database, by_key=False, orderBy=order, **wanted) == expected
                assert await _joined(database, by_key=True, orderBy=order, **wanted) == expected
        report = (await ask(database, PART))["integrity"]
        counts = Counter((it["kind"], it["severity"], it["repairable"]) for it in problems)
        assert {(it["kind"], it["severity"], it["repairable"]): it["count"] for it in report["counts"]} == counts
        assert [it["severity"] for it in report["counts"]] == sorted(
            (it["severity"] for it in report["counts"]), key=GRAVITY.index
        )
        assert report["totalCount"] == whole["totalCount"] == len(problems) > 20
        changed = random.sample(records(random), 6)
        database.read_model.apply([Entry(Key(KINDS[type(it)], it.id), random.choice([it, it, None])) for it in changed])


async def _joined(database: MerlinDatabase, *, by_key: bool, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    place: dict[str, Any] = {}
    while page := await part(database, first=4, **place, **wanted):
        found += page
        place = {"after": found[-1]["key"]} if by_key else {"offset": len(found)}
    return found


async def test_problems_are_found_by_their_keys(database: MerlinDatabase) -> None:
    """Those that are there still; a key that is none names nothing."""
    one, other, *_ = await part(database, first=5, offset=3)
    assert await part(database, keys=[other["key"], "nonsense", one["key"], other["key"]]) == [one, other]
    assert await part(database, keys=[]) == []
    assert one["key"] != other["key"]


async def test_a_problem_has_the_same_key_wherever_it_is_told(database: MerlinDatabase) -> None:
    """In a repair as in the report."""
    known = {problem["key"] for problem in await part(database)}
    repair = "mutation { repair(input: {dryRun: true}) { repaired { key } } }"
    repaired = {problem["key"] for problem in (await ask(database, repair))["repair"]["repaired"]}
    assert repaired
    assert repaired <= known


@pytest.mark.parametrize(
    ("asked", "argument", "message"),
    [
        ({"first": 0}, "first", "first: pass 1 to 500 problems, not 0."),
        ({"first": 501}, "first", "first: pass 1 to 500 problems, not 501."),
        ({"first": -1}, "first", "first: pass 1 to 500 problems, not -1."),
        ({"offset": -1}, "offset", "offset: pass a number of problems, 0 or more, not -1."),
        ({"after": "x"}, "after", "after: this is not the key of a problem: pass a `key` of a problem unchanged."),
        ({"keys": ["x"] * 501}, "keys", "keys: pass up to 500 keys, not 501."),
    ],
)
async def test_which_problems_can_be_asked_for_is_bounded(
    database: MerlinDatabase, asked: dict[str, Any], argument: str, message: str
) -> None:
    """The refusal says what to pass."""
    (error,) = (await execute(database, PART, asked)).errors
    assert (error.message, error.extensions) == (message, {"code": "BAD_USER_INPUT", "argument": argument})


async def test_beyond_the_end_there_is_nothing(database: MerlinDatabase) -> None:
    """Whatever is asked for there."""
    assert await part(database, offset=2**31 - 1, first=500) == []
    assert await part(database, offset=2**31 - 1, orderBy="REPAIR") == []


def test_a_part_costs_what_it_may_have() -> None:
    """By `first`, or by how many keys there are; without both, as a list of which nothing is known."""

    def cost(**variables: Any) -> int:
        text = (
            "query ($first: Int, $keys: [String!]) { integrity { problems(first: $first, keys: $keys) { key kind } } }"
        )
        return measured(text, variables).cost

    none = cost(first=1) - 2
    assert cost(first=500) == none + 2 * 500
    assert cost(keys=["a", "b", "c"], first=500) == none + 2 * 3
    assert cost() == cost(first=None, keys=None) == none + 2 * 10
