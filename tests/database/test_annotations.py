"""Annotations: what clients note of studies and runs, beside Merlin's records, on every store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.notes import NoteKey, NoteKind
from server.database.backends.write_set import WriteSet
from server.database.effects import Action, Effect
from server.database.errors import ConflictError, InvalidValueError, RunNotFoundError
from server.database.json_text import is_same_json
from server.database.managers.annotations import MAX_CHARACTERS
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model
from server.database.note_sweep import NoteSweep
from server.database.transactions import Transaction
from tests.conftest import Store
from tests.support.asking import ask, execute
from tests.support.managers import housed
from tests.support.raw_store import read_store
from tests.support.records import logical_worker, memory_of, run, uid
from tests.support.servers import RedisServer
from tests.support.subscribers import CHANGES, RUN_CHANGES, subscribed
from tests.support.writers import Writer

pytestmark = pytest.mark.anyio

RUN = Key(EntityKind.RUN, uid(1))


@asynccontextmanager
async def database_of(backend: ResultsBackend, *records: Model) -> AsyncIterator[MerlinDatabase]:
    await backend.insert(records)
    async with opened(backend) as database:
        yield database


async def stored(backend: ResultsBackend, id_: str) -> Any:
    key = NoteKey(NoteKind.ANNOTATIONS, id_)
    text = (await backend.read_notes([key]))[key]
    return None if text is None else json.loads(text)


async def until_gone(backend: ResultsBackend, id_: str) -> None:
    async with asyncio.timeout(20):
        while await stored(backend, id_) is not None:
            await asyncio.sleep(0.005)


async def test_annotations_are_merged_beside_the_record(backend: ResultsBackend) -> None:
    """Key by key, where None removes one; the record itself stays as it is, and the copy has them at once."""
    async with database_of(backend, *housed(run(1))) as database:
        before = read_store(backend).records
        work = database.unit()
        await database.annotate(uid(1), {"owner": "ada", "tags": ["a"], "gone": 1}, work)
        await work.finish()
        assert work.effects == {RUN: Effect(Action.UPDATED, RUN, ("annotations",))}
        await database.annotate(uid(1), {"gone": None, "score": 1.5})
        assert database.runs.get(uid(1)).annotations == {"owner": "ada", "tags": ["a"], "score": 1.5}
        assert await stored(backend, uid(1)) == {"owner": "ada", "tags": ["a"], "score": 1.5}
        work = database.unit()
        await database.studies.annotate("study_900", {"nothing": None}, work)
        await work.finish()
        assert work.effects == {}
        await database.runs.annotate(uid(1), {"owner": None, "tags": None, "score": None})
        assert database.runs.get(uid(1)).annotations == {}
        assert await stored(backend, uid(1)) is None
        assert read_store(backend).records == before


async def test_what_can_not_be_an_annotation_is_refused(backend: ResultsBackend) -> None:
    """No object, an empty or a long key, too much of it, an entity of another kind, and nobody."""
    async with database_of(backend, *housed(run(1)), logical_worker("one")) as database:
        refused: list[Any] = [[], "text", None, {"": 1}, {"k" * 257: 1}, {"k": "x" * MAX_CHARACTERS}, {"\ud800": 1}]
        for wrong in refused:
            with pytest.raises(InvalidValueError) as raised:
                await database.annotate(uid(1), wrong)
            assert raised.value.field == "annotations"
        with pytest.raises(InvalidValueError):
            await database.annotate(logical_worker("one").id, {"k": 1})
        with pytest.raises(RunNotFoundError):
            await database.runs.annotate(uid(77), {"k": 1})
        assert database.read_model.annotations == {}


async def test_concurrent_clients_lose_no_annotation(store: Store) -> None:
    """Two servers on one database merge into one object."""
    async with (
        opened(make_backend(store.url, BackendOptions())) as one,
        opened(make_backend(store.url, BackendOptions())) as two,
    ):
        made = await one.runs.create("hello", "/runs/hello_20260101-000000", ["q"])
        async with asyncio.timeout(20):
            while two.runs.by_id(made.id) is None:
                await asyncio.sleep(0.005)
        await asyncio.gather(
            *(each.annotate(made.id, {f"k{number}": number}) for number, each in enumerate([one, two] * 8))
        )
        wanted = {f"k{number}": number for number in range(16)}
        async with asyncio.timeout(20):
            while not one.runs.get(made.id).annotations == two.runs.get(made.id).annotations == wanted:
                await asyncio.sleep(0.005)


async def test_annotations_go_with_their_entity(backend: ResultsBackend) -> None:
    """Where this server deletes it, in the same step."""
    async with database_of(backend, *housed(run(1), run(2))) as database:
        for id_ in (uid(1), uid(2), uid(900)):
            await database.annotate(id_, {"k": id_})
        await database.runs.delete(uid(1))
        assert await stored(backend, uid(1)) is None
        await database.studies.delete(uid(900))
        assert [await stored(backend, id_) for id_ in (uid(2), uid(900))] == [None, None]
        assert database.read_model.annotations == {}


async def test_annotations_of_what_others_deleted_are_swept(store: Store) -> None:
    """Now, and at the next start where no server was there; read-only nothing is written."""
    async with opened(make_backend(store.url, BackendOptions())) as database:
        first = await database.runs.create("hello", "/runs/a_20260101-000000", ["q"])
        second = await database.runs.create("hello", "/runs/b_20260101-000000", ["q"])
        for each in (first, second):
            await database.annotate(each.id, {"k": 1})
        writer = store.writer()
        writer.delete(Key(EntityKind.RUN, first.id))
        await until_gone(database.backend, first.id)
        assert await stored(database.backend, second.id) == {"k": 1}
    writer.delete(Key(EntityKind.RUN, second.id))
    writer.close()
    async with opened(make_backend(store.url, BackendOptions()), read_only=True) as database:
        await database.feed.refresh([Key(EntityKind.RUN, second.id)])
        assert await stored(database.backend, second.id) == {"k": 1}
    async with opened(make_backend(store.url, BackendOptions())) as database:
        await until_gone(database.backend, second.id)


async def test_annotations_survive_a_restart_and_a_flush_of_nothing_else(store: Store) -> None:
    """They are read when the database is opened, and gone with the whole of it."""
    async with opened(make_backend(store.url, BackendOptions())) as database:
        made = await database.runs.create("hello", "/runs/a_20260101-000000", ["q"])
        await database.annotate(made.id, {"k": [1, {"deep": None}]})
    async with opened(make_backend(store.url, BackendOptions())) as database:
        assert database.runs.get(made.id).annotations == {"k": [1, {"deep": None}]}
        await database.delete_everything(database.unit(), force=True)
        assert await stored(database.backend, made.id) is None


async def test_a_broken_note_is_no_annotation_and_is_not_overwritten(backend: ResultsBackend) -> None:
    """It reads as an empty object; annotating would lose it, and is refused."""
    async with database_of(backend, *housed(run(1))) as database:
        await database.annotate(uid(1), {"k": 1})
        key = NoteKey(NoteKind.ANNOTATIONS, uid(1))

        async def spoil(transaction: Transaction) -> None:
            transaction.set_note(key, "[broken")

        await database.unit().step(spoil)
        await database.feed.refresh((), [key])
        assert database.runs.get(uid(1)).annotations == {}
        with pytest.raises(ConflictError):
            await database.annotate(uid(1), {"k": 2})


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5, width=16) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@given(JSONS, JSONS)
def test_same_json_is_what_json_says(one: Any, other: Any) -> None:
    """Equal as JSON values: objects in any order, 1 as 1.0, true never 1."""

    def tagged(value: Any) -> Any:
        match value:
            case dict():
                return {"object": {key: tagged(inner) for key, inner in value.items()}}
            case list():
                return ["list", *map(tagged, value)]
            case bool():
                return ["bool", value]
            case _:
                return ["plain", value]

    assert is_same_json(one, other) is (tagged(one) == tagged(other))


QUERY = """query ($filter: RunFilter) { runs(filter: $filter) { nodes { workspace annotations } } }"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"key": "owner", "exists": True}, {1, 2}),
        ({"key": "owner", "exists": False}, {3}),
        ({"key": "owner", "eq": "ada"}, {1}),
        ({"key": "owner", "eq": None}, {3}),
        ({"key": "flag", "eq": 1}, {2}),
        ({"key": "flag", "eq": True}, {1}),
        ({"key": "deep", "eq": {"b": [1.0], "a": {}}}, {3}),
        ({"key": "flag", "eq": 1, "exists": False}, set()),
    ],
)
async def test_runs_are_found_by_an_annotation(said: dict[str, Any], expected: set[int]) -> None:
    """By a value, by being there, and by not being there, whatever JSON it is."""
    async with opened(await memory_of(*housed(run(1), run(2), run(3)))) as database:
        await database.annotate(uid(1), {"owner": "ada", "flag": True})
        await database.annotate(uid(2), {"owner": "bob", "flag": 1})
        await database.annotate(uid(3), {"deep": {"a": {}, "b": [1]}})
        data = await ask(database, QUERY, filter={"annotation": said})
        found = {int(node["workspace"].rpartition("_")[2]) for node in data["runs"]["nodes"]}
        assert found == expected
        others = await ask(database, QUERY, filter={"not": {"annotation": said}})
        found = {int(node["workspace"].rpartition("_")[2]) for node in others["runs"]["nodes"]}
        assert found == {1, 2, 3} - expected


async def test_a_filter_of_an_annotation_says_something() -> None:
    """A key alone is refused, and the answer says what to pass."""
    async with opened(await memory_of()) as database:
        result = await execute(database, QUERY, {"filter": {"annotation": {"key": "owner"}}})
        (error,) = result.errors
        assert error.message == "filter.annotation: pass `eq` or `exists` beside the key."


ANNOTATE = """mutation ($id: ID!, $annotations: JSON!) {
  annotate(input: {id: $id, annotations: $annotations}) {
    node { id ... on Run { annotations } ... on Study { annotations } }
    effects { action kind entityId fields } userErrors { code path message }
  }
}"""


async def test_a_client_annotates_and_reads_its_own_note() -> None:
    """The payload has the entity with the note, its effects name it, and a refusal is data."""
    async with opened(await memory_of(*housed(run(1)))) as database:
        for id_, kind in ((uid(1), "RUN"), (uid(900), "STUDY")):
            payload = (await ask(database, ANNOTATE, id=id_, annotations={"k": 1}))["annotate"]
            assert payload == {
                "node": {"id": id_, "annotations": {"k": 1}},
                "effects": [{"action": "UPDATED", "kind": kind, "entityId": id_, "fields": ["annotations"]}],
                "userErrors": [],
            }
        refused = (await ask(database, ANNOTATE, id=uid(1), annotations=[1]))["annotate"]
        assert (refused["node"], refused["userErrors"][0]["path"]) == (None, ["input", "annotations"])


async def test_subscribers_hear_of_annotations(new_url: Callable[[], str]) -> None:
    """As of an update, also where another server made them, and where a filter of runs looks at those of the study."""
    url = new_url()
    async with opened(make_backend(url, BackendOptions())) as database, AsyncExitStack() as stack:
        other = database
        if not url.startswith("memory"):
            other = await stack.enter_async_context(opened(make_backend(url, BackendOptions())))
        made = await database.runs.create("hello", "/runs/a_20260101-000000", ["q"])
        assert made.study is not None
        async with asyncio.timeout(20):
            while other.by_id(made.id) is None or other.by_id(made.study.id) is None:
                await asyncio.sleep(0.005)
        said = {"study": {"annotation": {"key": "star", "eq": True}}}
        everything = await stack.enter_async_context(subscribed(database, CHANGES))
        starred = await stack.enter_async_context(subscribed(database, RUN_CHANGES, filter=said))
        assert await everything.read() == await starred.read() == []
        await other.annotate(made.study.id, {"star": True})
        assert change_of(await everything.wait()) == ("UPDATED", made.study.id)
        assert change_of(await starred.wait()) == ("CREATED", made.id)
        assert (await ask(database, QUERY, filter=said))["runs"]["nodes"] != []
        await other.annotate(made.study.id, {"star": None})
        assert change_of(await starred.wait())[1] == made.id
        assert (await ask(database, QUERY, filter=said))["runs"]["nodes"] == []


def change_of(told: Any) -> tuple[str, str]:
    change = told["data"]["change"]
    return change["kind"], change["id"]


async def test_annotations_that_no_notice_told_of_are_found(redis_server: RedisServer) -> None:
    """`SWAPDB` tells nobody: a pass of the comparison reads the annotations of the other database, and counts them."""
    one, two = (
        make_backend(redis_server.url, BackendOptions()),
        make_backend(redis_server.url_for(database=1), BackendOptions()),
    )
    async with opened(two) as other, opened(one, compare_interval=0.2) as database:
        for each, owner in ((database, "ada"), (other, "bob")):
            await each.backend.insert(housed(run(1)))
            await each.feed.refresh([RUN])
            await each.annotate(uid(1), {"owner": owner})
        with redis_server.client() as client:
            client.swapdb(0, 1)
        async with asyncio.timeout(20):
            while database.runs.get(uid(1)).annotations != {"owner": "bob"} or not database.comparison.missed:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("backend", ["sqlite", "redis"], indirect=True)
async def test_a_note_that_comes_back_while_it_is_removed_is_removed(backend: ResultsBackend, writer: Writer) -> None:
    """Such as the history of a run that Merlin made and deleted within a moment: no notice may tell of it again."""
    came_back = asyncio.Event()
    async with database_of(backend, *housed(run(1))) as database:
        await database.annotate(uid(1), {"owner": "ada"})
        refresh = database.feed.refresh

        async def refresh_late(keys: Collection[Key], notes: Collection[NoteKey] = ()) -> None:
            if not came_back.is_set():
                note = {NoteKey(NoteKind.ANNOTATIONS, uid(1)): '{"owner":"bob"}'}
                await backend.commit(WriteSet(uid(9), {}, {}, {}, frozenset(), {}, {}, note))
                came_back.set()
            await refresh(keys, notes)

        database.feed.refresh = refresh_late  # type: ignore[method-assign]
        writer.delete(RUN)
        async with asyncio.timeout(20):
            await came_back.wait()
        await until_gone(backend, uid(1))


async def test_the_sweep_ends_though_a_cancellation_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As redis-py now and then does on Python 3.11: the database is closed all the same."""

    async def stubborn(_: NoteSweep) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    monkeypatch.setattr(NoteSweep, "run", stubborn)
    async with asyncio.timeout(20), opened(await memory_of()):
        await asyncio.sleep(0)


async def test_what_a_writer_reads_is_still_told_to_the_copy(tmp_path: Path) -> None:
    """A note that another server removed, and that a writer here has read before the file was looked through."""
    url = f"sqlite:///{tmp_path / 'merlin.db'}"
    key = NoteKey(NoteKind.ANNOTATIONS, uid(1))
    backend = make_backend(url, BackendOptions())
    await backend.open()
    async with database_of(backend, *housed(run(1))) as one:
        await one.annotate(key.id, {"a": 1})
        async with opened(make_backend(url, BackendOptions())) as other:
            assert other.runs.get(key.id).annotations == {"a": 1}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(other.backend, "_is_changed", lambda: False)
                await one.annotate(key.id, {"a": None})
                assert await other.backend.read_notes([key]) == {key: None}
            async with asyncio.timeout(20):
                while other.runs.get(key.id).annotations:
                    await asyncio.sleep(0.005)
