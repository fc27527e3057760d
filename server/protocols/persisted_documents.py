"""Documents that clients name by their SHA-256: those that an operator trusts, and those that clients register.

Clients register by Apollo's protocol of automatic persisted queries: they send the hash alone, after an error once with
the document, and from then on the hash alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from graphql import GraphQLError

from schema.operation import OperationError
from server.contract.manifest import hash_of

NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
MISMATCH = "PERSISTED_QUERY_HASH_MISMATCH"
UNTRUSTED = "UNTRUSTED_DOCUMENT"

_MAX_REGISTERED = 1_000
"""Documents; the least recently used one is dropped first."""
_MAX_REGISTERED_LENGTH = 20_000
"""Characters of a document."""


class PersistedDocuments:
    """The documents by their hashes: the trusted ones, and those that clients have registered."""

    def __init__(self, trusted: Mapping[str, str] = MappingProxyType({}), *, only_trusted: bool = False) -> None:
        self._trusted = trusted
        """The documents by their hashes."""
        self._bodies = frozenset(trusted.values())
        self._only_trusted = only_trusted
        self._registered: OrderedDict[str, str] = OrderedDict()

    def is_trusted(self, text: str) -> bool:
        return text in self._bodies

    def text(self, query: str | None, hash_: str | None) -> str:
        """The document of a request that sends it, its hash, or both. Raises `OperationError`."""
        if self._only_trusted:
            return self._trusted_text(query, hash_)
        if hash_ is None:
            return query or ""
        if query is None:
            return self._known_text(hash_)
        if hash_of(query) != hash_:
            raise _refused("The hash is not the SHA-256 of the query that came with it.", MISMATCH)
        self._register(hash_, query)
        return query

    def _trusted_text(self, query: str | None, hash_: str | None) -> str:
        if query is not None and query in self._bodies:
            return query
        if query is None and hash_ is not None and hash_ in self._trusted:
            return self._trusted[hash_]
        raise _refused("This server executes trusted operations only, and this is not one of them.", UNTRUSTED)

    def _known_text(self, hash_: str) -> str:
        if (text := self._trusted.get(hash_)) is not None:
            return text
        if hash_ not in self._registered:
            raise _refused("PersistedQueryNotFound", NOT_FOUND)  # the message that the protocol prescribes
        self._registered.move_to_end(hash_)
        return self._registered[hash_]

    def _register(self, hash_: str, query: str) -> None:
        if len(query) > _MAX_REGISTERED_LENGTH:
            return
        self._registered[hash_] = query
        self._registered.move_to_end(hash_)
        if len(self._registered) > _MAX_REGISTERED:
            self._registered.popitem(last=False)


def _refused(message: str, code: str) -> OperationError:
    return OperationError([GraphQLError(message)], code)
