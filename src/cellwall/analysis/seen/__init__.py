"""Policies and what was seen: replayed against it, coloured by it, and mined from it."""
