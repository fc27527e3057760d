"""The token in the payload of `connection_init`: browsers can set no header of a websocket.

Clients and servers agree on no name for it. Those of Apollo's and urql's documentation, of Hasura, and of Strawberry's
are understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from server.errors import RequestError

_SCHEME = "bearer "
_HEADERS = "headers"
_HEADER = "authorization"
"""The name, in lower case, of `Bearer TOKEN`."""
_TOKENS = ("authtoken", "token")
"""The names, in lower case, of a token alone."""


def authorization_in(payload: Mapping[str, Any]) -> str | None:
    """The value for an `Authorization` header; None if the payload has no token.

    Names are read in any case. Null and the empty text count as not given: clients send them when nobody has logged in.
    Raises `RequestError` for a token that is not a text, and for two different tokens; its message has neither.
    """
    given = dict(_given(payload))
    if len(set(given.values())) > 1:
        raise RequestError(f"connection_init has different tokens in {' and '.join(given)}: send one of them.")
    return next(iter(given.values()), None)


def _given(payload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The value for the header, by the place in the payload."""
    for name, value in payload.items():
        match name.lower():
            case "headers" if isinstance(value, Mapping):
                yield from _named(value, _HEADERS + ".", (_HEADER,))
            case "headers" if value is not None:
                raise RequestError(f"{_HEADERS} of connection_init must be an object.")
    yield from _named(payload, "", (_HEADER, *_TOKENS))


def _named(values: Mapping[str, Any], path: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name.lower() not in names or value in (None, ""):
            continue
        if not isinstance(value, str):
            raise RequestError(f"{path}{name} of connection_init must be a text.")
        is_token = name.lower() in _TOKENS and not value.lower().startswith(_SCHEME)
        yield f"{path}{name}", f"Bearer {value}" if is_token else value
