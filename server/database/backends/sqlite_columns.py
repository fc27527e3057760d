"""The columns of Merlin's tables, as 2.0.0b4 makes them, and as older versions left them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from server.database.backends.codec import STATUS_FIELDS, Dialect, encode
from server.database.models import (
    KINDS,
    EntityKind,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
)

Columns: TypeAlias = Mapping[EntityKind, tuple[str, ...]]
"""Of each table, in their order; none where there is no such table."""

_BLANKS: tuple[Model, ...] = (
    StudyModel("", ""),
    RunModel("", ""),
    LogicalWorkerModel("", ""),
    PhysicalWorkerModel("", ""),
)
COLUMNS: Columns = {KINDS[type(blank)]: tuple(encode(blank)) for blank in _BLANKS}
"""As Merlin creates the tables, but all TEXT: with its INTEGER `restart_count` Merlin reads no physical worker back."""

_IN_NEW_WORDS: Mapping[EntityKind, str] = {
    EntityKind.RUN: "CASE {0} WHEN 'True' THEN 'COMPLETED' WHEN 'False' THEN 'RUNNING' ELSE {0} END",
    EntityKind.PHYSICAL_WORKER: "upper(replace({0}, 'WorkerStatus.', ''))",
}
"""SQL: a status of the old dialect as 2.0.0b4 reads or writes it."""


def required_dialect(columns: Columns) -> Dialect:
    """An older Merlin made its tables with other columns, and only what they name can be written."""

    def has_new_name(kind: EntityKind) -> bool:
        name, old_name = STATUS_FIELDS[kind]
        return name in columns[kind] or old_name not in columns[kind]

    return Dialect(run_status=has_new_name(EntityKind.RUN), worker_status=has_new_name(EntityKind.PHYSICAL_WORKER))


def outdated(columns: Columns) -> dict[EntityKind, str]:
    """By table: what keeps Merlin 2.0.0b4 from using it, and what mends that.

    2.0.0b4 alters no table that is there, leaves NULL in a column that it does not know, and reads no row with a NULL.
    So to add a column, which its errors seem to ask for, makes things worse.
    """
    found = {}
    for kind, (name, old_name) in STATUS_FIELDS.items():
        if old_name not in columns[kind]:
            continue
        if name in columns[kind]:
            why = f"can't read what it saves there itself, since it leaves {old_name} NULL"
            value = _IN_NEW_WORDS[kind].format(old_name)
            steps = (
                f"UPDATE {kind} SET {name} = {value} WHERE {name} IS NULL; ALTER TABLE {kind} DROP COLUMN {old_name};"  # noqa: S608 - shown, not executed; our own words only
            )
        else:
            why = f"each time it saves a record there it fails, for want of {name}"
            value = _IN_NEW_WORDS[kind].format(name)
            steps = f"ALTER TABLE {kind} RENAME COLUMN {old_name} TO {name}; UPDATE {kind} SET {name} = {value};"  # noqa: S608 - as above
        found[kind] = (
            f"The table {kind} has the column {old_name} of a Merlin before 2.0.0b3. Merlin 2.0.0b4 does not change "
            f"that, and {why}. Either move the file away, and Merlin begins a new one; or make a backup and, while no "
            f"Merlin runs, let SQLite do this, after which an older Merlin can't use the table any more: "
            f"BEGIN; {steps} COMMIT;"
        )
    return found
