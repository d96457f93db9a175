"""``python -m experiments.fault_drill``: a run that is killed again and again, and compared."""
