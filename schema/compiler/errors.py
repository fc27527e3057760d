"""Why an operation is left to graphql-core. Neither error ever reaches a client.

NotCompilableError  something of the operation is unknown to the compiler: known before it is executed
UnexpectedError     a value is not plainly what its type says: found while it is executed
"""

from __future__ import annotations


class NotCompilableError(Exception):
    """Says what it is."""


class UnexpectedError(Exception):
    pass
