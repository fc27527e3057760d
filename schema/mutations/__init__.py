"""The mutations, one module a domain, each with its inputs."""
