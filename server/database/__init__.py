"""Merlin's database: the live copy in memory, the stores behind it, and the managers that change it."""
