"""The cache of responses: each belongs to one revision of the database, and has an ETag.

There is no time to live. A response is valid until the database's state changes; one that depends on the clock is not
cached.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeAlias

import orjson

from schema.operation import Operation
from schema.roles import Role
from server.header_lists import tags

State: TypeAlias = tuple[int, int, datetime | None]
"""`MerlinDatabase.state`."""

_MAX_SHARE = 8
"""One response may take at most this fraction, 1/8, of the cache."""
_OVERHEAD = 250
"""Bytes that a cached response takes besides its body, about."""


def cache_key_of(operation: Operation, variables: Mapping[str, Any] | None, role: Role | None) -> str | None:
    """A digest of the operation, its variables and the role: all that a response depends on besides the database.

    None if the response also depends on the clock, or the variables can't be encoded.
    """
    if not operation.is_cacheable:
        return None
    try:
        given = orjson.dumps(variables or {}, option=orjson.OPT_SORT_KEYS)
        parts = (operation.text.encode(), (operation.name or "").encode(), given, (role or "").encode())
    except (TypeError, UnicodeEncodeError):  # numbers beyond 64 bits, lone surrogates
        return None
    sized = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hashlib.blake2b(sized, digest_size=16).hexdigest()


@dataclass(slots=True)
class CachedResponse:
    """A response as it is sent, whether it came from the cache or not."""

    status: int
    body: bytes
    etag: str | None
    """None if the response can't be revalidated."""
    cost: int = 0
    headers: list[tuple[bytes, bytes]] = field(init=False)
    """Content-Length and ETag."""

    def __post_init__(self) -> None:
        self.headers = [] if self.status == HTTPStatus.NOT_MODIFIED else [(b"content-length", b"%d" % len(self.body))]
        if self.etag is not None:
            self.headers.append((b"etag", self.etag.encode()))


class ResponseCache:
    """Responses of one state of the database, up to a number of bytes; a new state empties it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, CachedResponse] = OrderedDict()
        """The responses by `cache_key_of`."""
        self._size = 0
        self._state: State | None = None
        """The state that all cached responses belong to."""
        self._key = secrets.token_bytes(32)
        """Signs the ETags, since revisions start again in each process."""

    def etag(self, key: str, state: State) -> str:
        """RFC 9110, section 8.8.3; weak, since it names the state and not the bytes. Clients can't forge one."""
        revision, notices, stale_since = state
        stale = "" if stale_since is None else f".{stale_since.timestamp()}"
        named = f"{revision}.{notices}{stale}.{key}".encode()
        return f'W/"{hashlib.blake2b(named, digest_size=16, key=self._key).hexdigest()}"'

    def find(self, key: str, state: State, if_none_match: str | None = None) -> CachedResponse | None:
        """A response that needs no execution: 304 if the client has it already, or the cached one.

        Only a client that got a response knows its ETag, so a matching one proves that the response exists. `*` matches
        any response, so it needs a cached one: the operation may be refused or fail.
        """
        if if_none_match is not None and _has_tag(if_none_match, etag := self.etag(key, state)):
            return CachedResponse(304, b"", etag)
        if state != self._state:
            self._begin(state)
            return None
        kept = self._kept.get(key)
        return None if kept is None else _unless_known(kept, if_none_match)

    def put(self, key: str, state: State, answer: bytes, cost: int, if_none_match: str | None = None) -> CachedResponse:
        """Caches an answer that was computed from this state, and returns its response."""
        return _unless_known(self._put(key, state, answer, cost), if_none_match)

    def _put(self, key: str, state: State, answer: bytes, cost: int) -> CachedResponse:
        if state != self._state:
            self._begin(state)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        reply = CachedResponse(200, answer, self.etag(key, state), cost)
        size = len(answer) + _OVERHEAD
        if size <= self._max_bytes // _MAX_SHARE:
            self._kept[key] = reply
            self._size += size
            self._make_room()
        return reply

    def _make_room(self) -> None:
        """The oldest goes first."""
        while self._size > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest.body) + _OVERHEAD

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._size

    def _begin(self, state: State) -> None:
        self._kept.clear()
        self._size = 0
        self._state = state


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
