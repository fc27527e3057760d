"""Tokens of a site's identity provider: JSON Web Tokens, by the keys that it publishes (RFC 7517, 7519, 8725)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jwt
from jwt.exceptions import ExpiredSignatureError, InvalidTokenError, PyJWKSetError

from schema.roles import Role
from server.auth.authenticator import ProviderError
from server.auth.identity import Identity, expired, invalid

LOG = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a public key: a key that everybody can read must never be taken as a shared secret."""
LEEWAY = 30
"""Seconds that the clocks may differ."""
_FRESH_FOR = 300.0
"""Seconds until the keys are read again."""
_LOOK_AT_MOST_EVERY = 10.0
"""Seconds between two looks for a key that is not known."""
_LONGEST_WAIT = 5.0
"""Seconds for an answer of the provider."""
_LARGEST_ANSWER = 2**20
_REMEMBERED = 1_000
_REMEMBERED_FOR = 60.0
"""Seconds that a token which was verified is known by its text."""
_PREFIX = "merlin-graphql:"


class IdentityProvider:
    def __init__(self, jwks: str, *, issuer: str | None, audience: str | None, roles_claim: str) -> None:
        """`jwks`: a file or a URL. `roles_claim`: the path of a claim, such as `realm_access.roles`."""
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim.split(".")
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    async def open(self) -> None:
        """Raises `ProviderError`."""
        await self._read_keys()

    def known(self, token: str) -> Identity | None:
        """One that was verified a moment ago."""
        found = self._known.get(token)
        if found is None or found[0] < time.time():
            return None
        return found[1]

    async def identify(self, token: str) -> Identity:
        """Raises `AuthenticationError`."""
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
        except ExpiredSignatureError:
            raise expired() from None
        except (InvalidTokenError, ValueError, TypeError) as error:
            LOG.info("A token was refused: %s", error)
            raise invalid() from None
        name = str(claims.get("sub", "")) or "unnamed"
        identity = Identity(name, role_of(_at(claims, self._roles_claim)), float(claims["exp"]) + LEEWAY)
        self._known[token] = min(time.time() + _REMEMBERED_FOR, identity.expires or 0), identity
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity

    async def _key(self, id_: object) -> jwt.PyJWK:
        """Raises `InvalidTokenError`."""
        async with self._reading:
            age = time.monotonic() - self._read_at
            if age > _FRESH_FOR or (id_ not in self._keys and age > _LOOK_AT_MOST_EVERY):
                try:
                    await self._read_keys()
                except ProviderError as error:
                    LOG.warning("%s The keys that were read before go on to hold.", error)
                    self._read_at = time.monotonic() - _FRESH_FOR + _LOOK_AT_MOST_EVERY
        key = self._keys.get(id_ if isinstance(id_, str) else None)
        if key is None:
            raise InvalidTokenError("no key of this id")
        return key

    async def _read_keys(self) -> None:
        try:
            text = await asyncio.to_thread(_read, self._jwks)
            keys = jwt.PyJWKSet.from_dict(json.loads(text)).keys
        except (OSError, ValueError, AttributeError, PyJWKSetError) as error:
            reason = getattr(error, "strerror", None) or str(getattr(error, "reason", None) or error)
            raise ProviderError(f"Can't read the keys {self._jwks}: {reason}.") from None
        self._keys = {key.key_id: key for key in keys}
        if len(keys) == 1:
            self._keys[None] = keys[0]  # one key needs no name
        self._read_at = time.monotonic()


def role_of(claim: object) -> Role | None:
    """The highest role that a claim names: a list or a text of names, in any case, also like `merlin-graphql:read`."""
    names: Iterable[object] = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    found = {str(name).removeprefix(_PREFIX).upper() for name in names}
    return next((role for role in reversed(Role) if role in found), None)


def _at(claims: Mapping[str, Any], path: Iterable[str]) -> object:
    found: object = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _read(jwks: str) -> bytes:
    if not jwks.startswith(("https://", "http://")):
        return Path(jwks).read_bytes()
    request = urllib.request.Request(jwks, headers={"accept": "application/json"})  # noqa: S310 - one of the two schemes
    try:
        with urllib.request.urlopen(request, timeout=_LONGEST_WAIT) as answer:  # noqa: S310 - one of the two schemes
            data: bytes = answer.read(_LARGEST_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    return data
