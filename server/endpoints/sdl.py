"""The endpoint /schema.graphql: the schema as text, with an ETag."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from schema.roles import Role
from server.auth.access_control import AccessControl
from server.auth.identity import AuthenticationError
from server.auth.visitor import visitor_of
from server.errors import RequestError
from server.header_lists import joined
from server.protocols.response_cache import is_known
from server.responses import refused, unauthenticated


def sdl_endpoint(sdl: str, access_control: AccessControl) -> Any:
    etag = f'"{hashlib.sha256(sdl.encode()).hexdigest()}"'

    async def schema_text(request: Request) -> Response:
        try:
            access_control.check_role(access_control.authenticate(visitor_of(request.scope)), Role.READ, "The schema")
        except AuthenticationError as error:
            return unauthenticated(error)
        except RequestError as error:
            return refused(error)
        headers = {"etag": etag, "cache-control": "no-cache"}
        if is_known(etag, joined(request.headers, "if-none-match")):
            return Response(status_code=304, headers=headers)
        return PlainTextResponse(sdl, headers=headers)

    return schema_text
