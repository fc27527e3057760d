"""The types of the integrity report."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from schema.connections import MAX_PAGE_SIZE
from schema.context import Info
from schema.effects import graphql_name
from schema.enums import EntityKind, describe
from schema.errors import BadInput
from schema.node import Node
from server.database import problem_list
from server.database.entities import Entity
from server.database.integrity import Problem as DatabaseProblem
from server.database.integrity import ProblemKind, Severity
from server.database.problem_keys import problem_key, read_problem_key
from server.database.problem_list import ProblemList, ProblemOrder, Selection

describe(
    ProblemKind,
    "What may be wrong in the database.",
    {
        ProblemKind.DANGLING_REFERENCE: "An entity names another that does not exist.",
        ProblemKind.ONE_SIDED_REFERENCE: "An entity names another that does not name it back.",
        ProblemKind.DUPLICATE_REFERENCE: "An entity names another more than once.",
        ProblemKind.NAME_INDEX_MISMATCH: "Merlin's name map and the entities do not agree.",
        ProblemKind.DUPLICATE_NAME: "Several entities have one name; Merlin finds only one of them by it.",
        ProblemKind.UNREADABLE_VALUE: "A stored value can't be read, and is served as a safe substitute.",
        ProblemKind.MISSING_REFERENCE: "A run names no study, or a physical worker no logical worker.",
        ProblemKind.EMPTY_STUDY: "A study has no runs.",
        ProblemKind.ORPHAN_WORKER: "No run or logical worker names a worker, and it is not said to run.",
        ProblemKind.RESURRECTED: (
            "A deleted run exists again: Merlin was working on it, and wrote it at its next change of status."
        ),
        ProblemKind.OUTDATED_TABLE: (
            "A table of the SQLite file has the columns of a Merlin before 2.0.0b3: 2.0.0b4 fails to save records "
            "there. The message says what to do."
        ),
        ProblemKind.WRONG_TIME_ZONE: (
            "An entity was created with a time that is off by whole quarters of an hour: Merlin's machine is in "
            "another time zone than `--time-zone` says. It is the last such one, until one comes with a right time."
        ),
    },
)

describe(
    Severity,
    "How severe a problem is, as tested with Merlin 2.0.0b4.",
    {
        Severity.ERROR: "A command of Merlin fails because of it, or Merlin does not find a record.",
        Severity.WARNING: (
            "Merlin's commands work. This server shows something else than Merlin, or a value that could not be read."
        ),
        Severity.INFO: "Merlin leaves such problems behind in normal operation.",
    },
)

describe(
    ProblemOrder,
    "The orders of problems.",
    {
        ProblemOrder.REPAIR: "The order in which `repair` repairs them.",
        ProblemOrder.SEVERITY: "The gravest first; of one severity each kind together, in the order of `ProblemKind`.",
    },
)

KindsArgument = Annotated[
    list[ProblemKind] | None, strawberry.argument(description="Only these kinds. Without it: all.")
]
SeveritiesArgument = Annotated[
    list[Severity] | None, strawberry.argument(description="Only of these severities. Without it: of all.")
]
KeysArgument = Annotated[
    list[str] | None,
    strawberry.argument(
        description=f"Only those with these keys, up to {MAX_PAGE_SIZE}: what is missing in the answer is gone."
    ),
]
OrderArgument = Annotated[ProblemOrder, strawberry.argument(description="The order of the problems.")]
AfterArgument = Annotated[
    str | None, strawberry.argument(description="Only those after the problem with this key, which may be gone by now.")
]
FirstArgument = Annotated[
    int | None, strawberry.argument(description=f"How many problems, 1 to {MAX_PAGE_SIZE}. Without it: all.")
]


@strawberry.type(description="A contradiction in the database.")
class Problem:
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, DatabaseProblem)

    @strawberry.field(
        description=(
            "Tells this problem from all others. It stays as long as the problem does, in all servers of one version."
        )
    )
    @staticmethod
    def key(root: strawberry.Parent[DatabaseProblem]) -> str:
        return problem_key(root)

    kind: ProblemKind = strawberry.field(description="What is wrong.")
    severity: Severity = strawberry.field(
        description="How severe the problem is; it follows from the kind and the field."
    )

    @strawberry.field(
        description="The entity that has the problem; null if it can't be read.", graphql_type=Node | None
    )
    @staticmethod
    def entity(root: strawberry.Parent[DatabaseProblem], info: Info) -> Entity | None:
        return info.context.database.by_id(root.key.id)

    @strawberry.field(description="The kind of that entity.")
    @staticmethod
    def entity_kind(root: strawberry.Parent[DatabaseProblem]) -> EntityKind:
        return root.key.kind

    @strawberry.field(description="The id of that entity; empty if the problem concerns a whole table.")
    @staticmethod
    def entity_id(root: strawberry.Parent[DatabaseProblem]) -> strawberry.ID:
        return strawberry.ID(root.entity_id)

    @strawberry.field(description="The field that has the problem.")
    @staticmethod
    def field(root: strawberry.Parent[DatabaseProblem]) -> str | None:
        return None if root.field is None else graphql_name(root.field)

    other_id: strawberry.ID | None = strawberry.field(description="The id of the other entity.")
    message: str = strawberry.field(description="What is wrong, in words.")
    repairable: bool = strawberry.field(description="Whether `repair` can repair it without losing data.")


@strawberry.type(description="How many problems there are of one sort.")
class ProblemCount:
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, problem_list.ProblemCount)

    kind: ProblemKind = strawberry.field(description="What is wrong.")
    severity: Severity = strawberry.field(description="How severe these problems are.")
    repairable: bool = strawberry.field(description="Whether `repair` can repair these without losing data.")
    count: int = strawberry.field(description="Their number, which is not 0.")


class Report:
    def __init__(self, found: ProblemList) -> None:
        self.found = found


@strawberry.type(
    description="Every reference that is dangling or missing on one side, and every value that could not be read."
)
class IntegrityReport:
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, Report)

    @strawberry.field(
        description=(
            "The problems: all of them, or a part. To read them part by part, pass `first`, and as `after` the key of "
            "the last one that you have: whatever comes or goes meanwhile, none of the others is left out."
        ),
        graphql_type=list[Problem],
    )
    @staticmethod
    def problems(
        root: strawberry.Parent[Report],
        kinds: KindsArgument = None,
        severities: SeveritiesArgument = None,
        keys: KeysArgument = None,
        order_by: OrderArgument = ProblemOrder.REPAIR,
        after: AfterArgument = None,
        offset: Annotated[int, strawberry.argument(description="How many of them to leave out at the beginning.")] = 0,
        first: FirstArgument = None,
    ) -> list[DatabaseProblem]:
        if first is not None and not 1 <= first <= MAX_PAGE_SIZE:
            raise BadInput(f"first: pass 1 to {MAX_PAGE_SIZE} problems, not {first}.", "first")
        if offset < 0:
            raise BadInput(f"offset: pass a number of problems, 0 or more, not {offset}.", "offset")
        if keys is not None and len(keys) > MAX_PAGE_SIZE:
            raise BadInput(f"keys: pass up to {MAX_PAGE_SIZE} keys, not {len(keys)}.", "keys")
        known = None if keys is None else [found for key in keys if (found := read_problem_key(key)) is not None]
        begin = None if after is None else read_problem_key(after)
        if after is not None and begin is None:
            raise BadInput("after: this is not the key of a problem: pass a `key` of a problem unchanged.", "after")
        return root.found.select(Selection(kinds, severities, known, order_by, begin, offset, first))

    @strawberry.field(description="The number of problems of all kinds.")
    @staticmethod
    def total_count(root: strawberry.Parent[Report]) -> int:
        return len(root.found)

    @strawberry.field(
        description=(
            "How many problems there are of each kind and severity, the gravest first: a row for those that `repair` "
            "can repair, and one for the others, where there are any. Their sum is `totalCount`."
        ),
        graphql_type=list[ProblemCount],
    )
    @staticmethod
    def counts(root: strawberry.Parent[Report]) -> list[problem_list.ProblemCount]:
        return root.found.counts()
