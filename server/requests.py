"""The parser of requests: GraphQL over HTTP, sections 4 and 5, read strictly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from server.database.json_numbers import load_exactly
from server.database.positions import Position, parse_position
from server.database.slices import in_slices
from server.errors import IllFormedRequestError, RequestError
from server.header_lists import joined, members, pieces, unquoted

MAX_BODY_SIZE = 2**20
"""Bytes."""
LONG_JSON = 2**16
"""Characters; shorter JSON takes some milliseconds at most."""
MAX_OPENINGS = 50_000
"""Lists and objects of a JSON text, brackets and braces within strings included: each takes a microsecond or two."""
MAX_PARAMETERS = 100
"""Parameters of a query string."""
MAX_KEY_LENGTH = 255
"""Characters of an idempotency key."""
MAX_MEDIA_TYPES = 100
"""Media ranges of an `Accept` header that are read."""
_PLAIN = ("", "identity")
"""The values of Content-Encoding that mean an unencoded body."""
_MAX_NAME_LENGTH = 30
"""Characters of an unknown coding that the error message repeats."""
_MAX_PIECES = 10
"""Parts of a media type that are read: the type itself, and its parameters."""


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """What a client sends for one operation: its document, or the id of one, with variables and a name."""

    query: str | None
    document_id: str | None = None
    """Of a trusted or a registered document, as it was sent; a request has `query`, or this, or both."""
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
    read_after: Position | None = None
    """The response must not be older than this state."""
    idempotency_key: str | None = None
    """A mutation that is sent again with the same key is not executed again."""
    wants_cost: bool = False
    """The response is to say what the operation costs, and what the client may still use."""

    def with_idempotency_key(self, header: str | None) -> GraphQLRequest:
        """The request with the key of its HTTP header. Raises `RequestError`."""
        if header is None:
            return self
        if self.idempotency_key not in (None, header):
            raise RequestError("Send one idempotency key: X-Idempotency-Key, or extensions.idempotencyKey.")
        return replace(self, idempotency_key=_checked_key(header, "X-Idempotency-Key"))

    def with_cost_wanted(self, header: str | None) -> GraphQLRequest:
        """The request with what its HTTP header X-Cost says. Raises `RequestError`."""
        if header is None:
            return self
        if header != "1":
            raise RequestError("X-Cost: send 1, or leave the header out.")
        return replace(self, wants_cost=True)


class BatchRequest(NamedTuple):
    """Several requests in one body."""

    members: Sequence[object]
    """The JSON of each request, not read further."""
    read_after: Position | None
    """No response must be older than this state."""


def parse_request(given: object) -> GraphQLRequest:
    """Reads the JSON of a body or of a websocket's message. Raises `RequestError`."""
    if not isinstance(given, dict):
        raise IllFormedRequestError("A request is a JSON object with the key `query`.")
    query = given.get("query")
    document_id = _document_id(given)
    if not isinstance(query, str | None) or (query is None and document_id is None):
        raise IllFormedRequestError("query: pass the GraphQL document, as a string.")
    operation_name = given.get("operationName")
    if not isinstance(operation_name, str | None):
        raise IllFormedRequestError("operationName: pass a string, or leave the key out.")
    for name in ("variables", "extensions"):
        if not isinstance(given.get(name), dict | None):
            raise IllFormedRequestError(f"{name}: pass an object, or leave the key out.")
    extensions = given.get("extensions") or {}
    return GraphQLRequest(
        query,
        document_id,
        given.get("variables"),
        operation_name or None,
        _read_after(extensions),
        _idempotency_key(extensions),
        _wants_cost(extensions),
    )


def _read_after(extensions: Mapping[str, Any]) -> Position | None:
    text = extensions.get("readAfter")
    return None if text is None else read_position(text, "extensions.readAfter")


def read_position(text: object, what: str) -> Position:
    """`what` names it in the message of the error. Raises `RequestError`."""
    try:
        return parse_position(text if isinstance(text, str) else "")
    except ValueError as error:
        raise RequestError(f"{what}: {error}.") from None


def _idempotency_key(extensions: Mapping[str, Any]) -> str | None:
    key = extensions.get("idempotencyKey")
    return None if key is None else _checked_key(key, "extensions.idempotencyKey")


def _wants_cost(extensions: Mapping[str, Any]) -> bool:
    wanted = extensions.get("cost", False)
    if not isinstance(wanted, bool):
        raise RequestError("extensions.cost: pass true, or leave the key out.")
    return wanted


def _checked_key(key: object, what: str) -> str:
    """Raises `RequestError`."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
        raise RequestError(f"{what}: pass a string of 1 to {MAX_KEY_LENGTH} characters, new for each mutation.")
    return key


def _document_id(given: Mapping[str, Any]) -> str | None:
    """The document's id: as GraphQL over HTTP has it, as Relay's examples, or as automatic persisted queries."""
    for name in ("documentId", "doc_id"):
        if (id_ := given.get(name)) is not None:
            if not isinstance(id_, str):
                raise IllFormedRequestError(f"{name}: pass the document's id, as a string.")
            return id_
    extensions = given.get("extensions")
    persisted = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    match persisted:
        case None:
            return None
        case {"version": 1, "sha256Hash": str(id_)}:
            return id_
        case _:
            raise IllFormedRequestError('extensions.persistedQuery: pass {"version": 1, "sha256Hash": "…"}.')


def parse_parameters(parameters: QueryParams) -> GraphQLRequest:
    """Reads the parameters of a URL, where `variables` and `extensions` are JSON. Raises `RequestError`."""
    given: dict[str, Any] = dict(parameters)
    for name in ("variables", "extensions"):
        if text := given.pop(name, None):
            given[name] = parse_json(text, name)
    return parse_request(given)


def parse_json(text: bytes | str, what: str) -> Any:
    """Parses JSON; `what` names it in the message of the error. Raises `RequestError`."""
    openings = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if openings > MAX_OPENINGS:
        raise RequestError(f"{what}: send at most {MAX_OPENINGS} lists and objects at once, not {openings}.")
    try:
        return load_exactly(text)
    except ValueError as error:  # also where it is nested too deeply
        raise RequestError(f"{what}: this is not valid JSON: {error}.") from None


async def parse_long_json(text: bytes | str, what: str, turn: Callable[[], Awaitable[None]]) -> Any:
    """As `parse_json`, in slices if it is long; `turn` is awaited before each. Raises `RequestError`."""
    if len(text) <= LONG_JSON:
        return parse_json(text, what)
    return await in_slices(partial(parse_json, text, what), turn)


async def read_request(
    request: Request, turn: Callable[[], Awaitable[None]], *, get_queries: bool = True
) -> GraphQLRequest | BatchRequest:
    """Reads the parameters of a GET request, or the body of a POST request: an array is a batch. Raises `RequestError`.

    A long body is read in slices; `turn` is awaited before each.
    """
    after = request.headers.get("x-read-after")
    position = None if after is None else read_position(after, "X-Read-After")
    match request.method:
        case "GET" | "HEAD" if get_queries:
            parsed = parse_parameters(request.query_params)
        case "POST":
            check_content_type(joined(request.headers, "content-type") or "")
            given = await parse_long_json(await read_body(request, MAX_BODY_SIZE), "body", turn)
            if isinstance(given, list):
                return BatchRequest(given, position)
            parsed = parse_request(given)
        case _:
            allowed, methods = ("GET, HEAD, POST", "GET or POST") if get_queries else ("POST", "POST")
            raise RequestError(f"Send {methods}.", 405, {"allow": allowed})
    return parsed if position is None else replace(parsed, read_after=position)


def check_parameters(query: bytes) -> None:
    """Refuses too many parameters before they are parsed, which takes time for each. Raises `RequestError`."""
    if query.count(b"&") >= MAX_PARAMETERS:
        raise RequestError(f"Send at most {MAX_PARAMETERS} parameters.")


def accepted(header: str | None, offered: Sequence[str]) -> str:
    """The offered media type that a client prefers: RFC 9110, section 12.5.1. Raises `RequestError`."""
    best = _preferred(_qualities(header or "*/*"), offered)
    if best is None:
        raise RequestError(f"Accept one of {', '.join(offered)}.", 406)
    return best


def named(header: str | None, offered: Sequence[str]) -> str | None:
    """As `accepted`, but None if the client accepts it only as anything, by `*/*`. Raises `RequestError`."""
    return _preferred({name: quality for name, quality in _qualities(header or "").items() if name != "*/*"}, offered)


def _preferred(qualities: Mapping[str, float], offered: Sequence[str]) -> str | None:
    best, best_quality = None, 0.0
    for media_type in offered:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")  # the most specific one counts
        quality = next((qualities[name] for name in ranges if name in qualities), 0.0)
        if quality > best_quality:
            best, best_quality = media_type, quality
    return best


def _qualities(header: str) -> Mapping[str, float]:
    """The quality of each media range; if one is repeated, the first counts. Raises `RequestError`."""
    ranges = list(islice(media_ranges(header), MAX_MEDIA_TYPES + 1))
    if len(ranges) > MAX_MEDIA_TYPES:
        raise RequestError(f"Accept: name at most {MAX_MEDIA_TYPES} media types.", 406)
    qualities: dict[str, float] = {}
    for name, *parameters in ranges:
        qualities.setdefault(name, _number(next((text[2:] for text in parameters if text.startswith("q=")), "1")))
    return qualities


def media_ranges(header: str) -> Iterator[list[str]]:
    """The name of each media range of an `Accept` header, followed by its parameters, in small letters."""
    return map(_pieces, members(header))


def _pieces(media_type: str) -> list[str]:
    return [piece.lower() for piece in islice(pieces(media_type), _MAX_PIECES)]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def check_content_type(header: str) -> None:
    """Raises `RequestError` unless a body of this content type is JSON in UTF-8."""
    name, *parameters = _pieces(header)
    charset = next((unquoted(text[8:]) for text in parameters if text.startswith("charset=")), "utf-8")
    if name != "application/json" or charset not in ("utf-8", "utf8"):
        raise RequestError(
            "Send the content type application/json, in UTF-8.", 415, {"accept-post": "application/json"}
        )


async def read_body(request: Request, max_size: int) -> bytes:
    """The body, of at most `max_size` bytes; the connection enforces the time limit. Raises `RequestError`."""
    coding = next(
        (it for it in members(joined(request.headers, "content-encoding") or "") if it.lower() not in _PLAIN), ""
    )
    if coding:
        raise RequestError(
            f"Send the body without Content-Encoding: {coding[:_MAX_NAME_LENGTH]} is not supported.",
            415,
            {"accept-encoding": "identity"},
        )
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_size:
                raise RequestError(f"Send at most {max_size} bytes.", 413, {"connection": "close"})
    except ClientDisconnect:
        raise RequestError("The body did not arrive.", 408, {"connection": "close"}) from None
    return bytes(body)
