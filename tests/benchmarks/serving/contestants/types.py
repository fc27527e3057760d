"""The GraphQL types that (a) and (b) have in common, by annotations: as much of the contract as the queries use."""

from __future__ import annotations

from enum import Enum

import strawberry


@strawberry.enum
class RunStatus(Enum):
    INITIALIZED = "INITIALIZED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


@strawberry.type
class Study:
    id: strawberry.ID
    name: str


@strawberry.type
class LogicalWorker:
    id: strawberry.ID
    name: str
    queues: list[str]


@strawberry.type
class PageInfo:
    has_next_page: bool


@strawberry.type
class UserError:
    message: str


@strawberry.input
class RunStatusFilter:
    eq: RunStatus


@strawberry.input
class StringFilter:
    starts_with: str


@strawberry.input
class StudyFilter:
    name: StringFilter


@strawberry.input
class RunFilter:
    status: RunStatusFilter
    study: StudyFilter


@strawberry.input
class CreateRunInput:
    study_name: str
    workspace: str
    queues: list[str]


def launch_order(workspace: str, id_: str) -> tuple[str, str]:
    """To be sorted by: the latest launched first. A workspace ends in `_YYYYMMDD-HHMMSS`."""
    return workspace[-15:].translate(_REVERSED), id_


_REVERSED = str.maketrans("0123456789", "9876543210")
