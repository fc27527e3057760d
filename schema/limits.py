"""The limits of an operation: depth, cost and others, and what they are compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from graphql import TokenKind
from graphql.language import Lexer, Source


@dataclass(frozen=True, slots=True)
class Measures:
    """The measured values of one operation."""

    characters: int
    tokens: int
    directives: int
    """Counted in the whole document."""
    depth: int
    """Levels of nested fields, those below `__schema` and `__type` left out."""
    introspection_depth: int
    """Levels of nested fields from `__schema` or `__type` on."""
    root_fields: int
    aliases: int
    terms: int
    """Conditions in its filters, variables included."""
    bytes: int
    """Of the large values in the response, at most: see `server.database.large_values`."""
    cost: int
    """At most the number of fields in the response, and what its searches and its large values take."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest values that the server accepts."""

    characters: int = 100_000
    tokens: int = 5_000
    directives: int = 100
    depth: int = 20
    introspection_depth: int = 25
    """The queries that tools send need 13 to 19. What a hostile one costs is bounded by other means: graphql-core's
    `MaxIntrospectionDepthRule` allows few lists of fields in each other, and the execution spends a budget."""
    root_fields: int = 50
    aliases: int = 200
    terms: int = 200
    bytes: int = 2**26
    cost: int = 250_000


DEFAULTS = Limits()
STRICT = Limits(directives=20, depth=12, root_fields=20, aliases=50, terms=100, bytes=2**24, cost=100_000)
"""For servers that strangers can reach; our own saved operations are well within them."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that an operation exceeds."""

    limit: str
    value: int
    maximum: int

    def __str__(self) -> str:
        name = self.limit.replace("_", " ")
        value = self.value if self.value < 10**12 else f"more than {10**12}"
        return f"The operation's {name}: {value}, but the maximum is {self.maximum}."

    def as_extensions(self) -> dict[str, str | int]:
        """For a GraphQL error. The value is capped at 2**53 - 1, the largest integer that JSON clients read exactly."""
        return {"limit": self.limit, "value": min(self.value, 2**53 - 1), "maximum": self.maximum}


def excesses(measures: Measures, limits: Limits) -> list[Excess]:
    """Every limit that the measures exceed."""
    found = asdict(measures)
    return [
        Excess(item.name, found[item.name], maximum)
        for item in fields(limits)
        if found[item.name] > (maximum := getattr(limits, item.name))
    ]


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted in a document's text."""

    characters: int
    tokens: int
    directives: int


def count(text: str, limits: Limits | None = None) -> Counts:
    """Counts a document's tokens; stops one beyond their limit. Raises `GraphQLSyntaxError`."""
    lexer = Lexer(Source(text))
    most = len(text) if limits is None else limits.tokens
    tokens = directives = 0
    while tokens <= most and (token := lexer.advance()).kind is not TokenKind.EOF:
        tokens += 1
        directives += token.kind is TokenKind.AT
    return Counts(len(text), tokens, directives)
