"""The two scalars of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NewType

from strawberry.schema.types.base_scalars import wrap_parser
from strawberry.types.scalar import ScalarDefinition, scalar

JSON = NewType("JSON", object)


def _instant(text: str) -> datetime:
    """An instant without an offset is taken as UTC: what the server's time zone is, a client can't know."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


SCALARS: Mapping[object, ScalarDefinition] = {
    JSON: scalar(
        name="JSON",
        description="Any JSON value, passed through as stored.",
        specified_by_url="https://ecma-international.org/publications-and-standards/standards/ecma-404/",
    ),
    datetime: scalar(
        name="DateTime",
        description=(
            "An ISO-8601 instant with an offset. "
            "Merlin stores naive local times: they are read in the server's configured time zone."
        ),
        specified_by_url="https://scalars.graphql.org/andimarek/date-time",
        serialize=lambda instant: instant.isoformat(),
        parse_value=wrap_parser(_instant, "DateTime"),
    ),
}
