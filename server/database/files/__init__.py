"""Merlin's files beside runs: which server threads read and write them, and where they may be."""
