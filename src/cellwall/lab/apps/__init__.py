"""The programs that make a lab's traffic: one light process per unit, of the standard library alone."""
