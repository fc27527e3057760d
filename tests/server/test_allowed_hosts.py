"""By which names the server is asked: a page whose name is made to mean it gets nowhere (DNS rebinding)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from server.auth.allowed_hosts import AllowedHosts, name_of
from server.auth.from_settings import allowed_hosts_of
from server.errors import RequestError
from server.settings import Settings, SettingsError
from tests.support.live import DEADLINE, Live, serving
from tests.support.raw_http import answer, connected
from tests.support.records import memory_of
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

PROTOCOL = Subprotocol("graphql-transport-ws")
QUERY = {"query": "{ __typename }"}
EVIL = "evil.example.org"


@asynccontextmanager
async def live(**settings: object) -> AsyncIterator[tuple[Live, httpx.AsyncClient]]:
    options = Settings(no_auth=True, **settings)  # type: ignore[arg-type]
    async with serving(await memory_of(), settings=options) as server:
        base = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=base, timeout=DEADLINE) as client:
            yield server, client


def is_known(name: str, address: str | None = "10.1.2.3", **settings: object) -> bool:
    hosts = allowed_hosts_of(Settings(**settings))  # type: ignore[arg-type]
    with suppress(RequestError):
        hosts.check([(b"host", name.encode("latin-1"))], address)
        return True
    return False


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost", "localhost.", "LOCALHOST.:80", " localhost "),
        *("127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]"),
        *("10.1.2.3", "10.1.2.3:8000"),
        *(socket.gethostname(), f"{socket.gethostname().upper()}.:8000"),
    ],
)
def test_own_names_are_known(host: str) -> None:
    """Loopback, this machine's name, and the address that the connection came to, with any port."""
    assert is_known(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            EVIL,
            f"{EVIL}:8000",
            "localhost.evil.example.org",
            "127.0.0.1.evil.example.org",
            "evil.example.org.localhost",
        ),
        *("10.1.2.4", "[::2]", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "[::ffff:10.1.2.4]"),
        *("", ".", "..", "localhost..", ":8000", "[", "]", "[]", "[::1", "::1", "localhost:x", "localhost:8000:8000"),
        *(
            "a@localhost",
            "localhost/",
            "localhost,localhost",
            "http://localhost",
            "localhost#",
            "l\xf6calhost",
            "x" * 9_000,
        ),
        "localhost" + " " * 400 + "x",
    ],
)
def test_other_names_are_not(host: str) -> None:
    """Neither those of others, nor what is no name."""
    assert not is_known(host)


def test_names_can_be_let_in() -> None:
    """By a setting, in any way to write them; a Unix socket has no address of its own."""
    named = {"allow_hosts": "Merlin.example.org., [2001:DB8::0:1], dash.example.org:8443"}
    for host in ("merlin.example.org:8000", "MERLIN.EXAMPLE.ORG", "[2001:db8::1]:80", "dash.example.org", "localhost"):
        assert is_known(host, None, **named)
    assert not is_known(EVIL, None, **named)
    assert not is_known("x.merlin.example.org", None, **named)
    assert is_known("node7.example.org", host="node7.example.org")
    assert is_known("[2001:db8::1]", host="2001:db8:0::1")
    assert is_known(EVIL, allow_hosts="*")
    assert not is_known("[", allow_hosts="*")


@pytest.mark.parametrize("text", ["https://merlin.example.org", "merlin.example.org/x", "*.example.org", "[::1"])
def test_what_is_no_name_is_an_error_of_the_settings(text: str) -> None:
    """In one line, before anything is served."""
    with pytest.raises(SettingsError, match=r"^allow-hosts: .* is no host name; use names such as "):
        allowed_hosts_of(Settings(allow_hosts=text))


@given(st.text(max_size=40) | st.text(alphabet="[]:.%0123456789abcdefLOCALHOST@/ ", max_size=40))
def test_any_text_is_a_name_or_none(host: str) -> None:
    """And a name is written in one way only."""
    name = name_of(host)
    if name is not None:
        assert name_of(f"[{name}]:80" if ":" in name else f"{name.upper()}.:80") == name


@pytest.mark.parametrize("count", [0, 2])
def test_a_request_has_one_host(count: int) -> None:
    """400 for none and for several: RFC 9112, section 3.2."""
    with pytest.raises(RequestError) as refused:
        AllowedHosts().check([(b"host", b"localhost")] * count, None)
    assert refused.value.status == 400


async def opened(server: Live, origin: str | None = None) -> int:
    """The status of a handshake that asks for another name."""
    headers = {} if origin is None else {"origin": origin}
    url = f"ws://{EVIL}:{server.port}/graphql"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, host="127.0.0.1", subprotocols=[PROTOCOL], additional_headers=headers)
    return refused.value.response.status_code


ROUTES = [
    *(("GET", path) for path in ("/", "/graphql", "/healthz", "/readyz", "/metrics", "/schema.graphql", "/none")),
    *(("GET", "/?token=x"), ("POST", "/login"), ("POST", "/logout"), ("POST", "/graphql"), ("OPTIONS", "/graphql")),
]


async def test_every_route_asks_for_the_name(caplog: pytest.LogCaptureFixture) -> None:
    """421, and nothing of what is there; also on websockets, and on the way of few steps. Nothing is logged."""
    async with live(allow_origins=f"http://{EVIL}") as (server, client):
        for method, path in ROUTES:
            refused = await client.request(method, path, headers={"host": EVIL}, json=QUERY)
            assert (refused.status_code, refused.headers["x-content-type-options"]) == (421, "nosniff")
            (error,) = refused.json()["errors"]
            assert error["extensions"] == {"code": "MISDIRECTED_REQUEST"}
            assert EVIL not in f"{refused.text}{refused.headers}"
        assert await opened(server) == 421
        assert (await client.get("/healthz")).status_code == 200
        assert 'errors_total{code="MISDIRECTED_REQUEST"}' in (await client.get("/metrics")).text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_page_of_another_name_is_nobodys_own() -> None:
    """What rebinding does: page and request agree on a name that is not the server's."""
    async with live() as (server, client):
        origin = f"http://{EVIL}:{server.port}"
        headers = {"host": f"{EVIL}:{server.port}", "origin": origin}
        assert (await client.post("/graphql", json=QUERY, headers=headers)).status_code == 421
        assert await opened(server, origin) == 421


async def test_no_redirect_names_a_host() -> None:
    """Whatever the request says of it, also where any is let in."""
    async with live(allow_hosts="*") as (_, client):
        for method, path in (
            *ROUTES,
            ("GET", "/graphql/"),
            ("GET", "//evil.example.org/graphql/"),
            ("POST", "/login/"),
        ):
            told = await client.request(method, path, headers={"host": EVIL})
            assert EVIL not in told.headers.get("location", "")
            assert told.status_code < 500


async def test_a_proxy_tells_the_name_that_was_asked_for() -> None:
    """It is let in as it comes from there: a trusted proxy makes no name known."""
    async with live(trusted_proxies="127.0.0.1", allow_hosts="merlin.example.org") as (_, client):
        forwarded = {"x-forwarded-for": "192.0.2.1", "x-forwarded-host": "merlin.example.org"}
        for host, status in (("merlin.example.org", 200), (EVIL, 421)):
            told = await client.post("/graphql", json=QUERY, headers={"host": host, **forwarded})
            assert told.status_code == status


async def test_a_unix_socket_asks_for_the_name_too(tmp_path: Path) -> None:
    """`ssh -L` opens it to browsers, under the name localhost."""
    path = tmp_path / "merlin.sock"
    with Serving(tmp_path / "home", "--demo", "--unix-socket", str(path)) as server:
        await asyncio.to_thread(server.wait_until, lambda: "GraphQL:" in server.stdout)
        for host, status in ((b"localhost:8000", b"200"), (EVIL.encode(), b"421")):
            async with connected(path) as (reader, writer):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
                head, body = await answer(reader)
                assert head.startswith(b"HTTP/1.1 %b " % status)
                assert json.loads(body)
