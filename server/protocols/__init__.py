"""GraphQL over HTTP, server-sent events, multipart responses and websockets, and the service that they share."""
