"""``python -m experiments.outcome``: training here beside the originals' own code."""
