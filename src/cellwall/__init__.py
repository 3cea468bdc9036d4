"""Microsegmentation for Linux fleets: one policy, one meaning, enforced everywhere."""

__version__ = "0.1.0"
