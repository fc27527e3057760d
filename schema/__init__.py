"""The GraphQL schema: types, resolvers, and the engine that executes operations."""
