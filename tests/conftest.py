"""Settings of the whole suite."""

import os

from hrm_jax import compile_cache

# Most of the suite's time is XLA's compiler; tests and the processes they start share its work.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
compile_cache.enable()
