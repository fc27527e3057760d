"""The page at `/graphiql`: what is sent for it, and what its files name."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from graphql import GraphQLError, OperationDefinitionNode, OperationType, get_operation_ast, parse, validate
from graphql.execution.values import get_variable_values
from starlette.applications import Starlette

from schema.build import make_schema
from server.endpoints.graphiql import graphiql_routes
from server.endpoints.pages import STATIC
from server.settings import Settings
from tests.support.live import serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BUILT = STATIC / "graphiql"
TABS = json.loads((ROOT / "web" / "graphiql" / "tabs.json").read_text())
built = pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="GraphiQL is not built: make graphiql, with npm")
TALKED_OF = {
    "www.w3.org",  # names of XML namespaces
    "react.dev",  # React's errors say where they are explained
    "github.com",  # GraphiQL's logo and its settings link there, and so do comments of licences
    "codemirror.net",  # licences
    "www.onegraph.com",  # the explorer names who paid for it
    "commonmark.org",  # an error of the Markdown parser
    "en.wikipedia.org",
    "yarnpkg.com",
}
"""Hosts in the text of the bundle, none of which is asked: the policy forbids it."""


@asynccontextmanager
async def asking(static: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Starlette(routes=graphiql_routes(["graphiql"], static)))
    async with httpx.AsyncClient(transport=transport, base_url="http://merlin:8000") as client:
        yield client


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of pages, as if GraphiQL's were built."""
    folder = tmp_path / "static" / "graphiql"
    folder.mkdir(parents=True)
    for name in ("index.html", "page-AAAA.js", "page-BBBB.css", "font-cccc.woff2", "licenses.txt"):
        (folder / name).write_text(f"this is {name}")
    return folder.parent


def policy_of(response: httpx.Response) -> dict[str, list[str]]:
    directives = response.headers["content-security-policy"].split("; ")
    return {name: sources for name, *sources in map(str.split, directives)}


async def test_the_page_loads_and_asks_this_server_only(files: Path) -> None:
    """Nothing runs that is not a file of the server, no other page may frame it, and nothing is told of it."""
    async with asking(files) as client:
        page = await client.get("/graphiql")
    assert page.text == "this is index.html"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert policy_of(page) == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'", "ws://merlin:8000", "wss://merlin:8000"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("host", ["merlin; script-src *", "a b", "", "merlin,evil"])
async def test_a_strange_host_is_no_part_of_the_policy(files: Path, host: str) -> None:
    """A `Host` can't add to what is allowed."""
    async with asking(files) as client:
        page = await client.get("/graphiql", headers={"host": host})
    assert policy_of(page)["connect-src"] == ["'self'"]
    assert policy_of(page)["script-src"] == ["'self'"]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("page-AAAA.js", {"text/javascript", "application/javascript"}),
        ("page-BBBB.css", {"text/css"}),
        ("font-cccc.woff2", {"font/woff2"}),
    ],
)
async def test_what_the_page_loads_is_kept_by_the_browser(files: Path, name: str, types: set[str]) -> None:
    """Its name changes with its content, so it is never asked for again."""
    async with asking(files) as client:
        answer = await client.get(f"/static/graphiql/{name}")
    assert answer.text == f"this is {name}"
    assert answer.headers["content-type"].split(";")[0] in types
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_licences_of_what_is_loaded_can_be_read(files: Path) -> None:
    """They have one name for every content, so a browser asks again."""
    async with asking(files) as client:
        answer = await client.get("/static/graphiql/licenses.txt")
    assert (answer.text, answer.headers["cache-control"]) == ("this is licenses.txt", "no-cache")


@pytest.mark.parametrize(
    "path",
    [f"/static/graphiql/{name}" for name in ("page-DDDD.js", "%2e%2e/secret-AAAA.js", "..%2fsecret-AAAA.js", "")]
    + ["/static/graphiql/index.html", "/static/secret-AAAA.js"],
)
async def test_only_what_was_built_is_served(files: Path, path: str) -> None:
    """What is not there may come: a browser doesn't keep that it was missing."""
    (files / "secret-AAAA.js").write_text("secret")
    async with asking(files) as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert "cache-control" not in answer.headers


async def test_without_its_own_files_the_page_says_so_and_loads_the_public_copy(tmp_path: Path) -> None:
    """Its policy allows that host and its own scripts; it asks beside itself, and keeps no headers and no address."""
    async with asking(tmp_path) as client:
        page = await client.get("/graphiql")
        assert (await client.get("/static/graphiql/page.js")).status_code == 404
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = policy_of(page)
    assert len(scripts) == 1
    assert policy["script-src"] == ["https://unpkg.com", f"'sha256-{hashes[0]}'"]
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    loaded = re.findall(r'(?:src|href)="(https?://[^/"]+)', page.text)
    assert set(loaded) == {"https://unpkg.com"}
    assert "<code>make graphiql</code>" in page.text
    assert 'const fetchURL = new URL("graphql", window.location.href.split("?")[0]).href;' in page.text
    assert "shouldPersistHeaders: false" in page.text
    assert "replaceState" not in page.text
    assert "calc(100vh" in page.text


async def test_a_browser_at_the_endpoint_finds_the_page() -> None:
    """That of GraphiQL; what asks something, or is no browser, is answered as ever; without a page there is none."""
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for has_page in (True, False):
        settings = Settings(no_auth=True, graphiql=has_page)
        async with (
            serving(await memory_of(), settings=settings) as live,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", headers=browser) as client,
        ):
            found = await client.get("/graphql")
            if has_page:
                assert (found.status_code, found.headers["location"]) == (303, "graphiql")
                assert (await client.get("/graphql", follow_redirects=True)).url.path == "/graphiql"
            else:
                assert found.status_code == 400
                assert (await client.get("/graphiql")).status_code == 404
            told = await client.get("/graphql", params={"query": "{ __typename }"}, headers={"sec-fetch-site": "none"})
            assert told.json() == {"data": {"__typename": "Query"}}
            assert (await client.get("/graphql", headers={"accept": "*/*"})).status_code == 400
            assert (await client.post("/graphql", json={"query": "{ __typename }"})).status_code == 200


async def test_the_public_copy_has_ways_in_and_out(tmp_path: Path) -> None:
    """It knows nothing of logins itself."""
    async with asking(tmp_path) as client:
        page = await client.get("/graphiql")
    assert '<a href="login">Log in or out</a>' in page.text


@pytest.mark.parametrize("tab", TABS, ids=lambda tab: tab["operation"])
def test_a_tab_can_be_run_as_it_is(tab: dict[str, Any]) -> None:
    """It is a saved operation, the schema and its variables agree, and it changes nothing."""
    document = parse((ROOT / "queries" / f"{tab['operation']}.graphql").read_text())
    schema = make_schema()._schema
    assert validate(schema, document) == []
    operation = get_operation_ast(document, tab["operation"])
    assert isinstance(operation, OperationDefinitionNode)
    values = get_variable_values(schema, operation.variable_definitions or (), tab.get("variables", {}))
    assert not (isinstance(values, list) and any(isinstance(each, GraphQLError) for each in values)), values
    if operation.operation is OperationType.MUTATION:
        assert tab["variables"]["dryRun"] is True


@built
def test_what_was_built_loads_its_own_files_only() -> None:
    """Every address in the page and its style sheet is that of a file beside it."""
    page = (BUILT / "index.html").read_text()
    (sheet,) = BUILT.glob("page-*.css")
    named = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    assert {name.split("/")[0] for name in named} == {"static"}
    fonts = [address.strip("\"'") for address in re.findall(r"url\(([^)]+)\)", sheet.read_text())]
    files = [name.removeprefix("static/graphiql/") for name in named] + [
        name for name in fonts if not name.startswith("data:")
    ]
    assert len(files) > 2
    for name in files:
        assert (BUILT / name).is_file(), name
    assert "@import" not in sheet.read_text()


@built
def test_what_was_built_speaks_of_known_hosts_only() -> None:
    """A host that joins with a new version of GraphiQL is looked at by somebody."""
    texts = [path.read_text() for path in BUILT.iterdir() if path.suffix in {".js", ".css", ".html"}]
    assert {host for text in texts for host in re.findall(r"https?://([a-z0-9.-]+)", text)} <= TALKED_OF
