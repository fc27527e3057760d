"""GraphQL over `multipart/mixed`: each answer is a part of one response, as RFC 2046 frames it.

Apollo's clients name their protocol for subscriptions in `Accept`, by the parameter `subscriptionSpec`: there each
answer is a `payload`, and `{}` is a heartbeat
(https://www.apollographql.com/docs/graphos/routing/operations/subscriptions/multipart-protocol). Other clients get the
answers themselves. A response without its last boundary is incomplete: the client is to subscribe again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from schema.encoding import encode_json
from server.protocols.stream import Errors, Framing
from server.requests import MAX_MEDIA_TYPES, media_ranges

MEDIA_TYPE = "multipart/mixed"

_PARAMETER = "subscriptionspec"
_CONTENT_TYPE = f"{MEDIA_TYPE};boundary=graphql"
_BOUNDARY = b"\r\n--graphql"
_HEAD = b"\r\ncontent-type: application/json\r\n\r\n"
_LAST = b"--\r\n"
"""What makes a boundary the last one."""


@dataclass(frozen=True, slots=True)
class ApolloParts:
    """The framing of Apollo's protocol for subscriptions.

    The errors of the operation are those of a `payload`. Those that end a stream stand beside a `payload` of null, and
    Apollo's RetryLink subscribes again then.
    """

    content_type: str = f"{_CONTENT_TYPE};subscriptionSpec=1.0"
    opening: bytes = _BOUNDARY + _HEAD + b"{}" + _BOUNDARY
    heartbeat: bytes = _HEAD + b"{}" + _BOUNDARY
    end: bytes = _LAST

    def answer(self, encoded: bytes) -> bytes:
        return _HEAD + b'{"payload":%b}' % encoded + _BOUNDARY

    def refusal(self, errors: Errors) -> bytes:
        return self.answer(encode_json({"errors": errors})) + self.end

    def failure(self, errors: Errors, *, try_again: bool) -> bytes:  # noqa: ARG002 - a client may always
        return _HEAD + encode_json({"payload": None, "errors": errors}) + _BOUNDARY + self.end


@dataclass(frozen=True, slots=True)
class Parts:
    """The framing for other clients of a subscription: the last part says `hasNext: false`.

    The head of a part is sent before its content is there: blanks before the content are the heartbeats, which JSON
    allows, and no client takes for an answer.
    """

    content_type: str = _CONTENT_TYPE
    opening: bytes = _BOUNDARY + _HEAD
    heartbeat: bytes = b" "
    end: bytes = b'{"hasNext":false}' + _BOUNDARY + _LAST

    def answer(self, encoded: bytes) -> bytes:
        return encoded + _BOUNDARY + _HEAD

    def refusal(self, errors: Errors) -> bytes:
        return self.failure(errors, try_again=False)

    def failure(self, errors: Errors, *, try_again: bool) -> bytes:
        if try_again:
            return encode_json({"errors": errors}) + _BOUNDARY
        return encode_json({"errors": errors, "hasNext": False}) + _BOUNDARY + _LAST


@dataclass(frozen=True, slots=True)
class OnePart:
    """The framing of a query or a mutation, whose one answer is the whole of it, also of what is deferred."""

    content_type: str = _CONTENT_TYPE
    opening: bytes = _BOUNDARY + _HEAD
    heartbeat: bytes = b" "
    end: bytes = b""
    """The answer itself is the last part."""

    def answer(self, encoded: bytes) -> bytes:
        return encoded[:-1] + b',"hasNext":false}' + _BOUNDARY + _LAST

    def refusal(self, errors: Errors) -> bytes:
        return self.answer(encode_json({"errors": errors}))

    def failure(self, errors: Errors, *, try_again: bool) -> bytes:  # noqa: ARG002 - the answer was the last part
        return self.end


def parts_for(accept: str | None, *, is_subscription: bool) -> Framing:
    """The framing that a client understands."""
    if is_subscription:
        return ApolloParts() if names_subscriptions(accept) else Parts()
    return OnePart()


def names_subscriptions(accept: str | None) -> bool:
    """Whether a header `Accept` names Apollo's protocol: only the request of a subscription does."""
    if accept is None or _PARAMETER not in accept.lower():
        return False
    for name, *parameters in islice(media_ranges(accept), MAX_MEDIA_TYPES):
        if name == MEDIA_TYPE and any(parameter.startswith(f"{_PARAMETER}=") for parameter in parameters):
            return True
    return False
