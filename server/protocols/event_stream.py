"""GraphQL over server-sent events, in the distinct connections mode: one operation, one response.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md names the events.
"""

from __future__ import annotations

from dataclasses import dataclass

from schema.encoding import encode_json
from server.protocols.stream import Errors

MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class EventStream:
    """The framing of events: `complete` is the last one, unless the client is to connect again by itself."""

    content_type: str = f"{MEDIA_TYPE}; charset=utf-8"
    opening: bytes = b":\n\n"
    heartbeat: bytes = b":\n\n"
    end: bytes = b"event: complete\ndata: \n\n"

    def answer(self, encoded: bytes) -> bytes:
        return b"event: next\ndata: %b\n\n" % encoded

    def refusal(self, errors: Errors) -> bytes:
        return self.failure(errors, try_again=False)

    def failure(self, errors: Errors, *, try_again: bool) -> bytes:
        return self.answer(encode_json({"errors": errors})) + (b"" if try_again else self.end)
