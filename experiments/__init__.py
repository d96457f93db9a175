"""Scripts around the project: parity, benchmarks, ablations, launch recipes. Imported by nobody."""
