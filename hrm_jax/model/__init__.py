"""The recursive core and its parts, as Flax linen modules."""
