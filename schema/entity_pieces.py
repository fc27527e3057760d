"""What pieces of answers may say of entities: `server.database.pieces` keeps them, and tells when they change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from schema.compiler.pieces import Finder, PieceRules
from schema.context import Context
from server.database.models import EntityKind
from server.database.pieces import Selection, SelectionPieces

_KINDS: Mapping[str, EntityKind] = MappingProxyType(
    {
        "Study": EntityKind.STUDY,
        "Run": EntityKind.RUN,
        "LogicalWorker": EntityKind.LOGICAL_WORKER,
        "PhysicalWorker": EntityKind.PHYSICAL_WORKER,
    }
)
_OWN: Mapping[str, str] = MappingProxyType(
    {
        "Study": "id name annotations additionalData",
        "Run": (
            "id workspace status isFinished queues studyId workerIds steps parameters samples additionalData "
            "annotations launchedAt"
        ),
        "LogicalWorker": "id name queues additionalData",
        "PhysicalWorker": (
            "id name status host pid launchCommand args restartCount logicalWorkerId heartbeatAt startedAt "
            "additionalData"
        ),
    }
)
"""What shows something of the record or the annotations, but neither of the lists that owners have of their members,
nor of histories, observations, files or the clock."""
_LINKS = frozenset({"Run.study", "Run.workers", "PhysicalWorker.logicalWorker"})
"""Those that lead from a member to its owners."""


def _finder(type_: str, text: str) -> Finder:
    selection = Selection(text, _KINDS[type_])

    def find(context: Context) -> SelectionPieces:
        return context.database.entity_context.pieces.of(selection)

    return find


ENTITY_PIECES = PieceRules(
    types=_KINDS.keys(),
    own=frozenset(f"{type_}.{name}" for type_, names in _OWN.items() for name in names.split()),
    links=_LINKS,
    finder=_finder,
)
