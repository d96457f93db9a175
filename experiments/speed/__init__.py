"""Times of single parts: early exit, scoring of ARC predictions, SRU beside the original's."""
