"""The stores: Redis, SQLite and memory behind one interface."""
