"""Lets `python -m cellwall` be the `cellwall` command."""

import sys

from cellwall.cli import main

if __name__ == "__main__":
    sys.exit(main())
