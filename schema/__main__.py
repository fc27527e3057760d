"""Prints the schema in GraphQL's definition language: `python -m schema`."""

from schema.build import make_schema, sdl_of

print(sdl_of(make_schema()), end="")  # noqa: T201 - it is what this is for
