"""The endpoints beside GraphQL: pages, the login, health checks, the schema as text."""
