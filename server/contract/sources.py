"""Loads schemas and documents from files, folders, patterns and URLs."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    Source,
    assert_valid_schema,
    build_ast_schema,
    build_client_schema,
    get_introspection_query,
    parse,
)

from schema.build import make_schema, sdl_of
from server.contract.findings import UnreadableError
from server.http_client import SCHEMES, FetchError, fetch

_SECONDS = 20.0
_MAX_SIZE = 2**24
"""Bytes of a schema at a URL."""
_ENDINGS = (".graphql", ".gql")
_HIDDEN = (
    "In production a server hides its schema: name a file, which `merlin-graphql schema export` of its version writes, "
    "or serve with --introspection."
)
PROTECTED = "Send a token: by --header 'Authorization: Bearer …', or by the variable MERLIN_GRAPHQL_HEADER."


@dataclass(frozen=True, slots=True)
class LoadedSchema:
    schema: GraphQLSchema
    file: str | None
    """The file that findings refer to; None if the schema is not the text of a file."""


def own_schema() -> LoadedSchema:
    """The schema of this package."""
    return LoadedSchema(build_ast_schema(parse(sdl_of(make_schema()))), None)


def load_schema(where: str, headers: Mapping[str, str]) -> LoadedSchema:
    """Loads SDL or an introspection result from a file or a URL. Raises `UnreadableError`."""
    if where.startswith(SCHEMES):
        return LoadedSchema(_schema_of(_fetched(where, headers), where), None)
    try:
        text = Path(where).read_text()
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{where}: can't be read as a schema: {_reason(error)}.") from None
    return LoadedSchema(_schema_of(text, where), where)


def load_documents(places: Sequence[str]) -> list[tuple[str, DocumentNode]]:
    """Loads the documents of files, folders and patterns, each file once. Raises `UnreadableError`."""
    documents = []
    for name in dict.fromkeys(name for place in places for name in _files(place)):
        try:
            text = Path(name).read_text()
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{name}: can't be read: {_reason(error)}.") from None
        try:
            documents.append((name, parse(Source(text, name))))
        except GraphQLError as error:
            line, column = error.locations[0] if error.locations else (1, 1)
            raise UnreadableError(f"{name}:{line}:{column}: {error.message}") from None
        except RecursionError:
            raise UnreadableError(f"{name}: is nested too deeply to be read.") from None
    return documents


def _files(place: str) -> list[str]:
    if Path(place).is_dir():
        found = sorted(str(path) for ending in _ENDINGS for path in Path(place).rglob(f"*{ending}"))
    elif glob.has_magic(place):
        found = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - the pattern may begin at the root, or with ..
    else:
        return [place]
    if not found:
        raise UnreadableError(f"{place}: there are no documents there; name .graphql files, a folder or a pattern.")
    return found


def _schema_of(text: str, where: str) -> GraphQLSchema:
    try:
        if text.lstrip().startswith("{"):
            given = json.loads(text)
            if "errors" in given and not given.get("data"):
                raise UnreadableError(f"{where}: the response holds errors instead of a schema. {_HIDDEN}")
            schema = build_client_schema(given.get("data", given))
        else:
            schema = build_ast_schema(parse(Source(text, where)))
        assert_valid_schema(schema)
    except GraphQLError as error:
        place = f"{where}:{error.locations[0].line}:{error.locations[0].column}" if error.locations else where
        raise UnreadableError(f"{place}: this is not a schema: {error.message}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableError(
            f"{where}: this is not a schema, neither SDL nor an introspection result: {first}"
        ) from None
    return schema


def _fetched(url: str, headers: Mapping[str, str]) -> str:
    """The text at the URL; if that is a GraphQL endpoint, its introspection result."""
    query = None
    if not url.rstrip("/").endswith((".graphql", ".gql", ".json")):
        query = json.dumps({"query": get_introspection_query(input_value_deprecation=True, one_of=True)}).encode()
    try:
        return fetch(url, headers, seconds=_SECONDS, largest=_MAX_SIZE, content=query).decode()
    except FetchError as error:
        raise UnreadableError(f"{error} {_hint(error, is_file=query is None)}".strip()) from None
    except UnicodeDecodeError:
        raise UnreadableError(f"{url}: it is not UTF-8.") from None


def _hint(error: FetchError, *, is_file: bool) -> str:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return PROTECTED
    return _HIDDEN if error.status == HTTPStatus.NOT_FOUND and is_file else ""


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return str(reason)
