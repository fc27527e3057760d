"""Requests that came before, byte for byte: answered as they arrive, without being parsed, and without a task.

The fast path remembers what it made of a request that a connection received in one piece. Nothing is decided here that
may change: who the client is, what it may still ask for, and the answer itself are found anew each time. Whatever
can't be answered at once goes through uvicorn and the fast path from its start.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.types import Scope

from schema.documents import TOKEN_BYTES
from schema.operation import Operation
from schema.roles import Role
from server.database.positions import Position
from server.database.recent import Recent
from server.middleware import SECURITY_HEADERS
from server.protocols.response_cache import CachedResponse, CacheKey, cache_key_of, lines_of
from server.protocols.service import Conditions, Question, Service
from server.request_id import REQUEST_ID, request_id_of

LOG = logging.getLogger(__name__)

WHOLE = "merlin.whole_request"
"""The extension of a scope that holds a request as it arrived, if it did in one piece, and its connection goes on."""
_MAX_BYTES = 2**23
_SCOPE_BYTES = 4_000
"""Bytes that a remembered request takes besides its own, about: they come twice, as a whole and as its headers."""


_SECURITY = lines_of(SECURITY_HEADERS)


class ParsedBody:
    """The operation and the variables that a body holds."""

    __slots__ = ("_cache_keys", "is_answered_at_once", "operation", "variables")

    def __init__(self, operation: Operation, variables: Mapping[str, Any] | None) -> None:
        self.operation = operation
        self.variables = variables
        self.is_answered_at_once = True
        """Whether it is worth trying."""
        self._cache_keys: list[tuple[Role | None, CacheKey | None]] = []
        """One key for each role that has sent it: with so few, a list is faster than a dictionary of enums."""

    def cache_key(self, role: Role | None) -> CacheKey | None:
        for known, key in self._cache_keys:
            if known is role:
                return key
        key = cache_key_of(self.operation, self.variables, role)
        self._cache_keys.append((role, key))
        return key

    @property
    def size(self) -> int:
        """Bytes of its document, about, which others may have too."""
        return TOKEN_BYTES * self.operation.counts.tokens


class KnownRequest(NamedTuple):
    """What was found of a request: all of it follows from its bytes and the address that it came to."""

    scope: Scope
    authorization: bytes | None
    parsed: ParsedBody
    conditions: Conditions
    type_line: bytes
    added_lines: bytes
    """Headers about caches, and of CORS."""


class Answer(NamedTuple):
    status: int
    head: bytes
    """Header lines, without those of the server and the empty one."""
    body: bytes


class KnownRequests:
    """The requests that are remembered, up to a number of bytes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: Recent[bytes, KnownRequest] = Recent(_MAX_BYTES)
        self._position: tuple[Position, bytes] | None = None
        self._lines: tuple[object, bytes] = None, b""
        """The server's own headers, which are others each second."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._known.size

    def learn(self, known: KnownRequest) -> None:
        """Remembers a request that the fast path has answered."""
        whole = known.scope.get("extensions", {}).get(WHOLE)
        if whole is not None and known.parsed.is_answered_at_once and self._known.get(whole) is None:
            scope = {name: value for name, value in known.scope.items() if name not in ("extensions", "state")}
            size = 2 * len(whole) + _SCOPE_BYTES + known.parsed.size
            self._known.put(whole, known._replace(scope=scope), size)

    def answer(self, whole: bytes, server: object, client: object, state: Mapping[str, Any]) -> Answer | None:
        """The answer to a request; None if it is one for the fast path, which begins anew with it."""
        known = self._known.get(whole)
        if known is None or known.scope["server"] != server or state["draining"].is_set():
            return None
        service, id_ = self._service, request_id_of(None)
        before = REQUEST_ID.set(id_)
        try:
            access, database = service.access_control, state["database"]
            identity = access.identify_sync(known.authorization, {**known.scope, "client": client})
            if identity is None or access.is_rate_limited(identity):
                return None
            parsed = known.parsed
            key = parsed.cache_key(identity.role)
            question = Question(parsed.operation, parsed.variables, key, known.conditions, database)
            response = service.at_once(question, identity)
            if response is None:
                parsed.is_answered_at_once = False
                self._known.drop(whole)
                return None
            access.consume(identity)
        except Exception:
            LOG.debug("A known request goes the usual way", exc_info=True)
            return None
        finally:
            REQUEST_ID.reset(before)
        return Answer(response.status, self._head(known, response, id_, database.position), response.body)

    def lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The lines of the server's own headers, which are another list when they change."""
        if self._lines[0] is not headers:
            self._lines = headers, lines_of(headers)
        return self._lines[1]

    def _head(self, known: KnownRequest, response: CachedResponse, id_: str, position: Position) -> bytes:
        if self._position is None or self._position[0] != position:
            self._position = position, b"x-position: %b\r\n" % str(position).encode()
        return b"%b%bx-request-id: %b\r\n%b%b%b" % (
            response.lines,
            _SECURITY,
            id_.encode(),
            self._position[1],
            b"" if response.status == HTTPStatus.NOT_MODIFIED else known.type_line,
            known.added_lines,
        )
