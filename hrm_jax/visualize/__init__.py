"""Visualization of a model: traces of its reasoning, boards as text, pictures."""
