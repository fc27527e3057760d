"""Tracing: spans by OpenTelemetry where its extra is installed and it is switched on, else nothing.

The endpoint of the spans, and the name of this server, are set by OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from server.errors import UsageError

Attributes = Mapping[str, str | int]


class TracingError(UsageError):
    """Tracing is not available. The message is one line."""


class Tracing(Protocol):
    is_on: bool

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """The span of a request, a child of the client's span if it sends one (`traceparent`)."""
        ...

    def step(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """A span within the current one."""
        ...

    def close(self) -> None:
        """Sends the spans that are left."""
        ...


class NoTracing:
    is_on = False

    def request(self, _name: str, _headers: Mapping[str, str]) -> AbstractContextManager[None]:
        return nullcontext()

    def step(self, _name: str, _attributes: Attributes) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass


def open_tracing(*, is_on: bool) -> Tracing:
    """The tracing that is switched on, or one that does nothing. Raises `TracingError`."""
    if not is_on:
        return NoTracing()
    try:
        from server.observability.otel import OpenTelemetry, exporting  # noqa: PLC0415 - an extra
    except ImportError:
        raise TracingError("tracing: install merlin-graphql[tracing] to use it.") from None
    return OpenTelemetry(exporting())
