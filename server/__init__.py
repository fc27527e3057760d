"""The merlin-graphql server: command line, ASGI app and the live copy of Merlin's database."""

__version__ = "0.2.0"
