"""Browsers: a token is shown once, and a cookie stands for it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from schema.roles import Role
from server.auth import token_file
from server.auth.identity import AuthCode, AuthenticationError, Credential, Identity
from server.auth.session_cookie import Sessions, cookie_name, read_cookie
from server.auth.token_file import TokenLine, add_line, hash_of
from server.auth.visitor import Visitor
from server.settings import PRODUCTION, Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

TOKEN = "the-token-of-the-owner"
KEY = "the-key-of-all-servers-that-stand-for-each-other"
QUERY = {"query": "{ viewer { roles } }"}
ROLES = {"data": {"viewer": {"roles": ["READ", "WRITE", "ADMIN"]}}}


def visitor_at(host: str, **more: Any) -> Visitor:
    return Visitor({"host": host}, "local", "http", **more)


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(), settings=Settings(token=TOKEN)) as server:
        yield server


@pytest.fixture
async def browser(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    """Keeps cookies, and does not follow redirections."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client:
        yield client


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("/?token={token}", "./"),
        ("/?a=1&token={token}&b=x%20y", "./?a=1&b=x+y"),
        ("/graphql?token={token}", "./graphql"),
        ("/https:evil.example?token={token}", "./https%3Aevil.example"),
        ("/https:%5cevil.example?token={token}", "./https%3A%5Cevil.example"),
        ("/a//evil.example?token={token}", "./evil.example"),
        ("/a%2f%2fevil.example?token={token}", "./evil.example"),
        ("/a%3fb%0d%0aset-cookie:x?token={token}", "./a%3Fb%0D%0Aset-cookie%3Ax"),
    ],
)
async def test_the_first_visit_exchanges_the_token(
    live: Live, browser: httpx.AsyncClient, address: str, target: str
) -> None:
    """The answer is that address without it, never another site's, and a cookie that no script has."""
    answer = await browser.get(address.format(token=TOKEN))
    assert (answer.status_code, answer.headers["location"]) == (303, target)
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie.key == f"merlin_graphql_{live.port}"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "lax", "/", "")
    assert int(cookie["max-age"]) == 12 * 3600
    assert TOKEN not in str(answer.headers)
    assert (await browser.post("/graphql", json=QUERY)).json() == ROLES


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "merlin_graphql_8000"),
        ({"is_secure": True}, "__Host-merlin_graphql_8000"),
        ({"is_secure": True, "root": "/merlin/"}, "__Secure-merlin_graphql_8000"),
    ],
)
def test_over_tls_a_cookie_is_this_hosts_only(more: dict[str, Any], name: str) -> None:
    """Its name has the prefix by which a browser takes it from nobody else."""
    assert cookie_name(visitor_at("merlin:8000", **more)) == name


async def test_behind_tls_a_browser_is_logged_in() -> None:
    """By a cookie that goes over TLS only; it is taken back by the same name."""
    settings = Settings(token=TOKEN, trusted_proxies="127.0.0.1")
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(headers={"x-forwarded-proto": "https"}, timeout=DEADLINE) as browser,
    ):
        base = f"http://127.0.0.1:{live.port}"
        answer = await browser.post(f"{base}/login", data={"token": TOKEN})
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert (cookie.key, cookie["secure"], cookie["path"]) == (f"__Host-merlin_graphql_{live.port}", True, "/")
        sent = {"cookie": f"{cookie.key}={cookie.value}"}
        assert (await browser.post(live.http, json=QUERY, headers=sent)).json() == ROLES
        ended = await browser.post(f"{base}/logout", headers=sent)
        (gone,) = SimpleCookie(ended.headers["set-cookie"]).values()
        assert (gone.key, gone.value, gone["secure"], gone["max-age"]) == (cookie.key, "", True, "0")
        assert ended.headers["clear-site-data"] == '"cache"'
        assert (await browser.post(live.http, json=QUERY, headers=sent)).status_code == 401


@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1", None])
async def test_only_a_trusted_proxy_is_believed(trusted: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Of whom it came from, and whether by TLS: anybody can send these headers."""
    caplog.set_level(logging.INFO)
    headers = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN, trusted_proxies=trusted)) as live,
        httpx.AsyncClient(headers=headers, timeout=DEADLINE) as browser,
    ):
        answer = await browser.post(f"http://127.0.0.1:{live.port}/login", data={"token": TOKEN})
    is_believed = trusted == "127.0.0.1"
    assert ("__Host-" in answer.headers["set-cookie"]) == is_believed
    assert f"session begun: address={'203.0.113.7' if is_believed else '127.0.0.1'} " in caplog.text


async def test_a_wrong_token_in_the_address_is_told(browser: httpx.AsyncClient) -> None:
    """401, and no cookie."""
    for token in ("wrong", "", "é"):
        answer = await browser.get("/", params={"token": token})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "none"}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
    ],
)
async def test_no_other_site_logs_anybody_in(
    live: Live, browser: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """By a link to the address with a token of its own, or by a form: what is asked next would be asked in its name."""
    linked = await browser.get("/", params={"token": TOKEN}, headers=headers)
    sent = await browser.post("/login", data={"token": TOKEN}, headers=headers)
    for answer in (linked, sent):
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, status == 303)


async def test_in_production_no_address_holds_a_token() -> None:
    """Proxies write addresses down; a form still logs in."""
    settings = Settings(profile=PRODUCTION, token=TOKEN)
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as browser,
    ):
        for path in ("/", "/graphql", "/metrics"):
            answer = await browser.get(path, params={"token": TOKEN})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        assert (await browser.post("/login", data={"token": TOKEN})).status_code == 303


async def test_a_form_logs_in(browser: httpx.AsyncClient) -> None:
    """By POST, from a page of this server."""
    wrong = await browser.post("/login", data={"token": "wrong"})
    assert (wrong.status_code, wrong.json()["errors"][0]["extensions"]["code"]) == (401, "INVALID_TOKEN")
    foreign = await browser.post("/login", data={"token": TOKEN}, headers={"origin": "https://evil.example.org"})
    assert foreign.status_code == 403
    assert (await browser.post("/login", content=b"token=" + b"x" * 20_000)).status_code == 413
    answer = await browser.post("/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, ".")
    assert (await browser.post("/graphql", json=QUERY)).json() == ROLES


async def test_a_browser_logs_out(browser: httpx.AsyncClient) -> None:
    """Its cookie is gone, and pages of others can't do that to it."""
    await browser.post("/login", data={"token": TOKEN})
    assert (await browser.get("/logout")).status_code == 405
    assert (await browser.post("/logout", headers={"origin": "https://evil.example.org"})).status_code == 403
    assert (await browser.post("/graphql", json=QUERY)).json() == ROLES
    assert (await browser.post("/logout")).status_code == 303
    assert (await browser.post("/graphql", json=QUERY)).status_code == 401


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/", "/graphql"])
async def test_an_address_whose_token_is_over_shows_a_form(browser: httpx.AsyncClient, path: str) -> None:
    """That of another start, from the browser's history: the form takes a new one; programs get JSON as before."""
    stale = await browser.get(path, params={"token": "of-another-start"}, headers=BROWSER)
    assert (stale.status_code, stale.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert '<form class="login" method="post" action="login">' in stale.text
    assert "This token is not known here." in stale.text
    assert stale.headers["www-authenticate"].startswith("Bearer")
    assert "of-another-start" not in stale.text
    assert "set-cookie" not in stale.headers
    policy = stale.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", stale.text, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert (await browser.get(path, params={"token": "x"})).json()["errors"][0]["extensions"]["code"] == "INVALID_TOKEN"
    again = await browser.post("/login", data={"token": "wrong"}, headers=BROWSER)
    assert (again.status_code, "<form" in again.text, "wrong" in again.text) == (401, True, False)
    done = await browser.post("/login", data={"token": TOKEN}, headers=BROWSER)
    assert (done.status_code, done.headers["location"]) == (303, ".")
    assert (await browser.post("/graphql", json=QUERY)).json() == ROLES


async def test_the_form_is_where_one_looks_for_it(browser: httpx.AsyncClient) -> None:
    """A browser that opens /login gets it; others are told to send the token."""
    form = await browser.get("/login", headers=BROWSER)
    assert (form.status_code, "<form" in form.text) == (200, True)
    for headers in ({}, {"accept": "application/json"}, {"accept": "*/*"}):
        assert (await browser.get("/login", headers=headers)).status_code == 405


async def test_a_cookie_is_enough_for_a_websocket(live: Live, browser: httpx.AsyncClient) -> None:
    """Its browser can send no header there."""
    await browser.get("/", params={"token": TOKEN})
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    protocol = Subprotocol("graphql-transport-ws")
    async with (
        asyncio.timeout(DEADLINE),
        connect(live.ws, subprotocols=[protocol], additional_headers=headers) as socket,
    ):
        await socket.send('{"type": "connection_init", "payload": {}}')
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}


async def test_a_cookie_is_taken_from_pages_of_this_server_only() -> None:
    """A page that is let in shows a token: the cookie that its browser adds is of somebody who asked for nothing."""
    dash = "https://dash.example.org"
    async with (
        asyncio.timeout(DEADLINE),
        serving(await memory_of(), settings=Settings(token=TOKEN, allow_origins=dash)) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as browser,
    ):
        await browser.post("/login", data={"token": TOKEN})
        assert (await browser.post("/graphql", json=QUERY, headers={"origin": dash})).status_code == 401
        query = {"query": QUERY["query"]}
        for site in ("cross-site", "same-site"):
            headers = {"origin": dash, "sec-fetch-site": site}
            assert (await browser.get("/graphql", params=query, headers=headers)).status_code == 401
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        for origin, heard in ((f"http://127.0.0.1:{live.port}", "connection_ack"), (dash, None)):
            async with connect(
                live.ws,
                subprotocols=[Subprotocol("graphql-transport-ws")],
                additional_headers={"cookie": cookie},
                origin=Origin(origin),
            ) as socket:
                await socket.send('{"type": "connection_init"}')
                if heard is None:
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
                    assert socket.close_code == 4401
                else:
                    assert json.loads(await socket.recv()) == {"type": heard}


async def test_a_session_ends_with_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has the role that the token has now."""
    monkeypatch.setattr(token_file, "_MIN_CHECK_INTERVAL", 0.0)
    path = tmp_path / "tokens"
    add_line(path, TokenLine("a", Role.WRITE, hash_of("token of a")))
    async with (
        serving(await memory_of(), settings=Settings(token_file=path)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as browser,
    ):
        await browser.get(f"http://127.0.0.1:{live.port}/", params={"token": "token of a"})
        path.write_text(path.read_text().replace("WRITE", "READ"))
        assert (await browser.post(live.http, json=QUERY)).json() == {"data": {"viewer": {"roles": ["READ"]}}}
        path.write_text("")
        ended = await browser.post(live.http, json=QUERY)
        assert (ended.status_code, ended.json()["errors"][0]["extensions"]["code"]) == (401, "INVALID_TOKEN")


async def test_servers_with_one_key_know_each_others_sessions() -> None:
    """Those with another do not."""
    settings = Settings(token=TOKEN, session_key=KEY)
    credential = Credential(Identity("owner", Role.ADMIN), hash_of(TOKEN))
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as browser:
        for key, status in ((KEY, 200), ("o" * 32, 401)):
            _, value = Sessions(key).begin(credential)
            headers = {"cookie": f"{cookie_name(visitor_at(f'127.0.0.1:{live.port}'))}={value}"}
            assert (await browser.post(live.http, json=QUERY, headers=headers)).status_code == status


def test_a_session_lasts_no_longer_than_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor longer than twelve hours."""
    clock = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: clock)
    kept = Sessions(KEY)
    session, brief = kept.begin(Credential(Identity("a", Role.READ, clock + 60), "proof"))
    assert session.seconds == 60
    session, endless = kept.begin(Credential(Identity("a", None), "proof"))
    assert session.seconds == 12 * 3600
    clock += 61
    with pytest.raises(AuthenticationError) as ended:
        kept.read(brief)
    assert ended.value.code is AuthCode.TOKEN_EXPIRED
    assert kept.read(endless) == session
    clock += 12 * 3600
    with pytest.raises(AuthenticationError):
        kept.read(endless)


@given(st.text(max_size=200) | st.text(alphabet="abcXYZ019-_.", max_size=200))
def test_only_what_was_signed_is_a_session(value: str) -> None:
    """Whatever a client makes up."""
    with pytest.raises(AuthenticationError):
        Sessions(KEY).read(value)


@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_no_part_of_a_session_can_be_changed(place: int, other: str) -> None:
    """Neither its name, role and time, nor its signature."""
    _, value = Sessions(KEY).begin(Credential(Identity("reader", Role.READ), "proof"))
    at = place % len(value)
    if other != value[at]:
        with pytest.raises(AuthenticationError):
            Sessions(KEY).read(value[:at] + other + value[at + 1 :])


def test_a_cookie_gives_nothing_to_guess_by() -> None:
    """Who has one, and tries tokens at home, can't tell which is right: without the key no part of it follows."""
    credential = Credential(Identity("owner", Role.ADMIN), hash_of(TOKEN))
    (one, value), (other, _) = Sessions(KEY).begin(credential), Sessions("o" * 32).begin(credential)
    payload = base64.urlsafe_b64decode(value.partition(".")[0] + "==").decode()
    assert one.seal in payload
    assert one.seal != other.seal
    digest = hash_of(TOKEN).removeprefix("sha256:")
    assert digest[:12] not in payload
    assert base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()[:12] not in payload


@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=300))
def test_any_cookie_header_can_be_read(header: str) -> None:
    """Ours is found before and behind what others have set, whatever that is."""
    name = cookie_name(visitor_at("merlin:8000"))
    others = header.replace(name, "")
    assert read_cookie(f"{others};{name}=value", name) == read_cookie(f"{name}=value; {others}", name) == "value"
    assert read_cookie(others, name) is None


@pytest.mark.parametrize("piece", ["a=b;", "a", ";", "=", '"', '\\"', 'a="\\', 'a="b; '])
def test_a_long_cookie_header_is_read_in_a_moment(piece: str) -> None:
    """64 KiB of what takes the standard library's parser up to 8 s: its time is quadratic."""
    header = piece * (65_536 // len(piece))
    began = time.process_time()
    assert read_cookie(header, "merlin_graphql") is None
    assert time.process_time() - began < 0.05
