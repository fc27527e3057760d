"""The saved operations in the caches of the clients that people use, and under the linter that they use."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, OperationType, introspection_from_schema, parse, print_ast

from schema.build import make_schema, sdl_of
from server.database.demo_data import demo_records
from server.database.models import RunModel
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, TaskStatus
from tests.support.javascript import asked, needs, node, project
from tests.support.live import serving
from tests.support.made_up_workspaces import MadeUpReader, workspace_of
from tests.support.pages import ROOT, block
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
INTROSPECTION = introspection_from_schema(make_schema()._schema)
PAGED = {"ActiveRuns", "FailedTasks", "FindRuns", "RecentRuns", "StudyOverview", "WorkerHealth"}


@pytest.fixture
def records() -> list[Any]:
    return list(demo_records(datetime.now()))


@pytest.fixture
async def url(records: list[Any]) -> AsyncIterator[str]:
    """Of a server of the demo data, whose newest run has tasks."""
    async with serving(await memory_of(*records)) as live:
        work = workspace_of(sim=[TaskStatus.FAILED] * 3)
        reader = MadeUpReader(live.database.observations, {newest(records).id: work})
        reader.logs["sim/0", LogStream.STDOUT] = "begun\n"
        yield live.http


def newest(records: list[Any]) -> RunModel:
    return next(record for record in records if isinstance(record, RunModel))


@pytest.fixture
def given(url: str, records: list[Any]) -> dict[str, Any]:
    """The operations with variables: pages of two, and filters such that no two share a list by chance."""
    found: dict[str, Any] = {"url": url, "queries": [], "subscriptions": []}
    run_id = newest(records).id
    known = {
        "workspace": newest(records).workspace,
        "filter": {"isFinished": True},
        "first": 2,
        "runId": run_id,
        "taskId": task_id(run_id, "sim/0"),
    }
    for path in sorted((ROOT / "queries").glob("*.graphql")):
        (definition,) = parse(path.read_text()).definitions
        assert isinstance(definition, OperationDefinitionNode)
        names = {each.variable.name.value for each in definition.variable_definitions or ()}
        variables = {name: value for name, value in known.items() if name in names}
        asked = {"name": path.stem, "document": path.read_text(), "variables": variables}
        kinds = {OperationType.QUERY: "queries", OperationType.SUBSCRIPTION: "subscriptions"}
        if definition.operation in kinds and path.stem != "WatchActiveRuns":  # after which lists are asked for anew
            found[kinds[definition.operation]].append(asked)
    assert {each["name"] for each in found["queries"] if "first" in each["variables"]} == PAGED
    return found


def plain(value: Any) -> Any:
    """Without what clients add, and without the age of heartbeats, which differs from response to response."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in ("__typename", "heartbeatAge")}
    return [plain(each) for each in value] if isinstance(value, list) else value


def joined(first: Any, second: Any) -> Any:
    """Two pages as one list, with the second's `pageInfo`."""
    if not isinstance(first, dict):
        return second
    return {
        name: [*value, *second[name]] if name == "edges" else joined(value, second[name])
        for name, value in first.items()
    }


def compare(answer: Any, *, joins: bool = True) -> None:
    """Raises `AssertionError`, also where a client has complained. A cache that joins no pages keeps the first."""
    assert answer["complaints"] == []
    for name, told in answer["found"].items():
        received = [response["data"] for response in told["received"]]
        assert all("errors" not in response for response in told["received"])
        assert len(received) == (2 if name in PAGED else 1), name
        assert plain(told["kept"]) == plain(joined(*received) if name in PAGED and joins else received[0]), name


@needs("@apollo/client")
async def test_apollos_cache_keeps_the_saved_queries(given: dict[str, Any], tmp_path: Path) -> None:
    """All in one cache, which joins pages, with the policies of docs/clients.md."""
    cache = block("docs/clients.md", "// apollo/cache.js", "js")
    directory = project(tmp_path / "apollo", HERE / "try_queries.js", HERE / "apollo" / "saved.js", cache=cache)
    compare(await asked(directory, "saved.js", given))


@needs("@urql/core", "@urql/exchange-graphcache")
@pytest.mark.parametrize("cache", ["graphcache", "documents"])
async def test_urqls_caches_keep_the_saved_queries(given: dict[str, Any], tmp_path: Path, cache: str) -> None:
    """The one that keeps records, as docs/clients.md has it, which joins pages; and that of whole documents."""
    text = block("docs/clients.md", "// urql/cache.js", "js")
    directory = project(tmp_path / "urql", HERE / "try_queries.js", HERE / "urql" / "saved.js", cache=text)
    (directory / "introspection.json").write_text(json.dumps(INTROSPECTION))
    compare(await asked(directory, "saved.js", given | {"cache": cache}), joins=cache == "graphcache")


def relay_modules() -> dict[str, str]:
    """One for each saved operation, whose name Relay wants to begin with that of the module and to end in its kind."""
    found = {}
    for path in sorted((ROOT / "queries").glob("*.graphql")):
        document = re.sub(r"^(\w+) (\w+)", _named_for_relay, print_ast(parse(path.read_text())))
        found[path.stem] = f'import {{ graphql }} from "relay-runtime";\n\ngraphql`{document}`;\n'
    return found


def _named_for_relay(found: re.Match[str]) -> str:
    kind, name = found.groups()
    return f"{kind} {name}{kind.capitalize()}"


@needs("relay-compiler", "relay-runtime")
async def test_relays_store_keeps_the_saved_queries(given: dict[str, Any], tmp_path: Path) -> None:
    """Its compiler takes each of the saved operations, with docs/clients.md's settings. Pages are one each."""
    directory = project(tmp_path / "relay", HERE / "try_queries.js", HERE / "relay" / "saved.js")
    (directory / "src").mkdir()
    for name, text in relay_modules().items():
        (directory / "src" / f"{name}.js").write_text(text)
    (directory / "schema.graphql").write_text(sdl_of(make_schema()))
    (directory / "relay.config.json").write_text(block("docs/clients.md#Relay", '"./src"', "json"))
    await node(directory, "node_modules/.bin/relay-compiler", "relay.config.json")
    compare(await asked(directory, "saved.js", given), joins=False)


@needs("@graphql-eslint/eslint-plugin", "eslint")
async def test_the_saved_operations_pass_graphql_eslint(tmp_path: Path) -> None:
    """Its preset for operations, set up as docs/clients.md says; an operation that leaves out an id does not pass."""
    directory = project(tmp_path / "lint")
    shutil.copytree(ROOT / "queries", directory / "queries")
    (directory / "schema.graphql").write_text(sdl_of(make_schema()))
    (directory / "eslint.config.js").write_text(block("docs/clients.md", "@graphql-eslint", "js"))
    lint = ("node_modules/.bin/eslint", "--max-warnings=0", "queries")
    assert await node(directory, *lint) == ""
    (directory / "queries" / "Bad.graphql").write_text(
        "query Bad {\n  runs {\n    nodes {\n      status\n    }\n  }\n}\n"
    )
    with pytest.raises(AssertionError, match=r"Field `nodes\.id` must be selected"):
        await node(directory, *lint)
