"""The design load, measured: ratios taken in one run, never an assertion."""
