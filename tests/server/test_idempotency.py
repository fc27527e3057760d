"""Mutations with an idempotency key: one execution and one answer, however often and wherever they are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of, new_token
from server.database import idempotency
from server.database.backends import memory, redis_script, redis_writer
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.notes import Note, NoteKind
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendUnavailableError
from server.database.transactions import Transaction
from server.protocols import idempotency as protocol
from server.settings import Settings
from tests.conftest import Store
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.proxy import Fault, Proxy
from tests.support.records import memory_of, run, uid
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

CREATE = """mutation Create($workspace: String!, $parent: ID) {
  createRun(input: {studyName: "alpha", workspace: $workspace, queues: [], parentId: $parent}) {
    run { id workspace }
    effects { action entityId }
    userErrors { code }
  }
}"""
"""Done twice it would be refused: there is one run to a workspace."""


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        yield client


@asynccontextmanager
async def server_of(url: str, settings: Settings | None = None) -> AsyncIterator[Live]:
    async with serving(make_backend(url, BackendOptions()), settings=settings) as live:
        yield live


async def send(
    client: httpx.AsyncClient, live: Live, key: str | None, workspace: str = "/new", **more: Any
) -> dict[str, Any]:
    """The answer to the creation of a run."""
    given = {"query": CREATE, "variables": {"workspace": workspace, **more}}
    headers = {} if key is None else {"x-idempotency-key": key}
    answer: dict[str, Any] = (await client.post(live.http, json=given, headers=headers)).json()
    return answer


def id_of(answer: dict[str, Any]) -> str:
    assert "errors" not in answer
    payload = answer["data"]["createRun"]
    assert payload["userErrors"] == []
    return str(payload["run"]["id"])


def code_of(answer: dict[str, Any]) -> str:
    (error,) = answer["errors"]
    return str(error["extensions"]["code"])


class Held:
    """A backend's commits that wait, until they are let go."""

    def __init__(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = 0
        self.go = asyncio.Event()
        self._commit = live.database.backend.commit
        monkeypatch.setattr(live.database.backend, "commit", self.commit)

    async def commit(self, batch: WriteSet, *arguments: Any) -> bool:
        if batch.written or {note.kind for note in batch.notes} != {NoteKind.HISTORY}:  # else it is no mutation
            self.waiting += 1
            await self.go.wait()
        return await self._commit(batch, *arguments)


async def outcomes(live: Live) -> list[Note]:
    return [note for note in await live.database.backend.load_notes() if note.key.kind is NoteKind.OUTCOME]


# --- one answer -------------------------------------------------------------------------------------------------------


async def test_a_mutation_that_is_sent_again_gets_its_first_answer(
    new_url: Callable[[], str], client: httpx.AsyncClient
) -> None:
    """Without a second execution; with another key it is executed."""
    async with server_of(new_url()) as live:
        first = await send(client, live, "a")
        assert await send(client, live, "a") == first
        assert [each.id for each in live.database.runs.all()] == [id_of(first)]
        assert (await send(client, live, "b"))["data"]["createRun"]["userErrors"] == [{"code": "ALREADY_EXISTS"}]
        assert (await send(client, live, None))["data"]["createRun"]["userErrors"] == [{"code": "ALREADY_EXISTS"}]


async def test_a_refusal_by_its_own_first_execution_is_not_told(
    store: Store, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server executes it just after this one has looked for it: this one finds it done, gives that answer."""
    async with server_of(store.url) as one, server_of(store.url) as other:
        runner = other.database._runner
        first: list[dict[str, Any]] = []
        begin = runner.begin

        async def begin_too_early(*, reads: bool = True) -> Transaction:
            transaction = await begin(reads=reads)
            await transaction.note(next(iter(other.database.outcomes._running)))  # which a transaction reads only once
            if not first:
                first.append(await send(client, one, "a"))
                await other.database.feed.catch_up()
            return transaction

        monkeypatch.setattr(runner, "begin", begin_too_early)
        assert await send(client, other, "a") == first[0]
        assert [each.id for each in other.database.runs.all()] == [id_of(first[0])]


async def test_who_asks_while_it_runs_waits_for_its_answer(
    new_url: Callable[[], str], client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five requests at once are one execution."""
    async with server_of(new_url()) as live:
        held = Held(live, monkeypatch)
        asking = [asyncio.create_task(send(client, live, "a")) for _ in range(5)]
        await until(lambda: held.waiting > 0)
        other = await send(client, live, "a", "/other")
        assert code_of(other) == "BAD_USER_INPUT"
        held.go.set()
        ids = {id_of(answer) for answer in await asyncio.gather(*asking)}
        assert len(ids) == 1
        assert held.waiting == 2  # the change, and its answer
        assert len(live.database.runs) == 1


async def test_another_server_knows_the_answer(
    store: Any, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was given, and while both execute it: the one that comes second at the database waits for the first."""
    async with server_of(store.url) as one:
        async with server_of(store.url) as two:
            first = await send(client, one, "a")
            assert await send(client, two, "a") == first
            ours, theirs = Held(one, monkeypatch), Held(two, monkeypatch)
            asking = [asyncio.create_task(send(client, live, "b", "/second")) for live in (one, two)]
            await until(lambda: ours.waiting == theirs.waiting == 1)
            ours.go.set()
            theirs.go.set()
            answers = await asyncio.gather(*asking)
            assert id_of(answers[0]) == id_of(answers[1])
        assert len(one.database.runs) == 2


async def test_a_new_server_knows_the_answer(redis_server: RedisServer, client: httpx.AsyncClient) -> None:
    """From the database, where it stays for ten minutes."""
    async with server_of(redis_server.url) as live:
        first = await send(client, live, "a")
    async with server_of(redis_server.url) as live:
        assert await send(client, live, "a") == first
        assert len(live.database.runs) == 1
    with redis_server.client() as direct:
        (name,) = direct.scan_iter("merlin-graphql:outcome:*")
        assert 0 < direct.ttl(name) <= 600


async def test_a_websocket_sends_the_key_among_its_extensions(client: httpx.AsyncClient) -> None:
    """As may the JSON of any request."""
    given = {"query": CREATE, "variables": {"workspace": "/new"}, "extensions": {"idempotencyKey": "a"}}
    async with serving(await memory_of()) as live:
        first = (await client.post(live.http, json=given)).json()
        assert await send(client, live, "a") == first
        async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send(json.dumps({"type": "connection_init"}))
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": given}))
            await socket.recv()
            assert json.loads(await socket.recv())["payload"] == first
        assert len(live.database.runs) == 1


async def test_a_client_that_has_disconnected_finds_the_answer(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation goes on without it, and its answer is kept."""
    async with serving(await memory_of()) as live:
        held = Held(live, monkeypatch)
        asking = asyncio.create_task(send(client, live, "a"))
        await until(lambda: held.waiting == 1)
        asking.cancel()
        held.go.set()
        await until(lambda: held.waiting == 2)
        assert id_of(await send(client, live, "a")) == live.database.runs.all()[0].id
        assert len(live.database.runs) == 1


# --- whose key, and of what -------------------------------------------------------------------------------------------


async def test_a_key_is_of_one_operation(client: httpx.AsyncClient) -> None:
    """With other variables, or for another operation, it is refused."""
    async with serving(await memory_of()) as live:
        id_of(await send(client, live, "a"))
        refused = await send(client, live, "a", "/other")
        assert code_of(refused) == "BAD_USER_INPUT"
        assert refused["errors"][0]["extensions"]["argument"] == "idempotencyKey"
        given = {"query": 'mutation { createStudy(input: {name: "b"}) { created } }'}
        other = await client.post(live.http, json=given, headers={"x-idempotency-key": "a"})
        assert code_of(other.json()) == "BAD_USER_INPUT"
        assert len(live.database.runs) == 1


async def test_a_key_is_of_one_client(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """The same key of somebody else is another one."""
    path = tmp_path / "tokens"
    tokens = [new_token(), new_token()]
    for token, name in zip(tokens, ("ada", "bob"), strict=True):
        add_line(path, TokenLine(name, Role.ADMIN, hash_of(token), None))
    async with serving(await memory_of(), settings=Settings(token_file=path)) as live:
        answers = []
        for token in tokens:
            client.headers["authorization"] = f"Bearer {token}"
            answers.append(await send(client, live, "a"))
        id_of(answers[0])
        assert answers[1]["data"]["createRun"]["userErrors"] == [{"code": "ALREADY_EXISTS"}]


async def test_queries_ignore_the_key(client: httpx.AsyncClient) -> None:
    """They are answered anew each time."""
    async with serving(await memory_of()) as live:
        for count in range(3):
            asked = {"query": "{ runs { totalCount } }"}
            answer = await client.post(live.http, json=asked, headers={"x-idempotency-key": "a"})
            assert answer.json() == {"data": {"runs": {"totalCount": count}}}
            await send(client, live, None, f"/{count}")


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_that_cannot_be_meant_is_refused(client: httpx.AsyncClient, key: str) -> None:
    """As a header, and among the extensions; so are two keys at once."""
    async with serving(await memory_of()) as live:
        assert code_of(await send(client, live, key)) == "BAD_REQUEST"
        for given in (key, 1, ["a"]):
            body = {"query": CREATE, "extensions": {"idempotencyKey": given}}
            assert code_of((await client.post(live.http, json=body)).json()) == "BAD_REQUEST"
        body = {"query": CREATE, "extensions": {"idempotencyKey": "a"}}
        both = await client.post(live.http, json=body, headers={"x-idempotency-key": "b"})
        assert code_of(both.json()) == "BAD_REQUEST"
        assert len(live.database.runs) == 0


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_a_refusal_is_not_kept(client: httpx.AsyncClient) -> None:
    """It executed nothing: once its reason is gone, the same mutation is done."""
    backend = await memory_of()
    async with serving(backend) as live:
        refused = await send(client, live, "a", parent=uid(1))
        assert refused["data"]["createRun"]["userErrors"] == [{"code": "NOT_FOUND"}]
        await backend.insert([run(1)])
        await live.database.feed.refresh([])
        await until(lambda: len(live.database.runs) == 1)
        id_of(await send(client, live, "a", parent=uid(1)))


async def test_a_failure_that_changed_nothing_is_not_kept(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refused, and accepts the next time."""
    async with serving(await memory_of()) as live:
        with monkeypatch.context() as patch:

            async def fail(*_: object) -> bool:
                raise BackendUnavailableError("It is gone.")

            patch.setattr(live.database.backend, "commit", fail)
            assert code_of(await send(client, live, "a")) == "DATABASE_UNAVAILABLE"
        id_of(await send(client, live, "a"))


async def test_what_was_executed_is_not_executed_again_though_its_answer_is_lost(
    store: Any, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a server ends between the change and the answer, another one tells what was changed."""
    monkeypatch.setattr(protocol, "GRACE_SECONDS", 0.0)
    settings = Settings(no_auth=True, deadline=1.0)
    async with server_of(store.url, settings) as one, server_of(store.url, settings) as two:

        async def lose(*_: object) -> None:
            pass

        monkeypatch.setattr(one.database.outcomes, "keep", lose)
        first = id_of(await send(client, one, "a"))
        await asyncio.sleep(1.0)  # until the execution has ended in any case
        again = await send(client, two, "a")
        assert code_of(again) == "UNKNOWN_OUTCOME"
        assert {"action": "CREATED", "id": first} in again["errors"][0]["extensions"]["effects"]
        await two.database.feed.refresh([])
        await until(lambda: len(two.database.runs) == 1)


async def test_who_was_told_that_nobody_knows_tries_again_safely(
    redis_server: RedisServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the database was lost in the middle: where the change was made, it is not made again; else it is made."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.2)
    with redis_server.client() as direct:
        direct.script_load(redis_script.SCRIPT)
    async with Proxy(redis_server.port) as proxy, server_of(proxy.url) as live:
        proxy.fault = Fault.GO_DOWN
        assert code_of(await send(client, live, "a")) == "UNKNOWN_OUTCOME"
        await proxy.come_back()
        again = await send(client, live, "a")
        assert code_of(again) == "UNKNOWN_OUTCOME"
        assert "is not executed again" in again["errors"][0]["message"]
        await until(lambda: live.database.stale_since is None)
        (made,) = live.database.runs.all()
        assert {"action": "CREATED", "id": made.id} in again["errors"][0]["extensions"]["effects"]
        await until(lambda: not live.database.read_model.histories.unstored)  # the next write is the mutation's
        proxy.requests.clear()
        asking = asyncio.create_task(send(client, live, "b", "/b"))
        await until(lambda: proxy.held > 0)
        await proxy.go_down()
        assert code_of(await asking) == "UNKNOWN_OUTCOME"
        proxy.requests.set()
        await proxy.come_back()
        await until(lambda: live.database.stale_since is None)
        id_of(await send(client, live, "b", "/b"))
        assert len(live.database.runs) == 2


async def test_an_answer_that_is_too_long_is_not_kept(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation is not executed again all the same."""
    monkeypatch.setattr(idempotency, "MAX_ANSWER", 10)
    async with serving(await memory_of()) as live:
        id_of(await send(client, live, "a"))
        again = await send(client, live, "a")
        assert code_of(again) == "UNKNOWN_OUTCOME"
        assert "too long" in again["errors"][0]["message"]


async def test_outcomes_are_bounded(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many, or so much, a mutation with a new key is refused; the known ones are answered."""
    for name, value in (("MAX_ENTRIES", 1), ("MAX_SIZE", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(idempotency, name, value)
            async with serving(await memory_of()) as live:
                first = await send(client, live, "a")
                refused = await send(client, live, "b", "/b")
                assert code_of(refused) == "LIMIT_EXCEEDED"
                assert refused["errors"][0]["extensions"]["limit"] == "idempotencyKeys"
                assert await send(client, live, "a") == first
                id_of(await send(client, live, None, "/c"))


async def test_outcomes_are_forgotten(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """After their time, in memory, too."""
    monkeypatch.setattr(memory, "LIFETIMES", {NoteKind.OUTCOME: 0.0})
    async with serving(await memory_of()) as live:
        id_of(await send(client, live, "a"))
        assert (await send(client, live, "a"))["data"]["createRun"]["userErrors"] == [{"code": "ALREADY_EXISTS"}]
        assert await outcomes(live) == []


async def test_the_copy_holds_no_outcomes(redis_server: RedisServer, client: httpx.AsyncClient) -> None:
    """Nor is it told of them: the revision stays."""
    async with server_of(redis_server.url) as live:
        id_of(await send(client, live, "a"))
        await until(lambda: not live.database.read_model.histories.unstored)
        revision = live.database.revision
        with redis_server.client() as direct:
            (name,) = direct.scan_iter("merlin-graphql:outcome:*")
            direct.expire(name, 500)
        assert await outcomes(live) == []
        assert live.database.revision == revision
