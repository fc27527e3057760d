"""Faults of an SQLite file under a load of mutations: what clients were told is true when it is over."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from tests.support.histories import clients, copy_of, until_done
from tests.support.live import serving
from tests.support.merlin_process import Merlin

pytestmark = pytest.mark.anyio


async def locked(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(1.0)
        other.execute("COMMIT")


async def vacuumed(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for _ in range(5):
            with suppress(sqlite3.OperationalError):
                other.execute("VACUUM")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("nemesis", [locked, vacuumed], ids=lambda nemesis: nemesis.__name__)
async def test_what_clients_were_told_is_true_after_a_fault_of_a_file(
    nemesis: Callable[[str], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    """The same for two servers of one SQLite file."""
    with Merlin(tmp_path / "home") as merlin:
        merlin.call("studies.create", "faults")
        url = f"sqlite:///{merlin.database_file}"
        async with (
            serving(make_backend(url, BackendOptions())) as one,
            serving(make_backend(url, BackendOptions())) as other,
        ):
            async with clients(3, [one.http, other.http], 1) as told:
                await until_done(told, 10)
                await nemesis(str(merlin.database_file))
                await until_done(told, 10)
            for live in (one, other):
                await live.database.feed.catch_up()
            stored = {run["workspace"]: run["additional_data"].get("n") for run in merlin.dump()["run"]}
            assert told.check(stored) == []
            assert copy_of(one) == copy_of(other) == stored
