"""Each error that is raised on purpose is translated at each boundary that it can reach, and documented."""

from __future__ import annotations

import ast
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from graphql import GraphQLError
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schema import errors as schema_errors
from schema.budget import BudgetExceededError
from schema.comparisons import TooManyComparisonsError
from schema.compiler.errors import NotCompilableError, UnexpectedError
from schema.effects import UserErrorCode
from schema.errors import DEADLINE_EXCEEDED, INTERNAL, BadInput, PartlyDoneError, code_of
from schema.operation import OperationError
from server import cli
from server.app import make_app
from server.auth.access_control import AccessControl
from server.auth.authenticator import Authenticator
from server.auth.identity import AuthCode, AuthenticationError
from server.commands import contract
from server.contract.findings import ExitCode, UnreadableError
from server.database.backends.sqlite_writer import Conflict
from server.database.errors import BackendError, DatabaseError, RefusedError, TooFarBehindError, UnknownOutcomeError
from server.database.expected import MustReadError
from server.database.files import run_metadata
from server.database.files.daemon_threads import ThreadsHangError
from server.database.files.workspace_roots import OutsideError
from server.database.managers import RunManager, StudyManager
from server.database.row_index import NotBuiltError
from server.errors import CODES, ExpectedError, RequestError
from server.http_client import FetchError
from server.process import uvicorn_server
from server.protocols import http, persisted_documents, websocket
from server.protocols.failures import GoneError
from server.protocols.statuses import HttpStatuses
from server.protocols.websocket import CloseCode, CloseError
from server.responses import GRAPHQL_JSON, JSON
from server.settings import Settings
from server.work.workspace.directory import UnusableFileError
from server.work.workspace.spec import SpecError
from tests.support.error_tree import MESSAGE, instances, own_errors
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of
from tests.support.servers import LOOPBACK

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/errors.md").read_text()
PROTOCOL = Subprotocol("graphql-transport-ws")
QUERY = "{ runs { totalCount } }"
MUTATION = 'mutation { createStudy(input: {name: "new"}) { created userErrors { code message path } } }'

ROOTS = (ExpectedError, RequestError, AuthenticationError, CloseError, OperationError, BadInput, PartlyDoneError)
"""What is below one of these is raised at the boundaries by the tests of this module."""
INTERNAL_ERRORS: Mapping[type[BaseException], str] = {
    NotCompilableError: "schema/compiler/compiler.py leaves the operation to graphql-core",
    UnexpectedError: "schema/compiler/compiler.py leaves the operation to graphql-core",
    BudgetExceededError: "schema/operation.py makes it an OperationError",
    TooManyComparisonsError: "schema/documents.py makes it a refusal, which is remembered",
    GoneError: "nobody is there to be told: the protocols end without a word",
    MustReadError: "server/database/transaction_runner.py runs the change again, and reads",
    NotBuiltError: "server/database/indexed_view.py tests the records one by one",
    Conflict: "server/database/backends/sqlite.py tells the transaction to read again",
    OutsideError: "server/database/files/metadata_file.py answers with a FileState",
    ThreadsHangError: "an OSError to server/database/files/run_metadata.py, which logs it",
    run_metadata._UnreadableError: "server/database/files/run_metadata.py logs it",
    UnusableFileError: "server/work/workspace/reader.py logs it, once for each run",
    SpecError: "server/work/workspace/reader.py logs it, once for each run",
}
"""What never reaches a boundary, and what becomes of it."""
REFUSALS = [
    error
    for error in own_errors(DatabaseError)
    if error not in (DatabaseError, RefusedError, TooFarBehindError) and not issubclass(error, BackendError)
]
"""What a mutation may refuse."""


def raising(error: BaseException) -> Any:
    def fail(*_args: object, **_options: object) -> NoReturn:
        raise error

    return fail


def test_no_error_is_unknown_to_the_boundaries() -> None:
    """A class that is added descends from a root, or is listed above with what becomes of it."""
    unknown = [error for error in own_errors(BaseException) if not issubclass(error, (*ROOTS, *INTERNAL_ERRORS))]
    assert unknown == []
    assert [error for error in INTERNAL_ERRORS if issubclass(error, ROOTS)] == []


# --- the shell --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", own_errors(ExpectedError), ids=lambda error: error.__name__)
def test_at_a_shell_an_error_is_one_line(
    error: type[ExpectedError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with an exit code and without a traceback."""
    monkeypatch.setattr(contract, "make_schema", raising(error(MESSAGE)))
    code = cli.main(["schema", "export"])
    assert capsys.readouterr() == ("", f"merlin-graphql: {MESSAGE}\n")
    assert code == (ExitCode.UNREADABLE if issubclass(error, UnreadableError) else ExitCode.FAILED)


@pytest.fixture(scope="module")
def app() -> Starlette:
    return make_app(Settings(no_auth=True, database="memory://"))


@pytest.mark.parametrize("error", own_errors(ExpectedError), ids=lambda error: error.__name__)
async def test_a_start_that_fails_is_one_line(
    error: type[ExpectedError], app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the app opens something itself, in a server process: uvicorn logs the message."""
    monkeypatch.setattr(Authenticator, "open", raising(error(MESSAGE)))
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(error):
        await app({"type": "lifespan", "state": {}}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": MESSAGE}]


@pytest.mark.parametrize("error", own_errors(ExpectedError), ids=lambda error: error.__name__)
def test_a_server_process_that_cannot_start_says_so_in_one_line(
    error: type[ExpectedError], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log; by its exit code the supervisor knows that starting another is of no use."""
    monkeypatch.setattr(uvicorn_server, "end_without_supervisor", lambda _patience: None)
    monkeypatch.setattr(uvicorn_server, "config_of", lambda *_, **__: None)  # it would configure the logs of the tests
    monkeypatch.setattr(uvicorn_server, "Server", raising(error(MESSAGE)))
    with socket.create_server((LOOPBACK, 0)) as listener, pytest.raises(SystemExit) as ended:
        uvicorn_server._serve_as_one(Settings(no_auth=True, database="memory://"), listener)
    assert ended.value.code == STARTUP_FAILURE
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [(MESSAGE, None)]


# --- HTTP and websockets ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for all, since they share a server."""
    return "asyncio"


@pytest.fixture(scope="module")
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of()) as server:
        yield server


async def over_http(live: Live, query: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.post(live.http, json={"query": query})


async def over_websocket(live: Live, query: str) -> tuple[dict[str, Any] | None, int | None]:
    """The first message to an operation, or the close code."""
    async with connect(live.ws, subprotocols=[PROTOCOL]) as connection:
        await connection.send(json.dumps({"type": "connection_init"}))
        await connection.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await connection.recv())
                if message["type"] in ("next", "error"):
                    return message, None
    return None, connection.close_code


@pytest.mark.parametrize("error", own_errors(RequestError), ids=lambda error: error.__name__)
async def test_a_refused_request_has_a_status_and_a_code(
    error: type[RequestError], live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP for each status; over a websocket in a message, or by the end where the request can't be read."""
    for one in instances(error):
        with monkeypatch.context() as patch:
            patch.setattr(http, "read_request", raising(one))
            response = await over_http(live, "query")
            assert response.status_code == one.status
            assert response.json() == {"errors": [{"message": MESSAGE, "extensions": {"code": CODES[one.status]}}]}
        with monkeypatch.context() as patch:
            patch.setattr(websocket, "parse_request", raising(one))
            assert await over_websocket(live, QUERY) == (None, CloseCode.BAD_REQUEST)
        with monkeypatch.context() as patch:
            patch.setattr(AccessControl, "consume", raising(one))
            told = {"message": MESSAGE, "extensions": {"code": CODES[one.status]}}
            assert await over_websocket(live, QUERY) == ({"id": "1", "type": "error", "payload": [told]}, None)


@pytest.mark.parametrize("error", own_errors(AuthenticationError), ids=lambda error: error.__name__)
async def test_an_unknown_client_is_told_so(
    error: type[AuthenticationError], live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP by 401 and a code; a websocket is closed by 4401."""
    for one in instances(error):
        monkeypatch.setattr(AccessControl, "authenticate", raising(one))
        monkeypatch.setattr(AccessControl, "identify", raising(one))
        response = await over_http(live, "{ runs }")
        assert response.status_code == HTTPStatus.UNAUTHORIZED
        assert response.json() == {"errors": [{"message": MESSAGE, "extensions": {"code": one.code}}]}
        assert await over_websocket(live, QUERY) == (None, CloseCode.UNAUTHORIZED)


@pytest.mark.parametrize("error", own_errors(CloseError), ids=lambda error: error.__name__)
async def test_a_broken_protocol_closes_the_websocket(
    error: type[CloseError], live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each of the close codes."""
    for one in instances(error):
        with monkeypatch.context() as patch:
            patch.setattr(websocket, "parse_request", raising(one))
            assert await over_websocket(live, QUERY) == (None, one.code)


OF_OPERATIONS: list[tuple[Exception, str]] = [
    *(
        (error(MESSAGE), code_of(error(MESSAGE)))
        for error in own_errors(DatabaseError)
        if error is not DatabaseError and not issubclass(error, RefusedError)
    ),
    (PartlyDoneError(UnknownOutcomeError(MESSAGE), []), schema_errors.UNKNOWN_OUTCOME),
    (BadInput(MESSAGE, "first"), schema_errors.BAD_USER_INPUT),
]
"""What a resolver may raise, and its code."""


@pytest.mark.parametrize(("error", "code"), OF_OPERATIONS, ids=lambda value: type(value).__name__)
async def test_what_a_resolver_raises_has_a_code(
    error: Exception, code: str, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of a fault: over HTTP and over a websocket, in the `errors` of the answer, beside `data`."""
    assert code != INTERNAL
    monkeypatch.setattr(RunManager, "all", raising(error))
    response = await over_http(live, QUERY)
    message, _ = await over_websocket(live, QUERY)
    assert response.status_code == HTTPStatus.OK
    assert message is not None
    for answer in (response.json(), message["payload"]):
        (told,) = answer["errors"]
        assert told["message"].startswith(MESSAGE)
        assert told["extensions"]["code"] == code


@pytest.mark.parametrize(("error", "code"), OF_OPERATIONS, ids=lambda value: type(value).__name__)
async def test_an_operation_that_cannot_be_begun_has_a_code(
    error: Exception, code: str, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP with a status of GraphQL, over a websocket by a message `error`."""
    monkeypatch.setattr("schema.engine.Engine.parse", raising(error))
    response = await over_http(live, "{ runs(first: 1) { totalCount } }")
    message, _ = await over_websocket(live, "{ runs(first: 1) { totalCount } }")
    assert response.status_code in statuses_in_docs()[code]
    assert message is not None
    assert message["type"] == "error"
    for errors in (response.json()["errors"], message["payload"]):
        assert [told["extensions"]["code"] for told in errors] == [code]


# --- mutations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.__name__)
async def test_a_refusal_is_a_user_error(
    error: type[DatabaseError], live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a code and the path of an input field, and no error beside it."""
    monkeypatch.setattr(StudyManager, "create", raising(error(MESSAGE)))
    answer = (await over_http(live, MUTATION)).json()
    assert "errors" not in answer
    (told,) = answer["data"]["createStudy"]["userErrors"]
    assert told["code"] in list(UserErrorCode)
    assert (told["message"], told["path"]) == (MESSAGE, ["input", "name"])


async def test_each_code_of_user_errors_is_used(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """By some refusal."""
    used = set()
    for error in REFUSALS:
        monkeypatch.setattr(StudyManager, "create", raising(error(MESSAGE)))
        answer = (await over_http(live, MUTATION)).json()
        used |= {told["code"] for told in answer["data"]["createStudy"]["userErrors"]}
    assert used == set(UserErrorCode)


@pytest.mark.parametrize("error", own_errors(BackendError), ids=lambda error: error.__name__)
async def test_a_database_that_fails_a_mutation_is_an_error(
    error: type[BackendError], live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a refusal: its code says whether the change may have been made."""
    monkeypatch.setattr(StudyManager, "create", raising(error(MESSAGE)))
    (told,) = (await over_http(live, MUTATION)).json()["errors"]
    assert told["extensions"]["code"] == code_of(error(MESSAGE))


# --- the page of codes ------------------------------------------------------------------------------------------------


def statuses_in_code() -> dict[str, set[int]]:
    """Each code that the server may send in `errors`, with its HTTP statuses."""
    operation_codes = {
        value for name, value in vars(schema_errors).items() if name.isupper() and isinstance(value, str)
    }
    operation_codes |= {persisted_documents.NOT_FOUND, persisted_documents.MISMATCH, persisted_documents.UNTRUSTED}
    refused = {code: OperationError([GraphQLError("no")], code) for code in operation_codes}
    found = {
        code: {HttpStatuses.COMPATIBLE.of_error(error, media_type) for media_type in (JSON, GRAPHQL_JSON)}
        for code, error in refused.items()
    }
    found[INTERNAL].add(200)  # a fault in one field
    found[DEADLINE_EXCEEDED].add(200)  # in one field of a mutation, after others were done
    for status, code in (
        *CODES.items(),
        *((HTTPStatus.UNAUTHORIZED, code.value) for code in AuthCode),
        *((status, status.name) for status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)),  # Starlette's
    ):
        found.setdefault(code, set()).add(status)
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="refusal"), args=[_, ast.Constant(value=str(code)), ast.Constant(value)]
                ):
                    found.setdefault(code, set()).add(int(str(value)))
                case ast.Call(
                    func=ast.Attribute(attr="_refuse"), args=[ast.Attribute(ast.Name(id="HTTPStatus"), name), _]
                ):
                    found.setdefault(name, set()).add(HTTPStatus[name])
    return found


def rows(section: str, first: str) -> list[list[str]]:
    """The cells of the table in a section of the page, whose first cells look like this."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    cells = [row for row in found if re.fullmatch(first, row[0])]
    assert len(cells) == len(found) - 2
    return cells


def statuses_in_docs() -> dict[str, set[int]]:
    found = rows("In `errors`", "`[A-Z_]+`")
    assert len({row[0] for row in found}) == len(found)
    return {row[0].strip("`"): set(map(int, re.findall(r"\d+", row[1]))) for row in found}


def test_the_page_names_every_code_with_its_status() -> None:
    """And no other."""
    assert statuses_in_docs() == statuses_in_code()


def test_the_page_names_every_code_of_user_errors() -> None:
    """And no other."""
    assert sorted(row[0].strip("`") for row in rows("In `userErrors`", "`[A-Z_]+`")) == sorted(UserErrorCode)


def test_the_page_names_every_close_code() -> None:
    """And no other."""
    assert sorted(int(row[0]) for row in rows("Close codes of a websocket", r"\d{4}")) == sorted(CloseCode)


def test_each_code_says_when_and_what_to_do() -> None:
    """In sentences."""
    for section, first in (
        ("In `errors`", ".*`.*"),
        ("In `userErrors`", "`[A-Z_]+`"),
        ("Close codes of a websocket", r"\d+"),
    ):
        for row in rows(section, first):
            assert all(cell.endswith(".") for cell in row[-2:]), row


def test_each_refused_request_has_a_code() -> None:
    """Where one is raised with a status, `CODES` knows it."""
    given = set()
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="RequestError"), args=[_, ast.Constant(value=int(status)), *_]):
                    given.add(status)
                case ast.Call(func=ast.Name(id="RequestError"), args=[_, ast.Attribute(attr=name), *_]):
                    given.add(HTTPStatus[name].value)
    assert {403, 405, 406, 413, 429} <= given <= set(CODES)


def test_a_url_that_cannot_be_read_is_translated_or_told() -> None:
    """`FetchError` is caught by those who fetch; one that slipped through would still be one line."""
    assert issubclass(FetchError, ExpectedError)
