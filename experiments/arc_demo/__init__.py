"""A small model learns easy ARC tasks, adapts to unseen ones, and its submission is scored."""
