"""Settings of JAX that must come before its first use."""

import os
from pathlib import Path


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that only the first run compiles.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder; JAX_ENABLE_COMPILATION_CACHE=false
    turns it off. Must be called before the first compilation.
    """
    import jax

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        jax.config.update('jax_compilation_cache_dir', str(Path(base) / 'hrm_jax' / 'compiled'))
    if not os.environ.get('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    if not os.environ.get('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'):
        jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
