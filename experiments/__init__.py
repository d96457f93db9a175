"""Scripts around the project: parity, benchmarks, ablations, launches. No module imports it."""
