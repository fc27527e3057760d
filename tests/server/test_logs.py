"""What is logged: lines for people or for programs, each with its request, and no secret."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from server.database.merlin_database import MerlinDatabase
from server.observability.logs import JSONLines, TextLines, WithRequestId, logging_config
from server.request_id import request_id_of
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of
from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving

OWN_ID = re.compile(r"[0-9a-f]{16}")
PASSWORD, TOKEN, WRONG, KEY = (
    "pa55word-of-redis",
    "token-of-this-server-0123456789",
    "wr0ng-token-guessed",
    "s3ssion-key-of-all-the-servers-here",
)


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What was logged, when it is read."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONLines())
    handler.addFilter(WithRequestId())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    class Lines(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([json.loads(line) for line in stream.getvalue().splitlines()])

    yield Lines()
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(), settings=Settings(no_auth=True, log_operations=True)) as live:
        yield live


@pytest.mark.anyio
async def test_a_request_is_known_by_its_id(live: Live, lines: list[dict[str, Any]]) -> None:
    """A client's own comes back and stands in its operation's line, with the operation's name; else there is one."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        body = {"query": "query Here { database { runs } }"}
        given_ = await client.post(live.http, json=body, headers={"x-request-id": "job-7/step.2"})
        made = await client.post(live.http, json=body)
        refused = await client.post(live.http, json=body, headers={"x-request-id": 'bad id " {}'})
    assert given_.headers["x-request-id"] == "job-7/step.2"
    ids = ["job-7/step.2", made.headers["x-request-id"], refused.headers["x-request-id"]]
    assert all(OWN_ID.fullmatch(id_) for id_ in ids[1:])
    told = [line for line in lines if line["logger"] == "merlin_graphql.operations"]
    assert [line["request_id"] for line in told] == ids
    assert len(set(ids)) == 3
    for line in told:
        assert line["level"] == "INFO"
        assert (line["operation"], line["type"], line["protocol"]) == ("Here", "query", "http")
        assert (line["who"], line["codes"]) == ("anybody", [])
        assert line["cost"] > 0
        assert line["milliseconds"] > 0
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


@pytest.mark.anyio
async def test_a_masked_error_is_found_by_its_id(
    live: Live, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reads an id and nothing of the cause; the log has that id, the request's and the traceback."""

    def fail(_: MerlinDatabase) -> None:
        raise RuntimeError("what nobody foresaw")

    monkeypatch.setattr(MerlinDatabase, "connection", property(fail))
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        answer = await client.post(
            live.http, json={"query": "{ database { connection } }"}, headers={"x-request-id": "mine"}
        )
    assert "foresaw" not in answer.text
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    (line,) = [line for line in lines if line["level"] == "ERROR"]
    assert error["extensions"]["id"] in line["message"]
    assert line["request_id"] == "mine"
    assert "RuntimeError: what nobody foresaw" in line["exception"]
    (told,) = [line for line in lines if line["logger"] == "merlin_graphql.operations"]
    assert (told["request_id"], told["codes"]) == ("mine", ["INTERNAL_SERVER_ERROR"])


@given(st.binary(max_size=200))
def test_an_id_can_be_logged_and_sent_back(sent: bytes) -> None:
    """Whatever a client sends: one that breaks no line and no header stays, any other is replaced."""
    id_ = request_id_of(sent)
    assert id_.isascii()
    assert id_.isprintable()
    assert 0 < len(id_) <= 128
    assert not set(id_) & set(" \"'\\,;{}<>")
    assert id_ == request_id_of(id_.encode())


def test_extra_values_stand_beside_the_message() -> None:
    """Also those that JSON does not know; what logging itself adds does not."""
    record = logging.LogRecord("name", logging.INFO, "file", 1, "%s\nand more", ("one",), None)
    record.path = Path("/somewhere")
    line = JSONLines().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert set(told) == {"time", "level", "logger", "message", "path"}
    assert (told["message"], told["path"]) == ("one\nand more", "/somewhere")


FORGED = "2026-01-01 00:00:00,000 INFO merlin_graphql.audit: forged"


@given(st.text(), st.sampled_from(["merlin_graphql.audit", "uvicorn.error", "jwt", "redis"]))
def test_a_line_of_text_is_one_line(chosen: str, logger: str) -> None:
    """Whatever a client chose, and whoever logs it: it can be printed, and nothing in it begins a line."""
    record = logging.LogRecord(logger, logging.INFO, "file", 1, "Refused: %s", (chosen,), None)
    line = TextLines().format(record)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    if chosen.isprintable():
        assert line.endswith(f"{logger}: Refused: {chosen}")


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x85", "\u2028", "\x1b[2J"])
def test_a_traceback_forges_no_line(end: str) -> None:
    """Each of its lines is marked, also those of the message of an error."""

    def fail() -> None:
        raise ValueError(f"bad{end}{FORGED}")

    try:
        fail()
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "It failed", (), sys.exc_info())
    first, *rest = TextLines().format(record).split("\n")
    assert first.endswith("ERROR name: It failed")
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert "Traceback" in rest[0]


@pytest.mark.parametrize("format_", ["json", "text"])
def test_libraries_log_through_the_same_formatter(format_: str) -> None:
    """There is one handler, and it is the root's."""
    config = logging_config(format_)
    (handler,) = config["handlers"].values()
    assert config["root"]["handlers"] == list(config["handlers"])
    assert "loggers" not in config
    formatter = config["formatters"][handler["formatter"]]["()"]()
    record = logging.LogRecord("uvicorn.error", logging.INFO, "file", 1, f"x\n{FORGED}", (), None)
    assert len(formatter.format(record).splitlines()) == 1


@pytest.mark.parametrize("format_", ["json", "text"])
def test_no_secret_is_told(tmp_path: Path, format_: str) -> None:
    """Neither tokens nor cookies, keys and passwords, whatever fails; only the printed address has the token."""
    with RedisServer.start(binaries()["valkey"], tmp_path / "valkey", password=PASSWORD) as database:
        environ = {"MERLIN_GRAPHQL_TOKEN": TOKEN, "MERLIN_GRAPHQL_SESSION_KEY": KEY}
        arguments = ["--database", database.url, "--log-format", format_, "--log-operations"]
        assert PASSWORD in database.url
        with Serving(tmp_path / "home", *arguments, environ=environ, login=True) as server:
            cookie = drive(server.url)
            database.kill()
            with httpx.Client(
                base_url=server.url, timeout=DEADLINE, headers={"authorization": f"Bearer {TOKEN}"}
            ) as client:
                server.wait_until(lambda: client.get("/readyz").status_code == 503)
                failed = client.post(
                    "/graphql", json={"query": 'mutation Lost { createStudy(input: {name: "new"}) { created } }'}
                )
                assert failed.json()["errors"]
                assert PASSWORD not in failed.text
            server.process.terminate()
            server.wait()
            told = server.stderr + server.stdout.replace(server.page, "")
    assert "Lost" in told
    assert "Fine" in told
    for secret in (PASSWORD, TOKEN, WRONG, KEY, cookie):
        assert secret not in told
    if format_ == "json":
        told_lines = [json.loads(line) for line in server.stderr.splitlines()]
        assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, told_lines))
        assert {line["request_id"] for line in told_lines if line["logger"] == "merlin_graphql.operations"} > {"mine"}
    else:
        assert re.search(
            r"^[\d-]+ [\d:,]+ INFO merlin_graphql.operations: query Fine by owner: ok in ", told, re.MULTILINE
        )


def drive(url: str) -> str:
    """Requests that succeed and that fail, with every kind of credentials; the cookie of a login."""
    fine = {"query": "query Fine { database { runs } }"}
    with httpx.Client(base_url=url, timeout=DEADLINE) as client:
        for token in (WRONG, TOKEN):
            bearer = {"authorization": f"Bearer {token}", "x-request-id": "mine"}
            client.post("/graphql", json=fine, headers=bearer)
            client.post("/graphql", json={"query": "{ nothing }"}, headers=bearer)
            client.post("/graphql", content=f"{{{token}", headers=bearer | {"content-type": "application/json"})
            client.post("/login", data={"token": token})
            client.cookies.clear()
            client.get("/", params={"token": token})
            with pytest.raises(InvalidStatus):
                connect(f"ws{url.removeprefix('http')}/metrics?token={token}", additional_headers=bearer)
            socket_url = f"ws{url.removeprefix('http')}/graphql"
            with connect(socket_url, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
                socket.send(json.dumps({"type": "connection_init", "payload": {"token": token}}))
                with contextlib.suppress(ConnectionClosed):  # a wrong token has closed it already
                    socket.send(json.dumps({"type": token}))
        cookie = next(iter(client.cookies.values()))
        assert client.post("/graphql", json=fine, headers={"origin": url}).status_code == 200
        client.post("/graphql", json=fine, headers={"origin": "https://evil.example"})
        client.cookies.clear()
        client.post("/graphql", json=fine, headers={"cookie": f"merlin_graphql={cookie}x; broken={cookie}"})
    return cookie
