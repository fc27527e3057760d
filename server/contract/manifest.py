"""The manifest of known operations: Apollo's format of persisted queries, or a map of hash to document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphql import DocumentNode, OperationDefinitionNode

from server.contract.findings import UnreadableError
from server.contract.sources import load_documents


def hash_of(document: str) -> str:
    """The id of a document: its SHA-256, in hexadecimal."""
    return hashlib.sha256(document.encode()).hexdigest()


def manifest(places: Sequence[str], style: str) -> str:
    """The manifest of files with one operation each. Raises `UnreadableError`."""
    known = [_known(name, document) for name, document in load_documents(places)]
    if style == "map":
        content: Any = {entry["id"]: entry["body"] for entry in known}
    else:
        content = {"format": "apollo-persisted-query-manifest", "version": 1, "operations": known}
    return json.dumps(content, indent=2) + "\n"


def read_manifest(place: str) -> Mapping[str, str]:
    """The documents by their hashes, from a folder, a file or a manifest of either kind. Raises `UnreadableError`."""
    if not place.endswith(".json"):
        return {entry["id"]: entry["body"] for entry in (_known(*document) for document in load_documents([place]))}
    try:
        given = json.loads(Path(place).read_text())
        operations = given["operations"] if "operations" in given else _entries(given)
        known = {entry["id"]: entry["body"] for entry in operations}
    except OSError as error:
        raise UnreadableError(f"{place}: can't be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        remedy = "write one with `merlin-graphql operations manifest`"
        raise UnreadableError(f"{place}: this is not a manifest of operations; {remedy}.") from None
    for id_, body in known.items():
        if not isinstance(body, str) or hash_of(body) != id_:
            remedy = "write the manifest again with `merlin-graphql operations manifest`"
            raise UnreadableError(f"{place}: the document of {id_} has another SHA-256; {remedy}.")
    return known


def _entries(given: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"id": id_, "body": body} for id_, body in given.items()]


def _known(name: str, document: DocumentNode) -> dict[str, str]:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    stem = Path(name).stem
    if len(operations) != 1 or operations[0].name is None or operations[0].name.value != stem:
        raise UnreadableError(f"{name}: name the file after its operation, and put one operation into it.")
    body = Path(name).read_text()
    return {"id": hash_of(body), "name": stem, "type": operations[0].operation.value, "body": body}
