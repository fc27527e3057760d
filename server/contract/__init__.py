"""Checks of the GraphQL contract, for a team's CI."""
