"""The service that all protocols share: finds and parses a document, executes the operation, and records its
outcome.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from schema.context import Context
from schema.engine import Engine
from schema.errors import FORBIDDEN
from schema.operation import GraphQLResponse, Operation, OperationError
from server import __version__
from server.auth.access_control import AccessControl
from server.auth.identity import Identity
from server.auth.lease import Lease
from server.database.merlin_database import MerlinDatabase
from server.observability.telemetry import Telemetry
from server.protocols.failures import failed
from server.protocols.persisted_documents import PersistedDocuments
from server.protocols.response_cache import ResponseCache
from server.requests import GraphQLRequest


@dataclass(frozen=True, slots=True)
class Service:
    engine: Engine
    documents: PersistedDocuments
    access_control: AccessControl
    telemetry: Telemetry
    response_cache: ResponseCache

    def context(self, database: MerlinDatabase, identity: Identity) -> Context:
        return Context(database, __version__, identity.role, identity.name, self.engine.reveals)

    def failed(self, error: BaseException) -> OperationError:
        """What a client is told of an operation that ended so; what nobody foresaw is logged."""
        return failed(error, reveal=self.engine.reveals)

    def prepare(self, request: GraphQLRequest) -> Operation:
        """Raises `OperationError`, whatever goes wrong."""
        try:
            with self.telemetry.tracing.step("graphql.read", {}):
                text = self.documents.text(request.query, request.document_hash)
                return self.engine.parse(text, request.operation_name)
        except Exception as unknown:  # noqa: BLE001 - its client waits for an answer
            error = self.failed(unknown)
            self.telemetry.refused(error.code)
            raise error from None

    async def stream(
        self,
        operation: Operation,
        request: GraphQLRequest,
        database: MerlinDatabase,
        lease: Lease,
    ) -> AsyncGenerator[GraphQLResponse]:
        """Raises `OperationError`, whatever goes wrong, and `AuthenticationError`."""
        identity = lease.identity()
        context = self.context(database, identity)
        with self.telemetry.operation(operation, lease.visitor.protocol, identity) as outcome:
            try:
                async with aclosing(self.engine.execute(operation, request.variables, context)) as answers:
                    async for answer in answers:
                        outcome.add_response(answer)
                        _ = answer.encoded  # what can't be encoded fails here, as part of the operation
                        yield answer
            except Exception as unknown:  # noqa: BLE001 - its client waits for an end
                error = self.failed(unknown)
                outcome.add_errors(error.errors)
                if error.code == FORBIDDEN:
                    what = f"{operation.type.value} {operation.name or 'without a name'}"
                    self.access_control.security_log.forbidden(lease.visitor, identity, what)
                raise error from None
