"""The study: which technique gives what at a size that two CPU cores train, at equal compute."""
