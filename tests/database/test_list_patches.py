"""Ids are added to stored lists and removed from them as text, unread, and the lists become what reading gives."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import Raw, decode, encode, encode_value
from server.database.backends.list_patch import ListPatch, patched
from server.database.backends.memory import MemoryBackend
from server.database.backends.redis_script import SCRIPT, program
from server.database.backends.write_set import WriteSet
from server.database.errors import EntityNotFoundError, RefusedError
from server.database.expected import Expected
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, StudyModel
from tests.support.records import logical_worker, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = pytest.mark.anyio

STUDY = Key(EntityKind.STUDY, uid(9))
ITEMS = st.one_of(
    st.integers(1, 5).map(uid),
    st.text(max_size=3),
    st.sampled_from(['"', "\\", ", ", "]", "[", "{", f'"{uid(1)}"', f', "{uid(1)}", ']),
    st.integers(0, 3),
    st.none(),
    st.lists(st.integers(1, 3).map(uid), max_size=2),
    st.dictionaries(st.integers(1, 3).map(uid), st.just(1), max_size=1),
)
SEPARATORS = st.sampled_from([(", ", ": ")] * 4 + [(",", ":"), (" , ", ":"), (",\n", ": ")])
LISTS = st.builds(
    lambda items, separators, ascii_: json.dumps(items, separators=separators, ensure_ascii=ascii_),
    st.one_of(st.lists(st.integers(1, 9).map(uid), max_size=6), st.lists(ITEMS, max_size=6)),
    SEPARATORS,
    st.booleans(),
)
TEXTS = st.one_of(LISTS, LISTS.map(lambda text: text[:-1]), st.sampled_from(["", "null", "[", "]", "[ ]", "{}", "x"]))
PATCHES = st.one_of(
    st.builds(ListPatch, added=st.tuples(st.integers(1, 9).map(uid))),
    st.builds(ListPatch, removed=st.tuples(st.integers(1, 9).map(uid))),
)
CHEAP = settings(deadline=None, suppress_health_check=list(HealthCheck))


def runs_in(text: str) -> tuple[str, ...] | None:
    """The ids of a stored list; None where something of it can't be read."""
    entry = decode(EntityKind.STUDY, STUDY.id, encode(study(9)) | {"runs": text})
    assert isinstance(entry.record, StudyModel)
    return None if entry.problems else entry.record.runs


@CHEAP
@given(TEXTS, PATCHES)
@example(json.dumps([uid(1)]), ListPatch(removed=(uid(1),)))
@example("[]", ListPatch(added=(uid(1),)))
def test_a_patched_list_reads_as_one_that_was_read_and_written(text: str, patch: ListPatch) -> None:
    """Whatever stands there; a list that Merlin has written becomes the very text that Merlin would write."""
    before, after = runs_in(text), patched(text, patch)
    if before is None or after is None:
        return  # what is not readable is not changed at all, and the rest is read and written as a whole
    left = tuple(id_ for id_ in before if id_ not in patch.removed)
    assert len(left) == len(before) - len(patch.removed)
    assert not {*patch.added} & {*before}
    assert runs_in(after) == (*left, *patch.added)
    if text == encode_value(before):
        assert after == encode_value((*left, *patch.added))


@given(st.lists(st.integers(1, 9).map(uid), unique=True), PATCHES)
def test_what_merlin_has_written_can_be_patched(ids: list[str], patch: ListPatch) -> None:
    """Unless the id to add is there, or that to remove is not."""
    possible = {*patch.removed} <= {*ids} and not {*patch.added} & {*ids}
    assert (patched(json.dumps(ids), patch) is not None) == possible


@CHEAP
@given(TEXTS, PATCHES)
def test_redis_has_the_same_rule(redis_server: RedisServer, text: str, patch: ListPatch) -> None:
    """What the script makes of a list, and whether it does anything."""
    assert written_by_redis(redis_server, text, patch) == (patched(text, patch) or text)


def written_by_redis(server: RedisServer, text: str, patch: ListPatch) -> str:
    fields = encode(study(9), without=("runs",))
    batch = WriteSet(
        str(uuid.uuid4()),
        {STUDY: fields},
        {},
        {},
        frozenset(),
        {},
        unread={STUDY: ["runs"]},
        patches={STUDY: {"runs": patch}},
    )
    keys, arguments = asyncio.run(program(batch, 0, frees=False))
    with server.client() as client:
        client.hset(str(STUDY), mapping={**fields, "runs": text})
        assert client.eval(SCRIPT, len(keys), *keys, *arguments) == (patched(text, patch) is not None)
        return str(client.hget(str(STUDY), "runs"))


# --- Changes as a whole -----------------------------------------------------------------------------------------------

WORKERS = [logical_worker(name) for name in "abc"]
TIMES: Any = dict.fromkeys(("heartbeat_timestamp", "latest_start_time"), datetime(2026, 1, 1))
Step = Callable[[MerlinDatabase], Any]


def created(number: int, name: int, workers: set[int]) -> Step:
    ids = [WORKERS[worker].id for worker in sorted(workers)]
    return lambda database: database.runs.create(f"study {name}", f"/{number}", ["q"], id=uid(number), workers=ids)


STEPS = st.lists(
    st.one_of(
        st.builds(created, st.integers(1, 4), st.integers(1, 2), st.sets(st.integers(0, 2))),
        st.builds(lambda n: lambda database: database.runs.delete(f"/{n}", force=True), st.integers(1, 4)),
        st.builds(
            lambda ns: lambda database: database.runs.delete_these([uid(n) for n in ns], force=True),
            st.sets(st.integers(1, 4)),
        ),
        st.builds(
            lambda n, w: lambda database: database.runs.attach_workers(f"/{n}", [WORKERS[w].id]),
            st.integers(1, 4),
            st.integers(0, 2),
        ),
        st.builds(
            lambda n, w: lambda database: database.runs.detach_workers(f"/{n}", [WORKERS[w].id]),
            st.integers(1, 4),
            st.integers(0, 2),
        ),
        st.builds(lambda n: lambda database: database.studies.delete(f"study {n}", force=True), st.integers(1, 2)),
        st.builds(
            lambda w: lambda database: database.logical_workers.delete(WORKERS[w].id, force=True), st.integers(0, 2)
        ),
        st.builds(
            lambda n, w: (
                lambda database: database.physical_workers.create(
                    f"celery@{n}", logical_worker_id=WORKERS[w].id, **TIMES
                )
            ),
            st.integers(1, 2),
            st.integers(0, 2),
        ),
        st.builds(lambda n: lambda database: database.physical_workers.delete(f"celery@{n}"), st.integers(1, 2)),
        st.builds(lambda n, text: lambda database: stand(database, f"study {n}", text), st.integers(1, 2), TEXTS),
    ),
    max_size=12,
)


async def stand(database: MerlinDatabase, name: str, text: str) -> None:
    """Somebody else writes the list of runs of a study, and nobody has told of it yet."""
    found = database.studies.by_name(name)
    backend = database.backend
    if found is not None and isinstance(backend, MemoryBackend):
        key = Key(EntityKind.STUDY, found.id)
        fields = (await backend.read_raw([key]))[key] or {}
        backend.store(key, {**fields, "runs": text})


async def outcome(steps: list[Step]) -> tuple[list[Any], Mapping[Key, Raw | None]]:
    """What each of some steps answered, and what stands in the end."""
    backend, answers = MemoryBackend(), list[Any]()
    await backend.insert(WORKERS)
    async with opened(backend) as database:
        for step in steps:
            try:
                answer = await step(database)
            except (RefusedError, EntityNotFoundError) as error:
                answer = type(error), str(error)
            answers.append(answer if isinstance(answer, list | tuple | None) else answer.id)
            await asyncio.sleep(0)
        keys = [*database.read_model.keys()]
        return answers, await backend.read_raw(keys)


@CHEAP
@given(STEPS)
def test_changes_that_rely_on_the_copy_do_what_those_do_that_read(steps: list[Step]) -> None:
    """They answer the same, and leave the same text, field by field."""
    with pytest.MonkeyPatch.context() as patch:
        expected = run_apart(steps, patch)
        patch.setattr(Expected, "entry", lambda *_, **__: None)
        patch.setattr(Expected, "owner", lambda *_: None)
        assert run_apart(steps, patch) == expected


def run_apart(steps: list[Step], patch: pytest.MonkeyPatch) -> Any:
    """With the same random ids each time, but for those of attempts."""
    numbers = count(100)
    for module in ("run_manager", "study_manager", "physical_worker_manager"):
        patch.setattr(f"server.database.managers.{module}.uuid", Numbered(numbers))
    return asyncio.run(outcome(steps))


class Numbered:
    UUID = uuid.UUID

    def __init__(self, numbers: Any) -> None:
        self._numbers = numbers

    def uuid4(self) -> str:
        return uid(next(self._numbers))


async def test_what_another_has_added_meanwhile_stays(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store: the copy has an older list than what is patched."""
    await backend.insert([study(9, "study", runs=(uid(1),))])
    async with opened(backend) as database:
        await stand_in(backend, json.dumps([uid(1), uid(2)]))
        attempts = await counting(backend, monkeypatch)
        new = await database.runs.create("study", "/new", [])
        assert (await backend.read_raw([STUDY]))[STUDY]["runs"] == json.dumps([uid(1), uid(2), new.id])  # type: ignore[index]
        assert len(attempts) == 1
        await stand_in(backend, json.dumps([uid(3), new.id, uid(1)]))
        await database.runs.delete(new.id, force=True)
        assert (await backend.read_raw([STUDY]))[STUDY]["runs"] == json.dumps([uid(3), uid(1)])  # type: ignore[index]


async def counting(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> list[WriteSet]:
    attempts: list[WriteSet] = []
    commit = backend.commit

    async def noting(batch: WriteSet, *arguments: Any) -> bool:
        attempts.append(batch)
        return await commit(batch, *arguments)

    monkeypatch.setattr(backend, "commit", noting)
    return attempts


async def stand_in(backend: ResultsBackend, runs: str) -> None:
    if isinstance(backend, MemoryBackend):
        backend._records[STUDY] = {**backend._records[STUDY], "runs": runs}
        return
    writer = writer_to(backend.connection)
    writer.update(STUDY, runs=runs)
    writer.close()
