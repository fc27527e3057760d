"""GraphQL over HTTP, over server-sent events and over websockets, and the service that they share."""
