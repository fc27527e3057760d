"""One round of the fault suite: clients and Merlin write, faults happen, and the checker decides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.tls import TLS
from server.settings import Settings
from tests.support.checker import Entities, Outcome, Replay, Told, cells_of, difference
from tests.support.entities import by_merlin, in_copy, in_redis, without_annotations
from tests.support.histories import clients, resting, until_done
from tests.support.live import Live, serving, until
from tests.support.merlin_process import Merlin
from tests.support.merlin_writer import writing
from tests.support.nemeses import Nemesis, Site, replaced, swapped
from tests.support.plans import OF_ALL
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer
from tests.support.watchers import watching

CLIENTS = 6
MORE = 15
"""Mutations that are acknowledged before and after each fault."""
SWEEPS = 0.02
DEADLINES = (5.0, 1.5, 30.0)
"""`--deadline` of the servers."""
QUIET = 20.0
"""Seconds until everything has to agree."""
SWAPPING = {swapped, replaced}
"""Faults that Redis tells nobody of: only a comparison finds them."""
COMPARE_INTERVAL = 1.0
GARBAGE = ("EMPTY_STUDY", "ORPHAN_WORKER")
INTEGRITY = "{ integrity { problems { kind entityId otherId field message repairable } } }"
REPAIR = "mutation { repair(input: {dryRun: false}) { userErrors { message } } }"
DELETE_RUN = "mutation($id: ID!) { deleteRun(input: {id: $id, force: true}) { userErrors { message } } }"
COMMANDS = ("all-studies", "all-runs", "all-logical-workers", "all-physical-workers")


Record: TypeAlias = Callable[[str, object], None]
"""pytest's `record_property`."""
ROUND = "fault_round"
"""The property with what has happened in a round; tests/faults/conftest.py sums it up."""


async def fault_round(
    server: RedisServer,
    proxy: Proxy,
    nemeses: Sequence[Nemesis],
    seed: int,
    home: Path,
    record: Record,
    servers: int = 2,
) -> Told:
    """Raises `AssertionError` with what the checker finds."""
    urls = [proxy.url if number == 1 else server.url for number in range(servers)]
    options = BackendOptions()
    if server.tls is not None:  # the way through the proxy, too, which passes on what it can't read
        urls = [url.replace("redis://", "rediss://") for url in urls]
        options = BackendOptions(tls=TLS(ca_certs=str(server.tls.ca)))
    async with AsyncExitStack() as stack:
        merlin = stack.enter_context(Merlin(home, server.url))
        lives = [
            await stack.enter_async_context(
                serving(make_backend(url, options), settings=Settings(no_auth=True, deadline=deadline))
            )
            for url, deadline in zip(urls, DEADLINES, strict=False)
        ]
        addresses = [live.http for live in lives]
        if SWAPPING & {*nemeses}:
            for live in lives:
                await stack.enter_async_context(live.database.comparison.running(COMPARE_INTERVAL))
        async with clients(CLIENTS, addresses, seed, OF_ALL, SWEEPS) as told, watching(addresses, told) as replays:
            try:
                async with writing(merlin, told, seed):
                    for nemesis in nemeses:
                        await until_done(told, MORE)
                        await nemesis(Site(server, proxy, told))
                    await until_done(told, MORE)
                async with resting(told):
                    await check(server, lives, merlin, told, replays)
            finally:
                record(ROUND, _summary(nemeses, told, replays))
    return told


def _summary(nemeses: Sequence[Nemesis], told: Told, replays: Sequence[Replay]) -> dict[str, dict[str, int]]:
    operations = {outcome.name: told.outcomes[outcome] for outcome in Outcome}
    more = {"Merlin's": told.mutations["Merlin"], "sent again": told.repeated}
    return {
        "faults": dict(Counter(nemesis.__name__ for nemesis in nemeses)),
        "operations": {**operations, **more, "events": sum(replay.events for replay in replays)},
        "acknowledged": dict(told.mutations),
    }


async def check(
    server: RedisServer, lives: Sequence[Live], merlin: Merlin, told: Told, replays: Sequence[Replay]
) -> None:
    """While nobody writes. What can't be explained by Merlin's own writing, or by the faults, is a finding."""
    await until(lambda: all(live.database.stale_since is None for live in lives))
    for live in lives:
        await live.database.feed.catch_up()
    with server.client() as client:
        stored = in_redis(client)
    with suppress(TimeoutError):
        async with asyncio.timeout(QUIET):
            while (
                any(in_copy(live.database) != stored for live in lives)
                or any(replay.known != stored for replay in replays)
                or await of_histories(server, lives)
            ):
                await asyncio.sleep(0.02)
    findings = told.check(cells_of(stored))
    for name, live in zip("12345", lives, strict=False):
        findings += [f"the copy of server {name}: {each}" for each in difference(in_copy(live.database), stored)]
    for name, replay in zip("12345", replays, strict=False):
        findings += [f"told by server {name}: {each}" for each in replay.check(stored)]
    findings += await of_histories(server, lives)
    findings += [str(problem) for problem in await problems_of(lives[0]) if not is_explained(problem, stored, told)]
    findings += await unrepaired(lives[0], told, stored)
    with server.client() as client:
        stored = in_redis(client)
    findings += [f"by Merlin: {each}" for each in difference(by_merlin(merlin), without_annotations(stored))]
    for command in COMMANDS:
        ran = merlin.command("database", "get", command)
        findings += [f"merlin database get {command}: {error}" for error in ran.errors]
        if ran.code:
            findings.append(f"merlin database get {command}: exit code {ran.code}")
    assert findings == [], "\n".join(findings)


async def of_histories(server: RedisServer, lives: Sequence[Live]) -> list[str]:
    """Where the history of a run is not as it is stored, or does not end with the status of the run."""
    prefix = "merlin-graphql:history:"
    with server.client() as client:
        stored = {key.removeprefix(prefix): str(client.get(key)) for key in client.scan_iter(f"{prefix}*", count=1000)}
    findings = []
    for name, live in zip("12345", lives, strict=False):
        shown = live.database.read_model.histories.by_run
        different = [
            id_ for id_ in stored.keys() | shown.keys() if id_ not in shown or shown[id_].text != stored.get(id_)
        ]
        findings += [f"server {name} shows another history of {id_}" for id_ in different]
        runs = live.database.read_model.runs.records
        findings += [f"a history without a run: {id_}" for id_ in shown if id_ not in runs]
        ends = [id_ for id_, history in shown.items() if id_ in runs and history.last is not runs[id_].run_status]
        findings += [f"the history of {id_} ends with another status, {shown[id_].text}" for id_ in ends]
    return findings


async def problems_of(live: Live) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(timeout=QUIET) as http:
        answer = (await http.post(live.http, json={"query": INTEGRITY})).json()
    problems: list[dict[str, Any]] = answer["data"]["integrity"]["problems"]
    return [problem for problem in problems if problem["kind"] not in GARBAGE]


async def unrepaired(live: Live, told: Told, stored: Entities) -> list[str]:
    """What is left after a repair, and should not be. A fault may leave what no repair can mend without losing data.

    A run of Merlin's whose study was lost has no name for it: it has to be deleted.
    """
    findings = []
    async with httpx.AsyncClient(timeout=QUIET) as http:
        await http.post(live.http, json={"query": REPAIR})
        for problem in await problems_of(live):
            if problem["field"] == "studyId" and told.era:
                variables = {"id": problem["entityId"]}
                answer = (await http.post(live.http, json={"query": DELETE_RUN, "variables": variables})).json()
                findings += [f"deleteRun: {error}" for error in answer["data"]["deleteRun"]["userErrors"]]
    left = await problems_of(live)
    return findings + [
        f"after a repair: {problem}"
        for problem in left
        if problem["repairable"] or not is_explained(problem, stored, told)
    ]


def is_explained(problem: Mapping[str, Any], stored: Entities, told: Told) -> bool:
    """Whether it is about an entity that a fault took away, or that Merlin wrote while its writes failed."""
    ids = {problem["entityId"], problem["otherId"]} - {None}
    names = [stored[id_].name for id_ in ids if id_ in stored]
    return bool(ids & told.broken) or any("merlin" in name for name in names)
