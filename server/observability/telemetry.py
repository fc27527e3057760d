"""What is recorded of each operation: metrics, a log line, a span."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any

from graphql import OperationType

from schema.compiler.compiler import ExecutionCounts
from schema.operation import GraphQLResponse, Operation
from server.auth.identity import Identity
from server.observability.logs import OPERATIONS
from server.observability.metrics import OTHER, KnownAnswer, Metrics
from server.observability.tracing import Tracing


class Telemetry:
    """Records each operation, and each refusal that came before one."""

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing,
        is_trusted: Callable[[str], bool],
        execution_counts: ExecutionCounts,
        *,
        log_operations: bool,
    ) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self._is_trusted = is_trusted
        self._execution_counts = execution_counts
        self._log_operations = log_operations

    @contextmanager
    def operation(self, operation: Operation, protocol: str, identity: Identity) -> Iterator[OperationOutcome]:
        """Records an operation; the block executes it, and fills in the outcome."""
        outcome = OperationOutcome()
        began = perf_counter()
        try:
            with self.step(operation):
                if operation.type is OperationType.SUBSCRIPTION:
                    with self.metrics.subscription():
                        yield outcome
                else:
                    yield outcome
        finally:
            self.note(operation, protocol, identity, outcome, perf_counter() - began)

    def step(self, operation: Operation) -> AbstractContextManager[None]:
        """The span of an operation's execution, if there is tracing."""
        attributes = {"graphql.operation.type": operation.type.value, "graphql.operation.name": operation.name or ""}
        return self.tracing.step(f"graphql.{operation.type.value}", attributes)

    def note(
        self, operation: Operation, protocol: str, identity: Identity, outcome: OperationOutcome, seconds: float
    ) -> None:
        """Records an operation that has ended."""
        self.metrics.count_operation(operation.type, protocol, outcome.cost)
        if outcome.codes:
            self.metrics.count_errors(outcome.codes)
        if outcome.is_kept:
            self.metrics.count_kept()
        else:
            self.metrics.count_executions(self._execution_counts)
        if operation.type is not OperationType.SUBSCRIPTION:
            self.metrics.observe_seconds(self._saved_name(operation), seconds)
        if self._log_operations or outcome.codes:
            _log(operation, protocol, identity, outcome, seconds)

    def note_known(
        self, operation: Operation, identity: Identity, outcome: OperationOutcome, status: int, seconds: float
    ) -> None:
        """Records the answer to a known request, which is a query without errors."""
        answer = KnownAnswer(status, outcome.cost, self._saved_name(operation), seconds, outcome.is_kept)
        self.metrics.note_answer(answer, self._execution_counts)
        if self._log_operations:
            _log(operation, "http", identity, outcome, seconds)

    def refused(self, code: str) -> None:
        """Records a request that was refused before its operation was known."""
        self.metrics.count_errors([code])

    def _saved_name(self, operation: Operation) -> str:
        is_saved = operation.name is not None and self._is_trusted(operation.text)
        return str(operation.name) if is_saved else OTHER


class OperationOutcome:
    """The cost and the error codes of one operation."""

    __slots__ = ("codes", "cost", "is_kept")

    def __init__(self, cost: int = 0, codes: Sequence[str] = (), *, is_kept: bool = False) -> None:
        self.cost = cost
        self.codes = codes
        self.is_kept = is_kept
        """Whether the response came from the cache."""

    def add_response(self, answer: GraphQLResponse) -> None:
        self.cost = answer.cost
        self.add_errors(answer.errors)

    def add_errors(self, errors: Iterable[Mapping[str, Any]]) -> None:
        codes = [str(error.get("extensions", {}).get("code", "EXECUTION_FAILED")) for error in errors]
        self.codes = [*self.codes, *codes]


def _log(operation: Operation, protocol: str, identity: Identity, outcome: OperationOutcome, seconds: float) -> None:
    milliseconds = round(seconds * 1000, 3)
    extra = {
        "operation": operation.name,
        "type": operation.type.value,
        "protocol": protocol,
        "who": identity.name,
        "milliseconds": milliseconds,
        "cost": outcome.cost,
        "codes": list(outcome.codes),
    }
    type_, name, ending = operation.type.value, operation.name or "without a name", ", ".join(outcome.codes) or "ok"
    message = "%s %s by %s: %s in %s ms"
    OPERATIONS.info(message, type_, name, identity.name, ending, milliseconds, extra=extra)
