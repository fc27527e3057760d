"""What we use of libraries beyond what they promise to keep. A test that fails here says what a new version broke."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import graphql
import pytest
from graphql import GraphQLSchema
from graphql.execution.values import VariableValues
from packaging.requirements import Requirement
from redis.asyncio.connection import Connection
from strawberry.http.ides import get_graphql_ide_html
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import Server, ServerState

from schema.build import make_schema
from schema.core import core_of, has_exception_handlers, scalars_of
from server.endpoints.graphiql import _CHANGES
from server.process.connection_limits import ConnectionLimits
from server.process.uvicorn_protocols import HTTPConnection, WebSocketConnection
from server.process.uvicorn_server import config_of
from server.settings import Settings

pytestmark = pytest.mark.anyio

BOUND = ("strawberry-graphql", "graphql-core", "uvicorn", "redis")


@pytest.mark.parametrize("name", BOUND)
def test_a_library_whose_private_parts_are_used_has_an_upper_bound(name: str) -> None:
    """The newest that these tests have seen: the next one may work, which they then tell."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (bound,) = [it for it in map(Requirement, project["dependencies"]) if it.name == name]
    assert any(specifier.operator == "<" for specifier in bound.specifier)
    assert bound.specifier.contains(version(name))


def test_strawberry_holds_the_schema_of_graphql_core() -> None:
    """`schema/core.py` finds it, the handlers of exceptions and the scalars."""
    schema = make_schema()
    assert isinstance(core_of(schema), GraphQLSchema)
    assert has_exception_handlers(schema) is False
    assert scalars_of(schema)


def test_the_page_of_strawberry_has_what_is_changed_in_it() -> None:
    """`server/endpoints/graphiql.py` replaces these texts: one that is missing would leave a token in the address."""
    page = get_graphql_ide_html("graphiql")
    assert [text for text in _CHANGES if text not in page] == []


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_graphql_core_executes_step_by_step() -> None:
    """`schema/engine.py` builds an executor for each event, and `schema/mutation_executor.py` makes one of its own."""
    given = {"context_value", "raw_variable_values", "operation_name", "hide_suggestions"}
    assert given <= parameters(graphql.Executor.build)
    for name in ("create_source_event_stream", "execute_root_selection_set", "execute_subscription_event"):
        assert list(parameters(getattr(graphql, name)))[:1], name
    assert {"sources", "coerced"} <= set(VariableValues.__annotations__)
    assert list(inspect.signature(graphql.Executor).parameters)[:10] == [
        *("schema", "fragment_definitions", "fragments", "root_value", "context_value", "operation"),
        *("variable_values", "field_resolver", "type_resolver", "subscribe_field_resolver"),
    ]
    completed = inspect.signature(graphql.Executor.collect_and_execute_subfields).parameters
    assert list(completed)[1:] == ["return_type", "field_details_list", "path", "result", "position_context"]


async def test_uvicorn_protocols_are_what_ours_build_on() -> None:
    """`server/process/uvicorn_protocols.py` reads their state, and `drain.py` that of the server."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    config = config_of(app, Settings())
    config.load()
    state = ServerState()
    limits = ConnectionLimits.of(Settings())
    http = HTTPConnection(config=config, server_state=state, app_state={}, limits=limits)
    socket = WebSocketConnection(config=config, server_state=state, app_state={}, limits=limits)
    for protocol, names in (
        (http, ("cycle", "headers", "transport", "loop", "on_message_begin", "on_headers_complete", "shutdown")),
        (socket, ("handshake_complete", "close_sent", "close_timeout", "transport", "loop", "shutdown")),
    ):
        assert [name for name in names if not hasattr(protocol, name)] == []
    server = Server(config)
    names = ("server_state", "force_exit", "should_exit", "handle_exit", "started", "serve", "shutdown")
    assert [name for name in names if not hasattr(server, name)] == []
    assert {"self.lifespan", "self.servers"} <= set(re.findall(r"self\.\w+", inspect.getsource(Server)))
    assert isinstance(state.connections, set)
    assert isinstance(STARTUP_FAILURE, int)


def test_redis_tells_of_what_a_server_pushes() -> None:
    """`server/database/backends/redis.py` is told of every change by a connection of RESP3."""
    parser: Any = Connection(protocol=3)._parser
    assert callable(parser.set_invalidation_push_handler)
    assert {"timeout", "disconnect_on_error", "push_request"} <= parameters(Connection.read_response)
