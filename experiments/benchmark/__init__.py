"""``python -m experiments.benchmark``: speed of the programs, beside the original's own code."""
