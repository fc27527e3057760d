"""The type Viewer: what the client that asks may do."""

from __future__ import annotations

import strawberry

from schema.roles import Role


@strawberry.type(description="Who asks, as far as this server knows.")
class Viewer:
    roles: list[Role] = strawberry.field(description="What the viewer may do, the least first.")
