"""Documents that clients name by an id: those that an operator trusts, and those that clients register.

A trusted document has the id of its manifest, which may be a SHA-1 or an MD5. Strangers register by SHA-256 only, for
which nobody can make another document. They do so by Apollo's protocol of automatic persisted queries: they send the
hash alone, after an error once with the document, and from then on the hash alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graphql import GraphQLError

from schema.operation import OperationError
from server.contract.manifest import hash_of, normalized
from server.database.recent import Recent

NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
MISMATCH = "PERSISTED_QUERY_HASH_MISMATCH"
UNTRUSTED = "UNTRUSTED_DOCUMENT"

MAX_BYTES = 2**23
"""Of the documents that clients register."""


class PersistedDocuments:
    """The documents by their ids: the trusted ones, and those that clients have registered."""

    def __init__(
        self,
        trusted: Mapping[str, str] = MappingProxyType({}),
        *,
        only_trusted: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._trusted = trusted
        """The documents by their normalized ids."""
        self._bodies = frozenset(trusted.values())
        self._only_trusted = only_trusted
        self.registered: Recent[str, str] = Recent(max_bytes)
        """By their hashes."""

    def is_trusted(self, text: str) -> bool:
        return text in self._bodies

    def text(self, query: str | None, id_: str | None) -> str:
        """The document of a request that sends it, its id, or both. Raises `OperationError`.

        An empty query beside an id counts as none: graphql-ws sends no operation without a text.
        """
        if id_ is not None:
            id_ = normalized(id_)
            query = query or None
        if self._only_trusted:
            return self._trusted_text(query, id_)
        if id_ is None:
            return query or ""
        if query is None:
            return self._known_text(id_)
        if self._trusted.get(id_) != query and hash_of(query) != id_:
            raise _refused("The hash is not the SHA-256 of the query that came with it.", MISMATCH)
        return query

    def register(self, query: str | None, id_: str | None) -> None:
        """Remembers a valid document under the hash that came with it, which `text` has checked."""
        if query and id_ is not None and not self._only_trusted:
            hash_ = normalized(id_)
            if hash_ not in self._trusted:
                self.registered.put(hash_, query, 2 * len(query))

    def _trusted_text(self, query: str | None, id_: str | None) -> str:
        if query is not None and query in self._bodies:
            return query
        if query is None and id_ is not None and id_ in self._trusted:
            return self._trusted[id_]
        raise _refused("This server executes trusted operations only, and this is not one of them.", UNTRUSTED)

    def _known_text(self, id_: str) -> str:
        if (text := self._trusted.get(id_)) is not None:
            return text
        text = self.registered.get(id_)
        if text is None:
            raise _refused("PersistedQueryNotFound", NOT_FOUND)  # the message that the protocol prescribes
        return text


def _refused(message: str, code: str) -> OperationError:
    return OperationError([GraphQLError(message)], code)
