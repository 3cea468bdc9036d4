"""Databases as earlier versions left them, as SQL; `python -m tests.contract.schemas` adds one of the newest schema."""
