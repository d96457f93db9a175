"""Checks of the project's code against numbers that the originals produced.

Every module here registers its checks with ``registry.check``; experiments/parity.py imports
them all and picks, for each fixture, the check whose prefix and arrays fit.
"""
