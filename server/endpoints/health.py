"""The endpoints /healthz, /readyz and /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from schema.roles import Role
from server.auth.access_control import AccessControl
from server.auth.identity import AuthenticationError
from server.auth.visitor import visitor_of
from server.database.merlin_database import MerlinDatabase
from server.errors import RequestError
from server.observability.metrics import CONTENT_TYPE, Metrics
from server.responses import json_response, refused, unauthenticated

HEALTH_PATHS = frozenset({b"/healthz", b"/readyz", b"/metrics"})
"""These are answered even if there are too many connections."""
_NO_STORE = {"cache-control": "no-store"}


async def healthz(_request: Request) -> Response:
    """Says that the process responds."""
    return json_response({"status": "ok"}, headers=_NO_STORE)


async def readyz(request: Request) -> Response:
    """200 if the copy has every change of the database, or is about to; 503 if it is stale, or the server is draining.

    Its body says so where changes are polled for, and since when the database pauses.
    `/readyz?writes` is 503 also while the database refuses writes.
    """
    database: MerlinDatabase = request.state.database
    since = database.stale_since
    status: dict[str, object] = {"status": "ready", "revision": database.revision}
    if database.backend.is_polling:
        status["changes"] = "polled"
    if request.state.draining.is_set():
        status["status"] = "draining"
    elif database.is_lost:
        status["status"] = "stale"
    elif database.write_refusal is not None and "writes" in request.query_params:
        status["status"] = "refusing writes"
    if since is not None:
        status["staleSince"] = since.isoformat()
    if database.write_refusal is not None:
        status["writeRefusal"] = database.write_refusal
    return json_response(status, 200 if status["status"] == "ready" else 503, _NO_STORE)


class MetricsApp:
    """Serves the metrics to clients with the role READ, without a rate limit."""

    def __init__(self, metrics: Metrics, access_control: AccessControl) -> None:
        self._metrics = metrics
        self._access_control = access_control

    async def respond(self, request: Request) -> Response:
        try:
            self._access_control.check_role(
                self._access_control.identify(visitor_of(request.scope)), Role.READ, "/metrics"
            )
        except AuthenticationError as error:
            return unauthenticated(error)
        except RequestError as error:
            return refused(error)
        return Response(self._metrics.text(), headers=_NO_STORE | {"content-type": CONTENT_TYPE})
