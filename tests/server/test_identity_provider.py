"""Tokens of an identity provider: what is let in, what is not, and keys that change."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.warnings import InsecureKeyLengthWarning
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schema.roles import Role
from server.auth import identity_provider
from server.auth.authenticator import ProviderError
from server.auth.from_settings import with_secrets
from server.auth.identity import AuthCode, AuthenticationError, Identity
from server.auth.identity_provider import IdentityProvider, role_of
from server.settings import PRODUCTION, Settings, SettingsError
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of
from tests.support.serving import Serving, run

pytestmark = pytest.mark.anyio

ISSUER = "https://sso.example.org"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, id_: str, **more: str) -> dict[str, Any]:
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": id_, **more}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


KEYS = jwks(jwk(RSA, "one", alg="RS256"), jwk(EC, "two", alg="ES256"))


def token(key: Any = RSA, id_: str | None = "one", algorithm: str = "RS256", **changes: Any) -> str:
    now = time.time()
    claims = {"sub": "ada", "iss": ISSUER, "aud": "merlin", "exp": now + 300, "roles": ["write"], **changes}
    headers = {} if id_ is None else {"kid": id_}
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key, algorithm, headers)


async def provider(path: Path, keys: str = KEYS, **options: Any) -> IdentityProvider:
    """That has read its keys."""
    path.write_text(keys)
    known = IdentityProvider(str(path), **{"issuer": ISSUER, "audience": "merlin", "roles_claim": "roles", **options})
    await known.open()
    return known


def refusal(known: IdentityProvider, given: str) -> AuthCode:
    with pytest.raises(AuthenticationError) as refused:
        known.identify(given)
    assert "ada" not in str(refused.value)
    return refused.value.code


async def test_a_token_of_the_provider_is_let_in(tmp_path: Path) -> None:
    """By each of its keys; it is who it says, as long as it says."""
    known = await provider(tmp_path / "jwks.json")
    expires = float(int(time.time()) + 300)
    for given in (token(exp=int(expires)), token(EC, "two", "ES256", exp=int(expires))):
        session = known.identify(given)
        assert session.identity == Identity("jwt:ada", Role.WRITE, expires + identity_provider.LEEWAY)
        assert known.known(given) == session
        assert known.still(session) == session.identity


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: token(exp=time.time() - 60), AuthCode.TOKEN_EXPIRED),
        (lambda: token(exp=None), AuthCode.INVALID_TOKEN),
        (lambda: token(nbf=time.time() + 300), AuthCode.INVALID_TOKEN),
        (lambda: token(iss="https://evil.example.org"), AuthCode.INVALID_TOKEN),
        (lambda: token(iss=None), AuthCode.INVALID_TOKEN),
        (lambda: token(aud="another"), AuthCode.INVALID_TOKEN),
        (lambda: token(aud=None), AuthCode.INVALID_TOKEN),
        (lambda: token(OTHER_RSA), AuthCode.INVALID_TOKEN),
        (lambda: token(EC, "one", "ES256"), AuthCode.INVALID_TOKEN),
        (lambda: token(id_="three"), AuthCode.INVALID_TOKEN),
        (lambda: token(id_=None), AuthCode.INVALID_TOKEN),
        (lambda: token(sub=7), AuthCode.INVALID_TOKEN),
        (lambda: token(sub="a" * 256), AuthCode.INVALID_TOKEN),
        (lambda: token(sub="a\nINFO merlin_graphql.audit: all is well"), AuthCode.INVALID_TOKEN),
        (lambda: token()[:-5], AuthCode.INVALID_TOKEN),
        (lambda: token().rpartition(".")[0] + ".", AuthCode.INVALID_TOKEN),
        (lambda: "a.b.c", AuthCode.INVALID_TOKEN),
        (lambda: f"{base64.urlsafe_b64encode(b'[' * 5_900).decode()}.e30.YQ", AuthCode.INVALID_TOKEN),
        (lambda: "", AuthCode.INVALID_TOKEN),
        (lambda: "é.é.é", AuthCode.INVALID_TOKEN),
    ],
)
async def test_any_other_token_is_refused(tmp_path: Path, make: Callable[[], str], code: AuthCode) -> None:
    """An expired one is told so; of the others nothing is told."""
    assert refusal(await provider(tmp_path / "jwks.json"), make()) is code


async def test_tokens_without_a_true_signature_are_refused(tmp_path: Path) -> None:
    """None at all, and one by the public key as if that were a shared secret."""
    claims = {"sub": "ada", "iss": ISSUER, "aud": "merlin", "exp": time.time() + 300, "roles": ["admin"]}
    unsigned = jwt.encode(claims, None, "none", {"kid": "one"})  # type: ignore[arg-type]  # no key for no algorithm
    known = await provider(tmp_path / "jwks.json")
    assert refusal(known, unsigned) is AuthCode.INVALID_TOKEN
    confused = signed_by(json.dumps(jwk(RSA, "one", alg="RS256")), claims)
    assert refusal(known, confused) is AuthCode.INVALID_TOKEN
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "s", "alg": "HS256"}
    shared = jwt.encode(claims, "secret-secret-secret-secret-secret", "HS256", {"kid": "s"})
    assert (
        refusal(await provider(tmp_path / "jwks.json", jwks(secret, jwk(RSA, "one"))), shared) is AuthCode.INVALID_TOKEN
    )


def signed_by(secret: str, claims: dict[str, Any]) -> str:
    """By HMAC, for which PyJWT itself would not take a public key."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT", "kid": "one"}, claims)
    ]
    signature = hmac.digest(secret.encode(), b".".join(parts), "sha256")
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


async def test_one_key_needs_no_name(tmp_path: Path) -> None:
    """Neither in the set nor in the token."""
    nameless = {name: value for name, value in jwk(RSA, "").items() if name != "kid"}
    known = await provider(tmp_path / "jwks.json", jwks(nameless))
    assert known.identify(token(id_=None)).identity.name == "jwt:ada"


@pytest.mark.parametrize(
    ("claim", "role"),
    [
        (["read"], Role.READ),
        (["READ", "Write", "offline_access"], Role.WRITE),
        ("openid merlin-graphql:admin email", Role.ADMIN),
        (["merlin-graphql:read"], Role.READ),
        (["administrators"], None),
        ([], None),
        (None, None),
        (7, None),
        ([{"name": "admin"}], None),
        ({"admin": True}, None),
    ],
)
def test_the_highest_role_that_is_named_counts(claim: object, role: Role | None) -> None:
    """In any case; what names none may do nothing."""
    assert role_of(claim) is role


async def test_roles_stand_where_the_setting_says(tmp_path: Path) -> None:
    """Also deep within a claim; who has none is known, and may do nothing."""
    known = await provider(tmp_path / "jwks.json", roles_claim="realm_access.roles")
    inside = known.identify(token(realm_access={"roles": ["admin"]}))
    assert inside.identity.role is Role.ADMIN
    for other in (token(), token(realm_access="admin"), token(realm_access=None)):
        assert known.identify(other).identity.role is None


class Site:
    """An identity provider's web server."""

    def __init__(self) -> None:
        self.keys = KEYS
        self.asked = 0
        self.is_down = False
        self.hangs = False

    async def answer(self, _request: Request) -> Response:
        self.asked += 1
        if self.hangs:
            return StreamingResponse(_drops(), media_type="application/json")
        return JSONResponse({}, 500) if self.is_down else Response(self.keys, media_type="application/json")


async def _drops() -> AsyncIterator[bytes]:
    """An answer that never ends, and never is silent for long."""
    while True:
        yield b" "
        await asyncio.sleep(0.02)


@asynccontextmanager
async def site() -> AsyncIterator[tuple[Site, str]]:
    keys = Site()
    async with serving(await memory_of(), Route("/jwks.json", keys.answer)) as live:
        yield keys, f"http://127.0.0.1:{live.port}/jwks.json"


@asynccontextmanager
async def following(url: str) -> AsyncIterator[IdentityProvider]:
    known = IdentityProvider(url, issuer=None, audience="merlin", roles_claim="roles")
    await known.open()
    task = asyncio.create_task(known.follow())
    try:
        async with asyncio.timeout(DEADLINE):
            yield known
    finally:
        task.cancel()


async def test_a_new_key_is_read_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that names it is refused at once; whatever others name, the provider is not asked again so soon."""
    monkeypatch.setattr(identity_provider, "_MIN_REFRESH_INTERVAL", 0.2)
    async with site() as (keys, url), following(url) as known:
        keys.keys = jwks(jwk(OTHER_RSA, "new", alg="RS256"))
        new = token(OTHER_RSA, "new")
        assert refusal(known, new) is AuthCode.INVALID_TOKEN
        for number in range(100):
            assert refusal(known, token(id_=f"forged-{number}")) is AuthCode.INVALID_TOKEN
        assert keys.asked == 1
        await until(lambda: known.version == 2)
        assert known.identify(new).identity.name == "jwt:ada"
        assert refusal(known, token()) is AuthCode.INVALID_TOKEN
        assert keys.asked == 2


async def closing_of(live: Live, given: str) -> tuple[int | None, str | None]:
    """The code and the reason by which a websocket with a token is closed."""
    async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": given}}))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        return socket.close_code, socket.close_reason


async def test_a_websocket_may_come_again_until_the_provider_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key that is not known yet: 4403, after which clients connect again. Afterwards it is refused for good."""
    monkeypatch.setattr(identity_provider, "_MIN_REFRESH_INTERVAL", 0.05)
    async with asyncio.timeout(DEADLINE), site() as (keys, url):
        settings = Settings(jwks=url, jwt_issuer=ISSUER, jwt_audience="merlin")
        async with serving(await memory_of(), settings=settings) as live:
            keys.is_down = True
            not_yet = 4403, "The key of this token is not known here yet: try again in a minute."
            assert await closing_of(live, token(id_="forged")) == not_yet
            await until(lambda: keys.asked > 1)
            assert await closing_of(live, token(id_="forged")) == not_yet
            keys.is_down = False
            while (closed := await closing_of(live, token(id_="forged"))) == not_yet:
                await asyncio.sleep(0.02)
            assert closed == (4401, "This token is not known here.")


async def test_a_reload_asks_at_once() -> None:
    """Long before the provider would be asked again."""
    async with site() as (keys, url), following(url) as known:
        keys.keys = jwks(jwk(OTHER_RSA, "new", alg="RS256"))
        known.reload()
        await until(lambda: known.version == 2)
        assert known.identify(token(OTHER_RSA, "new")).identity.name == "jwt:ada"
        assert keys.asked == 2


async def test_an_outage_leaves_the_keys_that_are_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is told in the log, once for each time that the provider was asked."""
    monkeypatch.setattr(identity_provider, "_MIN_REFRESH_INTERVAL", 0.02)
    monkeypatch.setattr(identity_provider, "_REFRESH_INTERVAL", 0.04)
    async with site() as (keys, url), following(url) as known:
        keys.is_down = True
        await until(lambda: "stay valid" in caplog.text)
        assert known.identify(token()).identity.name == "jwt:ada"


async def test_a_provider_that_drips_costs_its_tokens_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer without end is given up after one deadline for all of it, while tokens are verified as ever."""
    monkeypatch.setattr(identity_provider, "_MIN_REFRESH_INTERVAL", 0.01)
    monkeypatch.setattr(identity_provider, "_TIMEOUT", 0.3)
    async with site() as (keys, url), following(url) as known:
        keys.hangs = True
        assert refusal(known, token(id_="forged")) is AuthCode.INVALID_TOKEN
        await until(lambda: keys.asked == 2)
        began = time.process_time()
        assert known.identify(token()).identity.name == "jwt:ada"
        assert refusal(known, token(id_="forged")) is AuthCode.INVALID_TOKEN
        assert time.process_time() - began < 0.1
        await until(lambda: "it took" in caplog.text)
        assert known.identify(token(jti="another")).identity.name == "jwt:ada"


async def test_short_keys_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """RSA below 2,048 bits, and keys that are for encryption; with none left the server does not start."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    secret = jwk(OTHER_RSA, "secret", use="enc")
    known = await provider(tmp_path / "jwks.json", jwks(jwk(short, "short"), secret, jwk(RSA, "one")))
    with pytest.warns(InsecureKeyLengthWarning):
        signed = token(short, "short")
    assert refusal(known, signed) is AuthCode.INVALID_TOKEN
    assert refusal(known, token(OTHER_RSA, "secret")) is AuthCode.INVALID_TOKEN
    assert known.identify(token()).identity.name == "jwt:ada"
    assert "Of the 3 keys" in caplog.text
    with pytest.raises(ProviderError, match="none of them can be used; RSA keys need 2048 bits"):
        await provider(tmp_path / "jwks.json", jwks(jwk(short, "short")))


async def test_what_a_token_says_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its library quotes it: here a header that would begin a line of the audit log."""
    caplog.set_level(logging.DEBUG)
    forged = "x\n2026-01-01 00:00:00,000 INFO merlin_graphql.audit: forged"
    claims = {"sub": "ada", "iss": ISSUER, "aud": "merlin", "exp": time.time() + 300}
    known = await provider(tmp_path / "jwks.json")
    assert refusal(known, jwt.encode(claims, RSA, "RS256", {"kid": "one", "crit": [forged]})) is AuthCode.INVALID_TOKEN
    assert "A token was refused: InvalidTokenError" in caplog.text
    assert "forged" not in caplog.text


async def test_a_session_ends_with_the_key_that_it_was_begun_by(tmp_path: Path) -> None:
    """So does a websocket: a key that is withdrawn, or replaced under its id, ends what its tokens began."""
    path = tmp_path / "jwks.json"
    path.write_text(KEYS)
    settings = Settings(jwks=str(path), jwt_issuer=ISSUER, jwt_audience="merlin")
    async with (
        asyncio.timeout(DEADLINE),
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as browser,
        connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket,
    ):
        await browser.post("/login", data={"token": token()})
        assert (await browser.post("/graphql", json={"query": "{ __typename }"})).status_code == 200
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": token()}}))
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        path.write_text(jwks(jwk(OTHER_RSA, "one", alg="RS256")))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4401
        assert (await browser.post("/graphql", json={"query": "{ __typename }"})).status_code == 401


async def test_who_may_not_read_sees_neither_figures_nor_schema(tmp_path: Path) -> None:
    """Somebody whom the provider knows and gives no role."""
    (tmp_path / "jwks.json").write_text(KEYS)
    settings = Settings(jwks=str(tmp_path / "jwks.json"), jwt_issuer=ISSUER, jwt_audience="merlin")
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client,
    ):
        for path in ("/metrics", "/schema.graphql"):
            for roles, status in ((["read"], 200), ([], 403)):
                headers = {"authorization": f"Bearer {token(roles=roles)}"}
                assert (await client.get(path, headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"jwt_issuer": ISSUER}, "needs --jwt-issuer and --jwt-audience"),
        ({"jwt_audience": "merlin"}, "needs --jwt-issuer and --jwt-audience"),
        (
            {"jwt_issuer": ISSUER, "jwt_audience": "merlin", "jwks": "http://sso.example.org/keys"},
            "needs an https:// URL",
        ),
    ],
)
def test_production_lets_in_nobody_elses_tokens(settings: dict[str, Any], why: str) -> None:
    """Neither those that the provider made for another service, nor those of whoever answers in its place."""
    given = {"profile": PRODUCTION, "jwks": "keys.json", **settings}
    with pytest.raises(SettingsError, match=why):
        with_secrets(Settings(**given))
    assert with_secrets(Settings(**{**given, "profile": "development"}))


async def test_keys_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    """In one line: no file, no JSON, no keys, no server, an error of the server."""
    async with site() as (keys, url):
        keys.is_down = True
        for place, text in ((tmp_path / "none", None), (tmp_path / "a", "{"), (tmp_path / "b", "[]"), (url, None)):
            if text is not None:
                Path(place).write_text(text)
            known = IdentityProvider(str(place), issuer=None, audience=None, roles_claim="roles")
            with pytest.raises(ProviderError) as told:
                await known.open()
            assert str(place) in str(told.value)
            assert "\n" not in str(told.value)


async def test_a_server_knows_both_kinds_of_tokens(tmp_path: Path) -> None:
    """By any protocol's way; a session of a browser lasts as long as the token."""
    (tmp_path / "jwks.json").write_text(KEYS)
    settings = Settings(token="t" * 20, jwks=str(tmp_path / "jwks.json"), jwt_issuer=ISSUER, jwt_audience="merlin")
    query = {"query": "{ viewer { roles } }"}
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client,
    ):
        for given, roles in (
            (token(), ["READ", "WRITE"]),
            ("t" * 20, ["READ", "WRITE", "ADMIN"]),
            (token(roles=[]), None),
        ):
            answer = await client.post("/graphql", json=query, headers={"authorization": f"Bearer {given}"})
            if roles is None:
                assert answer.status_code == 403
            else:
                assert answer.json() == {"data": {"viewer": {"roles": roles}}}
        exchanged = await client.get("/", params={"token": token(exp=time.time() + 40)})
        assert int(exchanged.headers["set-cookie"].partition("Max-Age=")[2].partition(";")[0]) <= 70
        assert (await client.post("/graphql", json=query)).json() == {"data": {"viewer": {"roles": ["READ", "WRITE"]}}}


def test_the_command_line_lets_in_a_provider(tmp_path: Path) -> None:
    """Then it makes no token of its own; keys that can't be had end the start in one line."""
    path = tmp_path / "jwks.json"
    path.write_text(KEYS)
    with Serving(tmp_path / "home", "--demo", "--jwks", str(path), login=True) as server:
        assert "token=" not in server.stdout + server.url
        headers = {"authorization": f"Bearer {token()}"}
        answer = httpx.post(f"{server.url}/graphql", json={"query": "{ viewer { roles } }"}, headers=headers)
        assert answer.json() == {"data": {"viewer": {"roles": ["READ", "WRITE"]}}}
    refused = run(tmp_path / "home", "serve", "--demo", "--jwks", str(tmp_path / "none"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "Can't read the keys" in refused.stderr


async def test_a_token_is_not_remembered_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is verified anew."""
    known = await provider(tmp_path / "jwks.json")
    given = token(exp=int(time.time()) + 3600)
    verified = known.identify(given)
    assert known.known(given) == verified
    later = time.time() + 61
    monkeypatch.setattr("time.time", lambda: later)
    assert known.known(given) is None
