"""``python -m experiments.pathfinding``: the path finding study, and one board step by step."""
