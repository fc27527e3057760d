"""@defer and @stream, which the schema has, and the execution does not see: an answer is made in one piece.

The working draft of GraphQL lets a server do so. The whole of an answer is read from memory, at one revision, within
milliseconds; to send it in several would cost more than it saves, and mix revisions.
"""

from __future__ import annotations

from typing import Any

from graphql import (
    REMOVE,
    DirectiveNode,
    DocumentNode,
    GraphQLDeferDirective,
    GraphQLStreamDirective,
    Visitor,
    VisitorAction,
    visit,
)

from server.database.slices import give_way

_NAMES = (GraphQLDeferDirective.name, GraphQLStreamDirective.name)


def in_one_piece(document: DocumentNode, text: str) -> DocumentNode:
    """The document without @defer and @stream; the same object if it has none.

    `text` is the document's source.
    """
    if not any(name in text for name in _NAMES):
        return document
    stripped: DocumentNode = visit(document, _Stripper())
    return stripped


class _Stripper(Visitor):
    def enter(self, *_args: Any) -> VisitorAction:
        give_way()
        return None

    def enter_directive(self, node: DirectiveNode, *_args: Any) -> VisitorAction:
        return REMOVE if node.name.value in _NAMES else None
