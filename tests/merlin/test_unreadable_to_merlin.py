"""Values that Merlin stores and then fails at are refused: each is tried with Merlin itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import InvalidValueError
from server.database.merlin_database import MerlinDatabase, opened
from tests.support.merlin_process import Merlin
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

SETS: list[Any] = [[1], 1, [[1]], {}, "x", False, None]
WORKSPACE = "/runs/hello_20260102-030405"


async def worker_in(database: MerlinDatabase) -> str:
    return (await database.logical_workers.create("owner", ["q"])).id


async def create_run(database: MerlinDatabase, **fields: Any) -> object:
    return await database.runs.create("hello", WORKSPACE, ["q"], **fields)


async def create_worker(database: MerlinDatabase, name: str = "celery@w", **fields: Any) -> object:
    return await database.physical_workers.create(name, logical_worker_id=await worker_in(database), **fields)


async def update_run(database: MerlinDatabase, **fields: Any) -> object:
    made = await database.runs.create("hello", WORKSPACE, ["q"])
    return await database.runs.update(made.id, **fields)


async def update_worker(database: MerlinDatabase, **fields: Any) -> object:
    made = await database.physical_workers.create("celery@w", logical_worker_id=await worker_in(database))
    return await database.physical_workers.update(made.id, **fields)


@pytest.mark.parametrize("value", SETS, ids=repr)
@pytest.mark.parametrize(
    ("change", "field"),
    [
        *((create_run, name) for name in ("parameters", "samples", "additional_data")),
        (update_run, "additional_data"),
        *((create_worker, name) for name in ("args", "additional_data")),
        (update_worker, "args"),
    ],
)
async def test_no_object_can_be_taken_for_a_set(
    change: Callable[..., Awaitable[object]], field: str, value: Any
) -> None:
    """In each JSON field of Merlin's records; deeper inside of one it is a key like any other."""
    if change is update_run and value is None:
        pytest.skip("this drops the key")
    async with opened(await memory_of()) as database:
        with pytest.raises(InvalidValueError) as refused:
            await change(database, **{field: {"a": 1, "__set__": value}})
        assert refused.value.field == field
    async with opened(await memory_of()) as database:
        await change(database, **{field: {"a": {"__set__": value}}})


async def test_a_key_that_is_a_set_to_merlin_can_be_dropped_and_annotated() -> None:
    """A null value drops it from additional data, and annotations are not Merlin's."""
    async with opened(await memory_of()) as database:
        made = await database.runs.create("hello", WORKSPACE, ["q"])
        await database.runs.update(made.id, additional_data={"__set__": None})
        await database.annotate(made.id, {"__set__": [1]})
        assert database.runs.get(made.id).annotations == {"__set__": [1]}


@pytest.mark.parametrize("pid", ["inf", "-inf", "Infinity", "1e400", "9" * 400])
async def test_a_process_id_is_no_endless_number(pid: str) -> None:
    """Merlin reads it by way of a float, and fails at one that is none."""
    for change in (create_worker, update_worker):
        async with opened(await memory_of()) as database:
            with pytest.raises(InvalidValueError) as refused:
                await change(database, pid=pid)
            assert refused.value.field == "pid"


@pytest.mark.parametrize("pid", ["4242", "0", "nan", "a job", "1e3"])
async def test_other_process_ids_are_taken(pid: str) -> None:
    """Also a text, which to Merlin is none."""
    async with opened(await memory_of()) as database:
        await create_worker(database, pid=pid)


async def test_what_merlin_shows_ends_no_style() -> None:
    """`[/` in a worker's name, a queue or a host; `[merlin]_q` is a queue like any other."""
    async with opened(await memory_of()) as database:
        for change, field in (
            (database.logical_workers.create("a[/b]", ["q"]), "name"),
            (database.logical_workers.create("a", ["q[/]"]), "queues"),
            (create_worker(database, "celery@a[/b]"), "name"),
            (create_worker(database, host="h[/b]"), "host"),
        ):
            with pytest.raises(InvalidValueError) as refused:
                await change
            assert refused.value.field == field
        await database.logical_workers.create("a[b]", ["[merlin]_q"])


async def test_merlin_reads_what_is_taken_at_these_edges(tmp_path: Path) -> None:
    """Real Merlin, each value next to one that is refused."""
    with Merlin(tmp_path / "home") as merlin:
        merlin.call("studies.create", "its tables")
        async with opened(make_backend(f"sqlite:///{merlin.database_file}", BackendOptions())) as database:
            await create_run(database, parameters={"a": {"__set__": [1]}}, additional_data={"set": [1]})
            await create_worker(database, pid="1e3", args={"deep": [{"__set__": 1}]})
        found = await asyncio.to_thread(merlin.dump)
        assert [len(found[kind]) for kind in ("run", "physical_worker")] == [1, 1]
        (worker,) = found["physical_worker"]
        assert merlin.entity("physical_worker", worker["id"], "get_pid") == 1000
