"""Traces by OpenTelemetry: the spans of a request, and what they hang on."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

import server.observability.otel
from server.observability.tracing import NoTracing, open_tracing
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of
from tests.support.serving import run

pytestmark = pytest.mark.anyio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WITHOUT_THE_EXTRA = "import sys; sys.modules['opentelemetry'] = None; from server.cli import main; sys.exit(main())"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()

    def provider() -> TracerProvider:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider

    monkeypatch.setattr(server.observability.otel, "exporting", provider)
    return exporter


@pytest.fixture
async def live(exporter: InMemorySpanExporter) -> AsyncIterator[Live]:
    async with serving(await memory_of(), settings=Settings(no_auth=True, tracing=True)) as live:
        yield live


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_request_is_a_span_below_its_clients(live: Live, exporter: InMemorySpanExporter) -> None:
    """`traceparent` names the trace and the span above; reading and answering stand below it."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        body = {"query": "query Here { database { runs } }"}
        await client.post(live.http, json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    told = spans(exporter)
    assert set(told) == {"graphql", "graphql.read", "graphql.query"}
    request = told["graphql"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert {f"{span.context.trace_id:032x}" for span in told.values()} == {TRACE}
    for name in ("graphql.read", "graphql.query"):
        parent = told[name].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert told["graphql.query"].attributes == {"graphql.operation.type": "query", "graphql.operation.name": "Here"}


async def test_without_a_trace_of_its_client_a_request_begins_one(live: Live, exporter: InMemorySpanExporter) -> None:
    """Two requests are two traces."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        for _ in range(2):
            await client.post(live.http, json={"query": "{ database { runs } }"}, headers={"traceparent": "nonsense"})
    requests = [span for span in exporter.get_finished_spans() if span.name == "graphql"]
    assert [span.parent for span in requests] == [None, None]
    assert len({span.context.trace_id for span in requests}) == 2


async def test_subscriptions_are_spans_that_end_with_them(
    live: Live, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Over both protocols, however they end; and nothing is logged of spans that were left open."""
    query = "subscription Watch { changes { kind } }"
    async with (
        connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket,
        asyncio.timeout(DEADLINE),
    ):
        await socket.send('{"type":"connection_init"}')
        for id_ in ("1", "2"):
            await socket.send(json.dumps({"type": "subscribe", "id": id_, "payload": {"query": query}}))
        await socket.send('{"type":"ping"}')
        assert [json.loads(await socket.recv())["type"] for _ in range(2)] == ["connection_ack", "pong"]
        await socket.send('{"type":"complete","id":"1"}')
        async with (
            httpx.AsyncClient(timeout=DEADLINE) as client,
            client.stream("POST", live.http, json={"query": query}, headers={"accept": "text/event-stream"}) as stream,
        ):
            assert await anext(stream.aiter_text()) == ":\n\n"
        await until(lambda: _count(exporter, "graphql.subscription") == 2)
    await until(lambda: _count(exporter, "graphql.subscription") == 3)
    for span in exporter.get_finished_spans():
        if span.name == "graphql.subscription":
            assert (span.attributes or {})["graphql.operation.name"] == "Watch"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def _count(exporter: InMemorySpanExporter, name: str) -> int:
    return [span.name for span in exporter.get_finished_spans()].count(name)


async def test_without_tracing_there_is_none() -> None:
    """Nothing of OpenTelemetry is used unless it is asked for."""
    assert isinstance(open_tracing(is_on=False), NoTracing)


async def test_without_its_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    """One line, exit code 1; without --tracing nobody misses it."""
    command = (sys.executable, "-c", WITHOUT_THE_EXTRA)
    refused = run(tmp_path / "home", "serve", "--demo", "--port", "0", "--tracing", command=command)
    assert refused.returncode == 1
    assert refused.stderr == "merlin-graphql: tracing: install merlin-graphql[tracing] to use it.\n"
    assert run(tmp_path / "home", "--version", command=command).returncode == 0
