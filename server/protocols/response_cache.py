"""The cache of responses: each belongs to one content of the database, and has an ETag, equal at all of its servers.

There is no time to live. A response is valid until the database's state changes; one that depends on the clock is not
cached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

import orjson

from schema.operation import Operation, Scope
from schema.roles import Role
from schema.scopes import with_filters
from server.database.merlin_database import State
from server.database.recent import Recent
from server.header_lists import tags

_Version: TypeAlias = tuple[object, ...]

_OVERHEAD = 600
"""Bytes that a cached response takes besides its body and its place in the cache, about."""


class CacheKey(NamedTuple):
    digest: str
    """Of the operation, its variables and the role."""
    scope: Scope

    def version(self, state: State) -> _Version:
        """What the response depends on, of a state."""
        match self.scope:
            case Scope.CONTENT:
                return (state.content,)
            case Scope.REVISION:
                return (state.content, state.revision)
            case _:
                return state


def cache_key_of(operation: Operation, variables: Mapping[str, Any] | None, role: Role | None) -> CacheKey | None:
    """The key of a response: all that it depends on besides the database.

    None if the response also depends on the clock or the client, or the variables can't be encoded.
    """
    if operation.scope in (Scope.CLOCK, Scope.CLIENT):
        return None
    try:
        given = orjson.dumps(variables or {}, option=orjson.OPT_SORT_KEYS)
        parts = (operation.text.encode(), (operation.name or "").encode(), given, (role or "").encode())
    except (TypeError, UnicodeEncodeError):  # numbers beyond 64 bits, lone surrogates
        return None
    sized = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    scope = with_filters(operation.scope, given.decode()) if variables else operation.scope
    return CacheKey(hashlib.blake2b(sized, digest_size=16).hexdigest(), scope)


@dataclass(slots=True)
class CachedResponse:
    """A response as it is sent, whether it came from the cache or not."""

    status: int
    body: bytes
    etag: str | None
    """None if the response can't be revalidated."""
    cost: int = 0
    has_errors: bool = False
    headers: list[tuple[bytes, bytes]] = field(init=False)
    """Content-Length and ETag."""
    lines: bytes = field(init=False)
    """The same as HTTP/1.1 has them."""

    def __post_init__(self) -> None:
        self.headers = [] if self.status == HTTPStatus.NOT_MODIFIED else [(b"content-length", b"%d" % len(self.body))]
        if self.etag is not None:
            self.headers.append((b"etag", self.etag.encode()))
        self.lines = lines_of(self.headers)


def lines_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The header lines of HTTP/1.1."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class ResponseCache:
    """Responses of one content of the database, up to a number of bytes; another content empties it."""

    def __init__(self, max_bytes: int, settings: str = "") -> None:
        """`settings`: those that responses depend on. Only servers with equal ones give equal ETags."""
        self._settings = settings
        self._kept: Recent[tuple[str, _Version], CachedResponse] = Recent(max_bytes)
        """The responses by the digests and versions of their keys."""
        self._content: str | None = None
        """The content that all cached responses belong to."""

    def etag(self, key: CacheKey, state: State) -> str:
        """RFC 9110, section 8.8.3; weak, since it names the state and not the bytes. All servers of a database agree.

        There is no secret in it that all servers would have to share. Only a client that can read the whole database
        could compute one, and with it deceives nobody but itself: a 304 holds nothing, and nothing is executed for it.
        """
        named = repr((self._settings, key.version(state), key.digest)).encode(errors="surrogatepass")
        return f'W/"{hashlib.blake2b(named, digest_size=16).hexdigest()}"'

    def find(self, key: CacheKey, state: State, if_none_match: str | None = None) -> CachedResponse | None:
        """A response that needs no execution: 304 if the client has it already, or the cached one.

        A client knows the ETag from a response, of this server or of another one: so that response exists. `*` matches
        any response, so it needs a cached one: the operation may be refused or fail.
        """
        if if_none_match is not None and _has_tag(if_none_match, etag := self.etag(key, state)):
            return CachedResponse(304, b"", etag)
        if state.content != self._content:
            self._begin(state)
            return None
        kept = self._kept.get((key.digest, key.version(state)))
        return None if kept is None else _unless_known(kept, if_none_match)

    def put(
        self, key: CacheKey, state: State, answer: bytes, cost: int, if_none_match: str | None = None
    ) -> CachedResponse:
        """Caches an answer that was computed from this state, and returns its response."""
        return _unless_known(self._put(key, state, answer, cost), if_none_match)

    def _put(self, key: CacheKey, state: State, answer: bytes, cost: int) -> CachedResponse:
        if state.content != self._content:
            self._begin(state)
        named = key.digest, key.version(state)
        kept = self._kept.get(named)
        if kept is not None:
            return kept
        answer = bytes(memoryview(answer))  # in memory of its own size: orjson leaves the rest of its buffer behind it
        reply = CachedResponse(200, answer, self.etag(key, state), cost)
        self._kept.put(named, reply, len(answer) + _OVERHEAD)
        return reply

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._kept.size

    def _begin(self, state: State) -> None:
        self._kept.clear()
        self._content = state.content


def is_known(etag: str, if_none_match: str | None) -> bool:
    """RFC 9110, section 13.1.2: compared weakly."""
    if if_none_match is None:
        return False
    return if_none_match.strip(" \t") == "*" or _has_tag(if_none_match, etag)


def _has_tag(if_none_match: str, etag: str) -> bool:
    plain = etag.removeprefix("W/")
    return any(tag.removeprefix("W/") == plain for tag in tags(if_none_match))


def _unless_known(reply: CachedResponse, if_none_match: str | None) -> CachedResponse:
    if reply.etag is None or not is_known(reply.etag, if_none_match):
        return reply
    return CachedResponse(304, b"", reply.etag, reply.cost)
