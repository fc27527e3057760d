"""The deprecation policy: a replacement, a date, and a note to whoever uses it."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import strawberry

from schema.build import make_schema
from schema.context import Context
from schema.deprecations import deprecated, without_remedy
from schema.engine import Engine
from schema.roles import Role
from server.database.merlin_database import opened
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

GOOD = "Use `new` instead. Removed on or after 2027-01-01."


@strawberry.type
class Query:
    @strawberry.field
    def new(self) -> int:
        return 1

    @strawberry.field(deprecation_reason=GOOD)  # type: ignore[untyped-decorator]  # typed as Any
    def old(self) -> int:
        return 1

    @strawberry.field(deprecation_reason="No longer supported")  # type: ignore[untyped-decorator]  # as above
    def older(self) -> int:
        return 1


OLD = strawberry.Schema(query=Query)


def test_whatever_is_deprecated_names_its_replacement_and_its_end() -> None:
    """Of this schema; the rule itself is tried on another."""
    assert without_remedy(make_schema()._schema) == {}
    assert deprecated(OLD._schema) == {"Query.old": GOOD, "Query.older": "No longer supported"}
    assert without_remedy(OLD._schema) == {"Query.older": "No longer supported"}


@pytest.mark.parametrize(
    ("query", "notes"),
    [
        ("{ new }", []),
        ("{ old again: old }", [f"The field Query.old is deprecated. {GOOD}"]),
    ],
)
async def test_a_use_is_noted_in_the_response(query: str, notes: list[str]) -> None:
    """Each once, in `extensions`; who uses nothing deprecated is told nothing."""
    operations = Engine(OLD)
    async with opened(await memory_of()) as database:
        answers = operations.execute(operations.parse(query), None, Context(database, "1", Role.ADMIN))
        async with aclosing(answers):
            answer = await anext(answers)
    assert answer.extensions.get("deprecations", []) == notes
    assert (b'"extensions"' in answer.encoded) == bool(notes)
