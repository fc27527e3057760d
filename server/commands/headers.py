"""The headers that commands send to a server, such as its token: from flags, files and the environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from server.contract.findings import UnreadableError

VARIABLE = "MERLIN_GRAPHQL_HEADER"
_HELP = (
    "a header for a protected server, such as 'Authorization: Bearer …', or @FILE with one header on each line; @FILE "
    f"and the variable {VARIABLE} hide it from other users of this machine; may be repeated"
)


def add_header_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'|@FILE", help=_HELP)


def headers_of(options: argparse.Namespace) -> dict[str, str]:
    """The headers of the environment and of flags. Raises `UnreadableError` without a value, which may be secret."""
    lines = [(VARIABLE, line) for line in os.environ.get(VARIABLE, "").splitlines()]
    for text in options.header:
        in_file = _lines_in(text[1:]) if text.startswith("@") else [text]
        lines += [("--header", line) for line in in_file]
    headers = {}
    for source, line in lines:
        name, found, value = line.partition(":")
        if not found or not name.strip() or not value.strip() or "\n" in line:
            raise UnreadableError(f"{source}: pass it as 'Name: value'.")
        headers[name.strip()] = value.strip()
    return headers


def _lines_in(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UnreadableError(
            f"--header: {file} can't be read: {getattr(error, 'strerror', 'it is not text')}."
        ) from None
