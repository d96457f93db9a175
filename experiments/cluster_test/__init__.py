"""Runs against real schedulers and stores, disturbed on purpose; see __main__.py."""
