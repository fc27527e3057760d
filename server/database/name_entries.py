"""Which entries of a stored name map may contradict the copy."""

from __future__ import annotations

from contextlib import aclosing

from server.database.backends.base import ResultsBackend
from server.database.models import EntityKind, name_of
from server.database.read_model import ReadModel
from server.database.steps import RECORDS_PER_STEP, Steps, portions_of


async def suspects(backend: ResultsBackend, copy: ReadModel, kind: EntityKind, steps: Steps) -> dict[str, None]:
    """The names whose entries lead to no record of that name, and the names of records that have no such entry.

    The map and the copy change meanwhile, so each of these names is to be looked up again.
    """
    table = copy.tables[kind]
    found: dict[str, None] = {}
    held: set[str] = set()
    async with aclosing(backend.name_pages(kind)) as pages:
        async for page in pages:
            await steps.turn()
            for name, id_ in page:
                record = table.records.get(id_)
                own = None if record is None else name_of(record)
                if own == name:
                    held.add(own)  # the copy's string: no more memory
                else:
                    found[name] = None
    for names in portions_of(list(table.names), RECORDS_PER_STEP):
        await steps.turn()
        found.update((name, None) for name in names if name not in held)
    return found
