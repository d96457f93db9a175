"""ARC at test time: a model adapts to the demonstrations of new tasks, and answers their tests."""
