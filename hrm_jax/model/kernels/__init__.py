"""Kernels of our own, and those of libraries, behind one signature: [B, T, N, K] three times."""
