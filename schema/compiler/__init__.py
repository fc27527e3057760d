"""Turns a valid operation into one Python function that builds its result from the read model.

For each field of each result, graphql-core decides what could be decided once for each operation: which fields there
are, how each is read, what a value of its type looks like. Here that is decided when an operation is compiled, and
written down as the source of a function (`merlin-graphql explain DOCUMENT` prints it). The function handles success
only: whatever is not plainly right is left to graphql-core, which runs the operation again on the same revision, for
the exact nulls and errors.

From an operation to its function: `selections` (which fields), `accessors` (how each is read), `arguments`, `plan` (all
of that together), `leaves` and `classes` (what values look like), `codegen`, and `compiler`, which keeps the functions
and counts executions.
"""
