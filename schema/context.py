"""The context that every resolver receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import strawberry

from schema.allowance import FREE, UNLIMITED, Allowance, Toll
from schema.budget import Budget
from schema.roles import Role
from server.database.idempotency import Claim
from server.database.merlin_database import MerlinDatabase
from server.database.watches import Dependence, Watch


@dataclass(frozen=True, slots=True)
class Context:
    """The database, and what is known of the viewer: the client whose operation it is."""

    database: MerlinDatabase
    server_version: str
    role: Role | None
    """The highest role of the viewer; None without any."""
    who: str | None = field(default=None, compare=False)
    """The viewer's name, for the audit log; no response depends on it."""
    reveals: bool = True
    """Whether responses reveal the address of the database."""
    deadline: float | None = field(default=None, compare=False)
    """When a mutation is given up, in seconds of the event loop's clock."""
    done: list[Mapping[str, str]] | None = field(default=None, compare=False)
    """What the earlier fields of this mutation have changed: an error of a later one takes their payloads away."""
    budget: Budget | None = field(default=None, compare=False)
    """What the operation may spend, where that is measured while it runs."""
    claim: Claim | None = field(default=None, compare=False)
    """Under which a mutation with an idempotency key is executed."""
    allowance: Allowance = field(default=UNLIMITED, compare=False)
    """What the viewer may still use."""
    unread: set[str] | None = field(default=None, compare=False)
    """Takes the ids of runs whose workspaces have to be read first, where the operation is executed again after it."""
    observes: bool = field(default=False, compare=False)
    """Whether the operation depends on what this server observes, and not only on what is stored."""
    dependence: Dependence | None = field(default=None, compare=False)
    """Takes on what the answer to a live query depends, where it is noted."""
    watch: Watch | None = field(default=None, compare=False)
    """Waits for a change that can touch a live query; only the source of its events has it."""
    toll: Toll = field(default=FREE, compare=False)
    """What each execution of a subscription costs; only the source of its events has it."""

    def note_search(self, tests: int) -> None:
        """Notes how many conditions the current field tested on records. Raises `BudgetExceededError`."""
        if self.budget is not None:
            self.budget.search(tests)


Info: TypeAlias = strawberry.Info[Context, None]
