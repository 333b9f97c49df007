"""Checks for users' own code: numerical gradient checks and comparisons."""
