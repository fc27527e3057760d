"""Every operation on a socket or a stream has an end, whatever fails in it, and wherever."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect, WebSocketDisconnected
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from schema import engine, mutation_executor
from schema.compiler.compiler import Compiler
from schema.engine import Engine
from schema.operation import GraphQLResponse
from schema.sharing import SharedAnswers
from server.auth.access_control import AccessControl
from server.auth.lease import Lease
from server.database.change_log import ChangeLog, _Follower
from server.database.models import EntityKind, Entry, Key
from server.observability.metrics import Metrics
from server.observability.telemetry import OperationOutcome, Telemetry
from server.protocols import http, websocket
from server.protocols.persisted_documents import PersistedDocuments
from server.protocols.service import Service
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

QUERY = "{ runs { nodes { workspace } } }"
MUTATION = 'mutation { createStudy(input: {name: "a"}) { created } }'
SNAPSHOT = "subscription { changes(snapshot: true) { kind } }"
CHANGES = "subscription { changes { kind } }"
STREAM = {"accept": "text/event-stream"}
TYPENAME = {"data": {"__typename": "Query"}}


def exceptions() -> list[BaseException]:
    """One of each class that there is, beside those that a client is told of by name."""
    special: list[BaseException] = [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "secret"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "secret"),
        UnicodeTranslateError("\ud800", 0, 1, "secret"),
        ExceptionGroup("secret", [OSError("secret")]),
        json.JSONDecodeError("secret", "", 0),
        asyncio.CancelledError("secret"),  # of something that was waited for
        asyncio.IncompleteReadError(b"secret", None),
        WebSocketDisconnect(1006, "secret"),
        WebSocketDisconnected("secret"),
        ClientDisconnect("secret"),
        ClientDisconnected("secret"),
    ]
    given = {type(error).__name__ for error in special}
    found = {it.__name__: it for it in vars(builtins).values() if isinstance(it, type) and issubclass(it, Exception)}
    return special + [found[name]("secret") for name in sorted(found.keys() - given)]


ALL = exceptions()
_turns = itertools.count()


def some() -> list[BaseException]:
    """Of every sort at each place: all of them at a few places, since the next ones begin at the next place."""
    return ALL[next(_turns) % 8 :: 8]


class Fault:
    """Raised once by what stands in place of a part of the server, after that was armed."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def arm(self, error: BaseException) -> None:
        self.error = error

    @property
    def is_raised(self) -> bool:
        return self.error is None

    def strike(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            error.__traceback__ = error.__context__ = None
            raise error


@contextmanager
def fault_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[Fault]:
    fault = Fault()
    original = vars(owner)[name]

    def call(*given: Any, **named: Any) -> Any:
        fault.strike()
        return original(*given, **named)

    def read(it: Any) -> Any:
        fault.strike()
        return original.fget(it)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, property(read) if isinstance(original, property) else call)
        yield fault


BEGINNING = [
    (PersistedDocuments, "text"),
    (Engine, "parse"),
    (engine, "check_role"),
    (Engine, "_cost"),
    (Lease, "identity"),
    (AccessControl, "consume"),
    (Service, "context"),
    (Service, "prepare"),
]
"""What every operation comes by before it has an answer."""
STREAMED = [(Service, "stream"), (Engine, "execute"), (Telemetry, "operation")]
"""And all but a query over HTTP."""
ANSWERING = [(OperationOutcome, "add_response"), (GraphQLResponse, "__init__")]
"""And with each answer."""
ENDING = [(Telemetry, "note"), (Metrics, "count_operation")]
OF_QUERIES = [(Compiler, "answer"), (Engine, "_at_once"), (Engine, "_queried")]
OF_MUTATIONS = [(engine, "execute_mutation"), (mutation_executor, "execute_root_selection_set")]
OF_SUBSCRIPTIONS = [
    *((Engine, "_shared_responses"), (Engine, "_events"), (engine, "create_source_event_stream")),
    *((Compiler, "answer"), (Engine, "_responses"), (SharedAnswers, "to"), (ChangeLog, "follow")),
]
IN_THE_MIDDLE = [*ANSWERING, (Compiler, "answer"), (SharedAnswers, "to"), (_Follower, "advance")]
OF_SOCKETS = [(websocket, "parse_request"), (websocket.Connection, "_refusal"), (websocket.Connection, "_answer")]
OF_STREAMS = [(http, "read_request"), (http, "visitor_of"), (AccessControl, "authenticate"), (http, "_check")]


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one"))) as server:
        yield server


class Socket:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def begin(self, query: str) -> None:
        message = {"type": "subscribe", "id": "a", "payload": {"query": query}}
        await self._connection.send(json.dumps(message))

    async def end(self) -> list[dict[str, Any]] | None:
        """The errors that the operation ends with; None where it is complete."""
        while (message := await self.hear())["type"] == "next":
            pass
        assert message["id"] == "a"
        return None if message["type"] == "complete" else message["payload"]

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            heard: dict[str, Any] = json.loads(await self._connection.recv())
        return heard


@asynccontextmanager
async def socket_of(live: Live) -> AsyncIterator[Socket]:
    async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as connection:
        await connection.send('{"type": "connection_init"}')
        assert "connection_ack" in await connection.recv()
        yield Socket(connection)


async def errors_of_stream(client: httpx.AsyncClient, query: str) -> list[dict[str, Any]] | None:
    """Those that its last event `next` has; `complete` follows in any case."""
    answer = await client.post("/graphql", json={"query": query}, headers=STREAM)
    assert answer.status_code == 200
    assert answer.text.endswith("event: complete\ndata: \n\n")
    last = answer.text.split("event: next\ndata: ")[-1].partition("\n")[0]
    errors: list[dict[str, Any]] | None = json.loads(last).get("errors")
    return errors


def check(errors: list[dict[str, Any]] | None, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """It is masked, and logged with what it says under the id that the client is told."""
    assert errors is not None, repr(error)
    (told,) = errors
    assert "secret" not in json.dumps(told)
    if isinstance(error, RecursionError) and told["extensions"]["code"] == "BAD_USER_INPUT":
        return  # what was asked for is nested too deeply
    assert told["extensions"]["code"] == "INTERNAL_SERVER_ERROR", (repr(error), told)
    (record,) = [it for it in caplog.records if told["extensions"]["id"] in it.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    caplog.clear()


PLACES = {
    QUERY: [*BEGINNING, *STREAMED, *ANSWERING, *ENDING, *OF_QUERIES],
    MUTATION: [*BEGINNING, *STREAMED, *ANSWERING, *ENDING, *OF_MUTATIONS],
    SNAPSHOT: [*BEGINNING, *STREAMED, *ANSWERING, *OF_SUBSCRIPTIONS],
}


@pytest.mark.parametrize("query", PLACES, ids=lambda query: query.split(" ")[0])
async def test_an_operation_on_a_socket_ends_whatever_fails(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """By `error`; its id is free again, and the connection goes on."""
    async with socket_of(live) as socket:
        for place in (*PLACES[query], *OF_SOCKETS):
            with fault_at(monkeypatch, *place) as fault:
                for error in some():
                    fault.arm(error)
                    await socket.begin(query)
                    check(await socket.end(), error, caplog)
                    assert fault.is_raised, place
            await socket.begin("{ __typename }")
            assert (await socket.hear())["payload"] == TYPENAME
            assert (await socket.hear())["type"] == "complete"
    await until(lambda: live.database.changes.followers == 0)


@pytest.mark.parametrize("query", PLACES, ids=lambda query: query.split(" ")[0])
async def test_an_operation_on_a_stream_ends_whatever_fails(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """By `next` with the error, and `complete`."""
    places = [*PLACES[query], *OF_STREAMS, *([(Lease, "ended")] if query == SNAPSHOT else [])]
    async with httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client:
        for place in places:
            with fault_at(monkeypatch, *place) as fault:
                for error in some():
                    fault.arm(error)
                    check(await errors_of_stream(client, query), error, caplog)
                    assert fault.is_raised, place
    await until(lambda: live.database.changes.followers == 0)


def put(live: Live, number: int) -> None:
    live.database.read_model.apply([Entry(Key(EntityKind.RUN, uid(1)), run(1, f"/{number}"))])


async def test_a_subscription_ends_whatever_fails_in_its_middle(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On both, after some of its answers: nothing follows the changes any more, and the id is free."""
    numbers = itertools.count()
    async with (
        socket_of(live) as socket,
        httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client,
    ):
        for place in IN_THE_MIDDLE:
            with fault_at(monkeypatch, *place) as fault:
                for error in some():
                    await socket.begin(CHANGES)
                    await until(lambda: live.database.changes.followers == 1)
                    put(live, next(numbers))
                    assert (await socket.hear())["payload"] == {"data": {"changes": {"kind": "UPDATED"}}}
                    fault.arm(error)
                    put(live, next(numbers))
                    check(await socket.end(), error, caplog)
                    await until(lambda: live.database.changes.followers == 0)
                stream = asyncio.create_task(errors_of_stream(client, CHANGES))
                await until(lambda: live.database.changes.followers == 1)
                fault.arm(error)
                put(live, next(numbers))
                check(await stream, error, caplog)
        await socket.begin("{ __typename }")
        assert (await socket.hear())["payload"] == TYPENAME


async def test_a_query_over_http_ends_whatever_fails(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By 500, with the id that stands in the log."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        of_service = [(Service, "answer"), (Telemetry, "step"), (Engine, "query")]
        for place in (*BEGINNING, *of_service, *ANSWERING, *OF_QUERIES, *OF_STREAMS):
            with fault_at(monkeypatch, *place) as fault:
                for error in some():
                    fault.arm(error)
                    headers = {"cache-control": "no-cache", "x-cost": "1"}  # which is none for the fast path
                    answer = await client.get(live.http, params={"query": QUERY}, headers=headers)
                    assert fault.is_raised, place
                    check(answer.json()["errors"], error, caplog)
                    assert answer.status_code == 500 or isinstance(error, RecursionError)


@pytest.mark.parametrize("name", ["_receive", "_handle_message"])
async def test_a_failure_of_no_operation_closes_the_socket(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """1011, and what failed is logged: its client can't be told whose answer it will not get."""
    with fault_at(monkeypatch, websocket.Connection, name) as fault:
        for error in (
            RuntimeError("secret"),
            OSError("secret"),
            RecursionError("secret"),
            asyncio.CancelledError("secret"),
        ):
            caplog.clear()
            async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as connection:
                await connection.send('{"type": "connection_init"}')
                assert "connection_ack" in await connection.recv()
                fault.arm(error)
                await connection.send('{"type": "ping"}')
                await connection.send('{"type": "ping"}')
                async with asyncio.timeout(DEADLINE):
                    await connection.wait_closed()
                assert connection.close_code == 1011
                assert (connection.close_reason or "").startswith("Internal error ")
            assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_a_number_that_python_does_not_read_ends_its_operation(live: Live) -> None:
    """5,000 digits, in a document and in what a variable stands in for."""
    query = f"{{ runs(first: {'1' * 5_000}) {{ totalCount }} }}"
    async with socket_of(live) as socket, httpx.AsyncClient(timeout=DEADLINE) as client:
        for _ in range(2):
            await socket.begin(query)
            assert await socket.end() is not None
        answer = await client.post(live.http, json={"query": query}, headers=STREAM)
        assert '"errors"' in answer.text
        assert answer.text.endswith("event: complete\ndata: \n\n")


async def test_a_socket_that_the_server_closed_is_no_failure(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its operations have still to tell: it is closed for a message that is too large."""
    for _ in range(5):
        async with socket_of(live) as socket:
            await socket.begin(CHANGES)
            await until(lambda: live.database.changes.followers == 1)
            await socket._connection.send("x" * (2**20 + 1))
            for number in range(10):
                put(live, number)
                await asyncio.sleep(0)
            await until(lambda: live.database.changes.followers == 0)
    assert [record for record in caplog.records if record.exc_info] == []


async def test_one_whom_a_client_completed_does_not_end_the_next_of_its_id(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what was told to end fails in doing so."""
    is_left = asyncio.Event()

    async def answers(*_: Any) -> AsyncIterator[Any]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            is_left.set()
            raise RuntimeError

    async with socket_of(live) as socket:
        with monkeypatch.context() as patched:
            patched.setattr(Service, "stream", answers)
            await socket.begin(QUERY)
            await until(lambda: len(live.connections) == 1)
            await socket._connection.send('{"type": "ping"}')
            assert (await socket.hear())["type"] == "pong"
        await socket._connection.send('{"type": "complete", "id": "a"}')
        await socket.begin(CHANGES)
        await is_left.wait()
        await until(lambda: live.database.changes.followers == 1)
        put(live, 2)
        assert (await socket.hear())["payload"] == {"data": {"changes": {"kind": "UPDATED"}}}
