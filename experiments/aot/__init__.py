"""What experiments/aot_compile.py is made of."""
