"""What this server tells of each operation: metrics, a log line, a span. One call at its begin, one at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from graphql import OperationType

from schema.operations import Answer, Operation
from server.auth.identity import Identity
from server.documents import Documents
from server.logs import OPERATIONS
from server.metrics import OTHER, Metrics
from server.tracing import Tracing


class Telemetry:
    def __init__(self, metrics: Metrics, tracing: Tracing, documents: Documents, *, log_operations: bool) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self._documents = documents
        self._log_operations = log_operations

    @contextmanager
    def operation(self, operation: Operation, protocol: str, identity: Identity) -> Iterator[Told]:
        """Around all that comes of it."""
        told = Told()
        type_ = operation.type.value
        began = perf_counter()
        attributes = {"graphql.operation.type": type_, "graphql.operation.name": operation.name or ""}
        is_subscription = operation.type is OperationType.SUBSCRIPTION
        try:
            with self.tracing.step(f"graphql.{type_}", attributes):
                if is_subscription:
                    with self.metrics.subscription():
                        yield told
                else:
                    yield told
        finally:
            seconds = perf_counter() - began
            self.metrics.count_operation(type_, protocol, told.cost)
            self.metrics.count_errors(told.codes)
            if not is_subscription:
                self.metrics.observe_seconds(self._saved_name(operation), seconds)
            if self._log_operations or told.codes:
                self._log(operation, protocol, identity, told, seconds)

    def refused(self, code: str) -> None:
        """Before there was an operation."""
        self.metrics.count_errors([code])

    def _saved_name(self, operation: Operation) -> str:
        is_saved = operation.name is not None and self._documents.is_trusted(operation.text)
        return str(operation.name) if is_saved else OTHER

    def _log(self, operation: Operation, protocol: str, identity: Identity, told: Told, seconds: float) -> None:
        milliseconds = round(seconds * 1000, 3)
        extra = {
            "operation": operation.name,
            "type": operation.type.value,
            "protocol": protocol,
            "who": identity.name,
            "milliseconds": milliseconds,
            "cost": told.cost,
            "codes": told.codes,
        }
        outcome = ", ".join(told.codes) or "ok"
        OPERATIONS.log(
            logging.INFO,
            "%s %s by %s: %s in %s ms",
            operation.type.value,
            operation.name or "without a name",
            identity.name,
            outcome,
            milliseconds,
            extra=extra,
        )


class Told:
    """What clients were told of one operation."""

    __slots__ = ("codes", "cost")

    def __init__(self) -> None:
        self.cost = 0
        self.codes: list[str] = []

    def answer(self, answer: Answer) -> None:
        self.cost = answer.cost
        self.errors(answer.errors)

    def errors(self, errors: Iterable[Mapping[str, Any]]) -> None:
        self.codes += codes_of(errors)


def codes_of(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(error.get("extensions", {}).get("code", "EXECUTION_FAILED")) for error in errors]
