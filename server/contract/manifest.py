"""The manifests of known operations: Apollo's, those of client-preset and Relay, and our own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphql import DocumentNode, OperationDefinitionNode

from server.contract.client_texts import text_of_apollo, texts_sent
from server.contract.findings import UnreadableError
from server.contract.sources import load_documents

_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")
_ALGORITHMS = {32: "MD5", 40: "SHA-1", 64: "SHA-256"}
"""By the length of their hashes."""
_SHA_256 = 64
_ANY = "SHA-256, SHA-1 or MD5"
_NOT_A_MANIFEST = "this is not a manifest of operations; write one with `merlin-graphql operations manifest`."
_REMEDY = "write the manifest again with the program that wrote it."


def hash_of(document: str) -> str:
    """The id of a document: its SHA-256, in hexadecimal."""
    return hashlib.sha256(document.encode()).hexdigest()


def normalized(id_: str) -> str:
    """An id as it is compared: a hash in small letters and without `sha256:`, any other id as it is."""
    hash_ = id_.removeprefix("sha256:").lower()
    return hash_ if _HASH.fullmatch(hash_) else id_


def manifest(places: Sequence[str], style: str, *, add_typename: bool = False) -> str:
    """The manifest of files with one operation each. Raises `UnreadableError`.

    With `add_typename` a map has every text that Apollo Client and urql send, and Apollo's format has Apollo's.
    """

    def texts(name: str, document: DocumentNode) -> Sequence[str]:
        if not add_typename:
            return [Path(name).read_text()]
        return texts_sent(document) if style == "map" else [text_of_apollo(document)]

    known = [entry for document in load_documents(places) for entry in _known(*document, texts(*document))]
    if style == "map":
        content: Any = {entry["id"]: entry["body"] for entry in known}
    else:
        content = {"format": "apollo-persisted-query-manifest", "version": 1, "operations": known}
    return json.dumps(content, indent=2) + "\n"


def read_manifest(place: str) -> Mapping[str, str]:
    """The documents by their normalized ids, from a folder, a file or a manifest. Raises `UnreadableError`.

    An id that is a hash has to be that of its document. Only Apollo's format may have other ids, which its user makes.
    """
    if not place.endswith(".json"):
        found = [_known(name, document, [Path(name).read_text()]) for name, document in load_documents([place])]
        return {entry["id"]: entry["body"] for entries in found for entry in entries}
    try:
        given = json.loads(Path(place).read_text())
    except OSError as error:
        raise UnreadableError(f"{place}: can't be read: {error.strerror}.") from None
    except ValueError:
        raise UnreadableError(f"{place}: {_NOT_A_MANIFEST}") from None
    known: dict[str, str] = {}
    for given_id, body, is_free in _entries(place, given):
        id_ = normalized(given_id)
        if (expected := _mismatch(id_, body, is_free=is_free)) is not None:
            raise UnreadableError(f"{place}: {given_id} is not the {expected} of its document; {_REMEDY}")
        if known.setdefault(id_, body) != body:
            raise UnreadableError(f"{place}: {given_id} is the id of two documents; {_REMEDY}")
    return known


def _entries(place: str, given: Any) -> Iterator[tuple[str, str, bool]]:
    """Each id with its document, and whether it may be another than a hash. Raises `UnreadableError`."""
    match given:
        case {"operations": [*operations]}:
            found = [(entry.get("id"), entry.get("body")) if isinstance(entry, dict) else () for entry in operations]
            is_free = True
        case dict():
            found, is_free = list(given.items()), False
        case _:
            found, is_free = [()], False
    for entry in found:
        match entry:
            case (str(id_), str(body)) if id_:
                yield id_, body, is_free
            case _:
                raise UnreadableError(f"{place}: {_NOT_A_MANIFEST}")


def _mismatch(id_: str, body: str, *, is_free: bool) -> str | None:
    """The algorithm whose hash the id should be, and is not; None if it is right."""
    if not _HASH.fullmatch(id_):
        return None if is_free else _ANY
    if is_free and len(id_) != _SHA_256:
        return None
    algorithm = _ALGORITHMS[len(id_)]
    digest = hashlib.new(algorithm.replace("-", ""), body.encode(), usedforsecurity=False).hexdigest()
    return None if digest == id_ else algorithm


def _known(name: str, document: DocumentNode, bodies: Sequence[str]) -> list[dict[str, str]]:
    """The entries of an operation, one for each of its texts. Raises `UnreadableError`."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    stem = Path(name).stem
    if len(operations) != 1 or operations[0].name is None or operations[0].name.value != stem:
        raise UnreadableError(f"{name}: name the file after its operation, and put one operation into it.")
    type_ = operations[0].operation.value
    return [{"id": hash_of(body), "name": stem, "type": type_, "body": body} for body in bodies]
