"""The server process: uvicorn, its sockets, its connections, and its end."""
