"""Microsegmentation for Linux fleets: one policy, one meaning, enforced everywhere."""
