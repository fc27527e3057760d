"""What runs right now: sources of observations, beside Merlin's records."""
