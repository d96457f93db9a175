"""Builders of the data sets: one command each, ``python -m data_builders NAME``."""
