"""`merlin-graphql token`: makes a token, prints it once, and stores its hash."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from schema.roles import Role
from server.auth.token_file import TokenFileError, TokenLine, add_line, hash_of, new_token, parse_expiry, parse_line


def add_token_commands(commands: Any) -> None:
    token = commands.add_parser("token", help="create a token for a service")
    actions = token.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="print a new token, once, and add its hash to a file",
        description="Prints a new token, once, and adds its hash to the file that `serve --token-file` names.",
    )
    create.add_argument(
        "--file", type=Path, required=True, help="the file; if missing, it is created, readable by its owner only"
    )
    create.add_argument("--name", required=True, help="the owner of the token, for the audit log and the rate limit")
    create.add_argument(
        "--role", required=True, type=str.upper, choices=[role.value for role in Role], help="what the owner may do"
    )
    create.add_argument("--expires", metavar="TIME", help="when the token expires, such as 2027-01-01")
    create.set_defaults(run=_create)


def _create(options: argparse.Namespace) -> int:
    """Prints a new token, and adds its hash to the file. Raises `TokenFileError`."""
    token = new_token()
    try:
        expires = None if options.expires is None else parse_expiry(options.expires)
        line = TokenLine(options.name, Role(options.role), hash_of(token), expires)
        parse_line(str(line))
    except ValueError as error:
        raise TokenFileError(f"The token can't be created: {error}.") from None
    add_line(options.file, line)
    print(token)
    return 0
