"""Checkpoints in and out: the original's PyTorch files, transformers-style folders, safetensors."""
