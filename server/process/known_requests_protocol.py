"""uvicorn's HTTP protocol, with a way past it for requests that came before: see `server.protocols.known_requests`."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.protocols.known_requests import WHOLE, KnownRequests

_LONG = 2**15
"""Bytes of a body that are not copied to stand behind their head."""


class KnownRequestsProtocol(HttpToolsProtocol):
    """A connection that answers known requests as they arrive, and tells the app of those that it may remember."""

    _answered_at = 0.0
    """When a known request was answered last, by the loop's clock."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._known: KnownRequests | None = getattr(self.app, "known_requests", None)

    def answer_known(self, data: bytes) -> bool:
        """Answers the data if they are a known request, which needs no waiting. No other request may be going on."""
        if self._known is None or self._is_busy():
            return False
        answer = self._known.answer(data, self.server, self.client, self.app_state)
        if answer is None:
            return False
        own = self._known.lines(self.server_state.default_headers)
        head = b"%b%b%b\r\n" % (STATUS_LINE[answer.status], own, answer.head)
        if len(answer.body) > _LONG:
            self.transport.writelines([head, answer.body])
        else:
            self.transport.write(head + answer.body)
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait(self.timeout_keep_alive)
        return True

    def offer(self, data: bytes) -> None:
        """To be called when the data were exactly one request, and its task has not begun yet."""
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and cycle.keep_alive:
            extensions: dict[str, Any] = {WHOLE: data}
            cycle.scope["extensions"] = extensions

    def timeout_keep_alive_handler(self) -> None:
        """Waits on if known requests were answered since the timer began, which is not set anew for each of them."""
        rest = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self._wait(rest)
        else:
            super().timeout_keep_alive_handler()

    def _wait(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _is_busy(self) -> bool:
        limit = self.config.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return True
        return self.flow.write_paused or self.transport.is_closing()
