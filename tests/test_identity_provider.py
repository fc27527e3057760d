"""Tokens of an identity provider: what is let in, what is not, and keys that change."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schema.roles import Role
from server.auth import identity_provider
from server.auth.authenticator import ProviderError
from server.auth.identity import AuthCode, AuthenticationError, Identity
from server.auth.identity_provider import IdentityProvider, role_of
from server.settings import Settings
from tests.live import DEADLINE, serving
from tests.records import memory_of
from tests.serving import Serving, run

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


def provider(path: Path, keys: str = KEYS, **options: Any) -> IdentityProvider:
    path.write_text(keys)
    return IdentityProvider(str(path), **{"issuer": ISSUER, "audience": "merlin", "roles_claim": "roles", **options})


async def refusal(known: IdentityProvider, given: str) -> AuthCode:
    with pytest.raises(AuthenticationError) as refused:
        await known.identify(given)
    assert "ada" not in str(refused.value)
    return refused.value.code


async def test_a_token_of_the_provider_is_let_in(tmp_path: Path) -> None:
    """By each of its keys; it is who it says, as long as it says."""
    known = provider(tmp_path / "jwks.json")
    expires = float(int(time.time()) + 300)
    for given in (token(exp=int(expires)), token(EC, "two", "ES256", exp=int(expires))):
        identity = await known.identify(given)
        assert (identity.name, identity.role) == ("ada", Role.WRITE)
        assert identity.expires == expires + identity_provider.LEEWAY
        assert known.known(given) == identity


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (token(exp=time.time() - 60), AuthCode.TOKEN_EXPIRED),
        (token(exp=None), AuthCode.INVALID_TOKEN),
        (token(nbf=time.time() + 300), AuthCode.INVALID_TOKEN),
        (token(iss="https://evil.example.org"), AuthCode.INVALID_TOKEN),
        (token(iss=None), AuthCode.INVALID_TOKEN),
        (token(aud="another"), AuthCode.INVALID_TOKEN),
        (token(aud=None), AuthCode.INVALID_TOKEN),
        (token(OTHER_RSA), AuthCode.INVALID_TOKEN),
        (token(EC, "one", "ES256"), AuthCode.INVALID_TOKEN),
        (token(id_="three"), AuthCode.INVALID_TOKEN),
        (token(id_=None), AuthCode.INVALID_TOKEN),
        (token()[:-5], AuthCode.INVALID_TOKEN),
        (token().rpartition(".")[0] + ".", AuthCode.INVALID_TOKEN),
        ("a.b.c", AuthCode.INVALID_TOKEN),
        ("", AuthCode.INVALID_TOKEN),
        ("é.é.é", AuthCode.INVALID_TOKEN),
    ],
)
async def test_any_other_token_is_refused(tmp_path: Path, given: str, code: AuthCode) -> None:
    """An expired one is told so; of the others nothing is told."""
    assert await refusal(provider(tmp_path / "jwks.json"), given) is code


async def test_tokens_without_a_true_signature_are_refused(tmp_path: Path) -> None:
    """None at all, and one by the public key as if that were a shared secret."""
    claims = {"sub": "ada", "iss": ISSUER, "aud": "merlin", "exp": time.time() + 300, "roles": ["admin"]}
    unsigned = jwt.encode(claims, None, "none", {"kid": "one"})  # type: ignore[arg-type]  # no key for no algorithm
    known = provider(tmp_path / "jwks.json")
    assert await refusal(known, unsigned) is AuthCode.INVALID_TOKEN
    confused = signed_by(json.dumps(jwk(RSA, "one", alg="RS256")), claims)
    assert await refusal(known, confused) is AuthCode.INVALID_TOKEN
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "s", "alg": "HS256"}
    shared = jwt.encode(claims, "secret-secret-secret-secret-secret", "HS256", {"kid": "s"})
    assert await refusal(provider(tmp_path / "jwks.json", jwks(secret)), shared) is AuthCode.INVALID_TOKEN


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
    known = provider(tmp_path / "jwks.json", jwks(nameless))
    assert (await known.identify(token(id_=None))).name == "ada"


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
    known = provider(tmp_path / "jwks.json", roles_claim="realm_access.roles")
    inside = await known.identify(token(realm_access={"roles": ["admin"]}))
    assert inside.role is Role.ADMIN
    for other in (token(), token(realm_access="admin"), token(realm_access=None)):
        assert (await known.identify(other)).role is None


class Site:
    """An identity provider's web server."""

    def __init__(self) -> None:
        self.keys = KEYS
        self.asked = 0
        self.is_down = False

    async def answer(self, _request: Request) -> Response:
        self.asked += 1
        return JSONResponse({}, 500) if self.is_down else Response(self.keys, media_type="application/json")


@asynccontextmanager
async def site() -> AsyncIterator[tuple[Site, str]]:
    keys = Site()
    async with serving(await memory_of(), Route("/jwks.json", keys.answer)) as live:
        yield keys, f"http://127.0.0.1:{live.port}/jwks.json"


async def test_a_new_key_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a token names it, though no more often than every few seconds; an outage leaves the known ones."""
    clock = time.monotonic()
    monkeypatch.setattr(identity_provider, "time", SimpleNamespace(monotonic=lambda: clock, time=time.time))
    async with site() as (keys, url), asyncio.timeout(DEADLINE):
        known = IdentityProvider(url, issuer=None, audience="merlin", roles_claim="roles")
        await known.open()
        keys.keys = jwks(jwk(OTHER_RSA, "new", alg="RS256"))
        new = token(OTHER_RSA, "new")
        assert await refusal(known, new) is AuthCode.INVALID_TOKEN
        assert keys.asked == 1
        clock += 11
        assert (await known.identify(new)).name == "ada"
        assert await refusal(known, token(exp=int(time.time()) + 200)) is AuthCode.INVALID_TOKEN
        assert keys.asked == 2
        keys.is_down = True
        clock += 1_000
        for number in range(3):
            assert (await known.identify(token(OTHER_RSA, "new", jti=str(number)))).name == "ada"
        assert keys.asked == 3


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


def test_a_token_is_not_remembered_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a key that is withdrawn ends its tokens."""
    known = provider(tmp_path / "jwks.json")
    given = token(exp=int(time.time()) + 3600)
    identity = asyncio.run(known.identify(given))
    assert known.known(given) == identity == Identity("ada", Role.WRITE, identity.expires)
    later = time.time() + 61
    monkeypatch.setattr("time.time", lambda: later)
    assert known.known(given) is None
