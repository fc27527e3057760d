"""Turns a valid operation into one Python function that builds its result from the read model.

graphql-core does for each field what can be decided once for each operation: which fields there are, how each is read,
what a value of its type looks like. Here that is decided when an operation is compiled, and written down as the source
of a function (`merlin-graphql explain DOCUMENT` prints it). The function knows success only: whatever is not plainly
right is left to graphql-core, which runs the operation anew on the same revision, for the exact nulls and errors.

From an operation to its function: `selections` (which fields), `readings` (how each is read), `arguments`, `plan` (all
of that together), `leaves` and `classes` (what values look like), `source`, and `compiler`, which keeps and counts.
"""
