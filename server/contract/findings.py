"""The findings of a check, rendered for people, for programs, and as annotations on GitHub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum

from server.errors import UsageError


class ExitCode(IntEnum):
    """The exit codes of commands. argparse uses 2 for an invalid command line."""

    OK = 0
    FAILED = 1
    """A breaking change, an invalid operation or an outdated file."""
    DEPRECATED = 3
    UNREADABLE = 4
    """A schema, a document or a manifest that is not available or not readable."""
    TOO_COSTLY = 5


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check, with its place in a file if that is known."""

    level: Level
    kind: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def place(self) -> str:
        """`file:line:column`, as far as they are known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


class UnreadableError(UsageError):
    """An input can't be read. The message is one line that says where, and what to do."""

    exit_code = ExitCode.UNREADABLE


def render(findings: Sequence[Finding], style: str) -> str:
    """The findings as text: one line each, or one JSON object."""
    match style:
        case "json":
            return json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2)
        case "github":
            return "\n".join(map(_annotation, findings))
        case _:
            return "\n".join(map(_line, findings))


def _line(finding: Finding) -> str:
    place = f"{finding.place}: " if finding.place else ""
    return f"{place}{finding.level}: {finding.message} [{finding.kind}]"


def _annotation(finding: Finding) -> str:
    """https://docs.github.com/actions/reference/workflow-commands-for-github-actions"""
    parts = {"file": finding.file, "line": finding.line, "col": finding.column, "title": finding.kind}
    properties = ",".join(f"{name}={_escaped(str(value), ',:')}" for name, value in parts.items() if value is not None)
    return f"::{finding.level} {properties}::{_escaped(finding.message)}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
