"""``python -m experiments.parity DIR``: our numbers against those that the originals produced.

Every other module registers its checks with ``registry.check``; ``__main__`` imports them all and
picks for each fixture the check whose prefix and arrays fit.
"""
