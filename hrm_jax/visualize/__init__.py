"""Looking at what a model does: traces of its reasoning, boards as text, pictures."""
