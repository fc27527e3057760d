"""Access control: who a client is, what it may do, and how often."""
