"""The key of a problem: it says where the problem stands among the others, so that it is found without an index."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from server.database.integrity import Place, Problem, ProblemKind, Severity

_SEVERITIES, _KINDS = tuple(Severity), tuple(ProblemKind)
_DIGEST = 6
"""Bytes: only problems with the same words else are told apart by it."""

Spot: TypeAlias = tuple[int, str, str, str, int, str, str]
"""A place without the message."""


@dataclass(frozen=True, slots=True)
class ProblemKey:
    severity: Severity
    kind: ProblemKind
    spot: Spot
    digest: str
    """Of the message."""

    def find(self, problems: Sequence[Problem]) -> tuple[int, bool]:
        """Its index among problems in the order of repairs, and whether it is there."""
        start = bisect_left(problems, self.spot, key=_spot)
        for index in range(start, len(problems)):
            if _spot(problems[index]) != self.spot:
                break
            if _digest(problems[index].message) == self.digest:
                return index, True
        return start, False


def problem_key(problem: Problem) -> str:
    *spot, message = problem.place
    parts = [_SEVERITIES.index(problem.severity), *spot, _digest(message)]
    return urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def read_problem_key(text: str) -> ProblemKey | None:
    """None if it is no key of a problem."""
    try:
        parts = json.loads(urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}".encode("ascii")))
    except (ValueError, binascii.Error, RecursionError):
        return None
    match parts:
        case [int(severity), int(section), str(kind), str(id_), str(other), int(rank), str(name), str(field), str(end)]:
            if 0 <= severity < len(_SEVERITIES) and 0 <= rank < len(_KINDS):
                spot = section, kind, id_, other, rank, name, field
                return ProblemKey(_SEVERITIES[severity], _KINDS[rank], spot, end)
    return None


def _spot(problem: Problem) -> Spot:
    place: Place = problem.place
    return place[:-1]


def _digest(message: str) -> str:
    return blake2b(message.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).hexdigest()
