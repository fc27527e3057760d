"""JSON Web Tokens of a site's identity provider, verified by the keys that it publishes (RFC 7517, 7519, 8725).

A token is verified with the keys in memory, or refused, without waiting: keys are read in the background only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.exceptions import ExpiredSignatureError, InvalidTokenError, PyJWTError

from schema.roles import Role
from server.auth.authenticator import KEY, ProviderError
from server.auth.identity import Credential, Identity, expired, invalid
from server.database.recent import Recent
from server.http_client import SCHEMES, FetchError, begin_to_fetch

LOG = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric algorithms only: a public key must never be accepted as a shared secret (RFC 8725, section 2.1)."""
LEEWAY = 30
"""Seconds that the clocks may differ."""
MIN_RSA_BITS = 2_048
"""RFC 7518, section 3.3."""
_REFRESH_INTERVAL = 300.0
"""Seconds until the keys are fetched again if no token named an unknown key."""
_MIN_REFRESH_INTERVAL = 60.0
"""Seconds between two fetches, however many unknown keys tokens name."""
_FILE_CHECK_INTERVAL = 0.5
"""Seconds between two checks whether the file has changed."""
_TIMEOUT = 5.0
"""Seconds for a whole response of the provider."""
_MAX_RESPONSE_SIZE = 2**20
_MAX_BYTES = 2**21
"""Of verified tokens."""
_CREDENTIAL_BYTES = 1_000
"""Bytes that what is known of a token takes, about."""
_CACHE_SECONDS = 60.0
"""How long a verified token is accepted without verifying it again."""
_MAX_NAME_LENGTH = 255
"""Characters of a `sub`: OpenID Connect Core, section 2."""
_PREFIX = "merlin-graphql:"
_THUMBPRINT_MEMBERS = ("crv", "e", "kty", "n", "x", "y")


_MAX_UNKNOWN_KEYS = 1_000
"""Ids of unknown keys that are remembered."""


class _Key(NamedTuple):
    key: jwt.PyJWK
    thumbprint: str
    """RFC 7638. A key's id does not identify it: providers may reuse an id."""


class IdentityProvider:
    """Verifies the tokens of an identity provider."""

    def __init__(self, jwks: str, *, issuer: str | None, audience: str | None, roles_claim: str) -> None:
        """`jwks`: a file or a URL. `roles_claim`: the path of a claim, such as `realm_access.roles`."""
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim.split(".")
        self._keys: Mapping[str | None, _Key] = {}
        self._thumbprints: frozenset[str] = frozenset()
        self._seen: tuple[int, ...] = ()
        self._fetching: Future[bytes] | None = None
        self._unknown_key = asyncio.Event()
        """Set when a token named an unknown key."""
        self._unknown_since: dict[int, float] = {}
        """When a token first named an unknown key, by the hash of its id; on the clock of `time.monotonic`."""
        self._read_at = 0.0
        """When the last successful fetch of the keys began, on the same clock."""
        self._asked = asyncio.Event()
        """Set when the keys are to be read at once."""
        self._known: Recent[str, tuple[float, Credential]] = Recent(_MAX_BYTES)
        self.version = 0
        """Counts up whenever the set of keys changes."""

    async def open(self) -> None:
        """Reads the keys. Raises `ProviderError`."""
        if self._is_url:
            await self._load_url()
        else:
            self._load_file()

    async def follow(self) -> None:
        """Reads the keys again and again, until cancelled. While they are not available, the old ones stay valid."""
        while True:
            if self._is_url:
                await _wait_for(self._asked, _MIN_REFRESH_INTERVAL)
                await _wait_for(self._unknown_key, _REFRESH_INTERVAL - _MIN_REFRESH_INTERVAL)
            else:
                await asyncio.sleep(_FILE_CHECK_INTERVAL)
            try:
                if self._is_url:
                    await self._load_url()
                else:
                    self._load_file()
            except ProviderError as error:
                LOG.warning("%s The keys that were read before stay valid.", error)

    def reload(self) -> None:
        """Has `follow` read the keys at once; a file within `_FILE_CHECK_INTERVAL`."""
        self._seen = ()
        self._asked.set()
        self._unknown_key.set()

    def known(self, token: str) -> Credential | None:
        """The credential of a token that was verified less than `_CACHE_SECONDS` ago; else None."""
        found = self._known.get(token)
        if found is None or found[0] < time.time():
            return None
        return found[1]

    def identify(self, token: str) -> Credential:
        """Verifies a token. Raises `AuthenticationError`."""
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key.key.key,
                algorithms=[key.key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
            name, expires = _name_in(claims), float(claims["exp"]) + LEEWAY
        except ExpiredSignatureError:
            raise expired() from None
        except (InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            LOG.info("A token was refused: %s", type(error).__name__)  # not the message, which may quote the client
            raise invalid() from None
        identity = Identity(name, role_of(_at(claims, self._roles_claim)), expires)
        credential = Credential(identity, KEY + key.thumbprint)
        until = min(time.time() + _CACHE_SECONDS, expires)
        self._known.put(token, (until, credential), len(token) + _CREDENTIAL_BYTES)
        return credential

    def still(self, credential: Credential) -> Identity:
        """The identity, if it has not expired and the provider still has the key. Raises `AuthenticationError`."""
        if credential.proof.removeprefix(KEY) not in self._thumbprints:
            raise invalid("The key of this token is no longer valid: log in again.")
        if credential.identity.expires is not None and credential.identity.expires <= time.time():
            raise expired()
        return credential.identity

    @property
    def size(self) -> int:
        """Bytes, about, of the verified tokens that are remembered."""
        return self._known.size

    @property
    def proofs(self) -> Iterable[str]:
        return [KEY + thumbprint for thumbprint in self._thumbprints]

    @property
    def _is_url(self) -> bool:
        return self._jwks.startswith(SCHEMES)

    def _key(self, id_: object) -> _Key:
        """Raises `InvalidTokenError`; `AuthenticationError` as long as the provider may have the key."""
        key = self._keys.get(id_ if isinstance(id_, str) else None)
        if key is None:
            self._unknown_key.set()
            if self._is_url and self._may_come(id_):
                raise invalid("The key of this token is not known here yet: try again in a minute.", may_pass=True)
            raise InvalidTokenError
        return key

    def _may_come(self, id_: object) -> bool:
        """Whether the keys have not been read since a token first named this unknown one."""
        now, name = time.monotonic(), hash(str(id_))
        if len(self._unknown_since) >= _MAX_UNKNOWN_KEYS:
            self._unknown_since.clear()
        since = self._unknown_since.setdefault(name, now)
        if now - since > _REFRESH_INTERVAL and since < self._read_at:  # the provider may have it by now
            since = self._unknown_since[name] = now
        return since >= self._read_at

    async def _load_url(self) -> None:
        """Raises `ProviderError`."""
        began = time.monotonic()
        self._load(await self._fetched())
        self._read_at = began

    async def _fetched(self) -> bytes:
        """Raises `ProviderError`."""
        if self._fetching is not None and not self._fetching.done():
            raise ProviderError(f"Can't read the keys {self._jwks}: the request before has not ended yet.")
        self._fetching = begin_to_fetch(self._jwks, {}, seconds=_TIMEOUT, largest=_MAX_RESPONSE_SIZE)
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.wrap_future(self._fetching)
        except TimeoutError:
            raise ProviderError(f"Can't read the keys {self._jwks}: it took longer than {_TIMEOUT:g} s.") from None
        except FetchError as error:
            raise ProviderError(f"Can't read the keys {error}") from None

    def _load_file(self) -> None:
        """Reads the file if it has changed. Raises `ProviderError`."""
        try:
            status = Path(self._jwks).stat()
            seen = status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size
            if seen == self._seen:
                return
            with Path(self._jwks).open("rb") as file:
                text = file.read(_MAX_RESPONSE_SIZE)
        except OSError as error:
            raise ProviderError(f"Can't read the keys {self._jwks}: {error.strerror}.") from None
        self._seen = seen
        self._load(text)

    def _load(self, text: bytes) -> None:
        """Parses a key set and replaces the keys. Raises `ProviderError`."""
        try:
            found = [(data.get("kid"), _key_of(data)) for data in json.loads(text)["keys"]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ProviderError(f"Can't read the keys {self._jwks}: it is not a JSON Web Key Set.") from None
        keys = {id_ if isinstance(id_, str) else None: key for id_, key in found if key is not None}
        if not keys:
            raise ProviderError(
                f"Can't read the keys {self._jwks}: none of them can be used; RSA keys need {MIN_RSA_BITS} bits."
            )
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))  # tokens need not name the only key
        thumbprints = frozenset(key.thumbprint for key in keys.values())
        if len(found) > len(thumbprints) and thumbprints != self._thumbprints:
            LOG.warning(
                "Of the %d keys in %s only %d can be used: see docs/security.md.",
                len(found),
                self._jwks,
                len(thumbprints),
            )
        if thumbprints != self._thumbprints:
            self.version += 1
        self._keys, self._thumbprints = keys, thumbprints


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Waits until an event is set, at most so long, and clears it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


def _key_of(data: Mapping[str, Any]) -> _Key | None:
    """None for a key that must not verify tokens: another use, an algorithm not in `ALGORITHMS`, too short."""
    if data.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK.from_dict(dict(data))
    except (PyJWTError, ValueError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    members = {name: data[name] for name in _THUMBPRINT_MEMBERS if name in data}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return _Key(key, base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode())


def role_of(claim: object) -> Role | None:
    """The highest role in a claim: a list of names, or a text with blanks between them.

    Case does not matter, and a name may have a prefix, as in `merlin-graphql:read`.
    """
    names: Iterable[object] = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    found = {str(name).removeprefix(_PREFIX).upper() for name in names}
    return next((role for role in reversed(Role) if role in found), None)


def _name_in(claims: Mapping[str, Any]) -> str:
    """The `sub` with a prefix, so that it can't be the name of a token in the token file. Raises `ValueError`."""
    name = str(claims.get("sub", ""))
    if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError
    return f"jwt:{name}"


def _at(claims: Mapping[str, Any], path: Iterable[str]) -> object:
    found: object = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found
