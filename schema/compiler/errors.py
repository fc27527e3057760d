"""Why an operation is left to graphql-core. Neither error ever reaches a client.

NotCompilableError  something of the operation is unknown to the compiler: known before it is executed
UnexpectedError     a value is not plainly what its type says: found while it is executed
"""

from __future__ import annotations


class NotCompilableError(Exception):
    """The operation can't be compiled; the message says what is unknown to the compiler."""


class UnexpectedError(Exception):
    """A compiled function met a value that it does not handle."""
