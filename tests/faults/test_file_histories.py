"""Faults of an SQLite file under a load of mutations: what clients were told is true when it is over."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from tests.support.histories import Outcome, Told, clients, copy_of, until_done
from tests.support.live import serving, until
from tests.support.merlin_process import Merlin
from tests.support.sqlite_faults import FILE_FAULTS, LONG_FILE_FAULTS, FileFault, FileSite, runs_in, unwritable

pytestmark = pytest.mark.anyio

CLIENTS = 3
MORE = 10
"""Mutations that are acknowledged before and after each fault."""


@pytest.fixture
def can_be_unwritable(tmp_path: Path) -> bool:
    """Nothing is for root."""
    directory = tmp_path / "unwritable"
    directory.mkdir(0o500)
    return not os.access(directory, os.W_OK)


async def check_faults(faults: list[FileFault], seed: int, home: Path) -> Told:
    with Merlin(home) as merlin:
        merlin.call("studies.create", "faults")
        path = merlin.database_file
        url = f"sqlite:///{path}"
        async with (
            serving(make_backend(url, BackendOptions())) as one,
            serving(make_backend(url, BackendOptions())) as other,
        ):
            async with clients(CLIENTS, [one.http, other.http], seed) as told:
                for fault in faults:
                    await until_done(told, MORE)
                    await fault(FileSite(path, told, merlin))
                await until_done(told, MORE)
            await until(lambda: all(live.database.stale_since is None for live in (one, other)))
            for live in (one, other):
                await live.database.feed.catch_up()
            stored = runs_in(path)
            assert told.check(stored) == []
            assert copy_of(one) == stored
            assert copy_of(other) == stored
            assert {run["workspace"] for run in merlin.dump()["run"]} == stored.keys()
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    print([fault.__name__ for fault in faults], dict(told.outcomes))
    return told


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: fault.__name__)
async def test_what_clients_were_told_is_true_after_a_fault_of_a_file(
    fault: FileFault, can_be_unwritable: bool, tmp_path: Path
) -> None:
    """Nothing acknowledged is lost, nothing refused is done; copies and Merlin agree with a file that is whole."""
    if fault is unwritable and not can_be_unwritable:
        pytest.skip("nothing is unwritable for root")
    told = await check_faults([fault], 1, tmp_path / "home")
    assert told.outcomes[Outcome.DONE] >= 2 * MORE


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
async def test_what_clients_were_told_is_true_after_many_faults_of_a_file(
    seed: int, can_be_unwritable: bool, tmp_path: Path
) -> None:
    """As above, one fault after the other in any order."""
    faults = [fault for fault in (*FILE_FAULTS, *LONG_FILE_FAULTS) if fault is not unwritable or can_be_unwritable]
    await check_faults(random.Random(seed).choices(faults, k=20), seed, tmp_path / "home")
