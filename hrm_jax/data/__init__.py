"""Puzzles on disk, in memory and in batches."""
