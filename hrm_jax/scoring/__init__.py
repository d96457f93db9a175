"""Scores of predictions: ARC votes, text metrics."""
