"""The commands of `merlin-graphql`, one module each."""
