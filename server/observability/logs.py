"""The format of log lines: text for people or JSON for programs, each with the id of its request."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from server.request_id import REQUEST_ID

OPERATIONS = logging.getLogger("merlin_graphql.operations")
"""The logger of operations: one line each, with `extra` for programs."""
_DETAIL = "    | "
"""The prefix of each line of a traceback."""
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "request_id", "taskName"}


def printable(text: str) -> str:
    """The text in one line: control characters and those that change the writing direction are escaped."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in text)


class WithRequestId(logging.Filter):
    """Adds the id of the current request to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


class TextLines(logging.Formatter):
    """Formats each record as one line; the lines of its traceback follow, with a prefix.

    Messages, also those of libraries, repeat texts of clients and databases: a line break in such a text must not
    imitate another record, and an escape sequence must not reach a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record)
        head = f"{time} {record.levelname} {record.name}: {record.getMessage()}"
        details = [self.formatException(record.exc_info)] if record.exc_info else []
        details += [self.formatStack(record.stack_info)] if record.stack_info else []
        rest = (line for text in details for line in text.split("\n"))
        return "\n".join([printable(head), *(f"{_DETAIL}{printable(line)}" for line in rest)])


class JSONLines(logging.Formatter):
    """Formats each record as one JSON object on a line; the keys of `extra` are added to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if getattr(record, "request_id", "-") != "-":
            line["request_id"] = record.request_id  # type: ignore[attr-defined]  # set by the filter
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def logging_config(format_: str) -> Mapping[str, Any]:
    """The configuration for `logging.config.dictConfig`: lines as `text` or `json`, to stderr."""
    formatters = {
        "text": {"()": TextLines},
        "json": {"()": JSONLines},
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": WithRequestId}},
        "formatters": formatters,
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": format_, "filters": ["request_id"]},
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
