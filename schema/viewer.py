"""The type Viewer: what the client that asks may do."""

from __future__ import annotations

import strawberry

from schema.roles import Role


@strawberry.type(description="The client that sends the operation, as far as this server knows it.")
class Viewer:
    roles: list[Role] = strawberry.field(description="The roles of the viewer, the lowest first.")
