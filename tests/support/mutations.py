"""What the tests of mutations share."""

from __future__ import annotations

from typing import Any

from server.database.merlin_database import MerlinDatabase
from tests.support.asking import ask
from tests.support.records import logical_worker, uid

SIM = logical_worker("sim", ("[merlin]_a",), runs=(uid(11),), physical_workers=(uid(21),))


async def do(database: MerlinDatabase, query: str, **variables: Any) -> Any:
    """The one field of an answer without errors."""
    (value,) = (await ask(database, query, **variables)).values()
    return value


REFUSED = "userErrors { code path message }"
EFFECTS = "effects { action kind entityId fields }"


def effects(payload: Any) -> set[tuple[str, str, str, tuple[str, ...]]]:
    return {(it["action"], it["kind"], it["entityId"], tuple(it["fields"])) for it in payload["effects"]}
