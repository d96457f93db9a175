"""Settings of JAX that must come before its first use."""

import os
from pathlib import Path


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that only the first run compiles.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder; JAX_ENABLE_COMPILATION_CACHE=false
    turns it off. Where there is no folder that can be written (no HOME, a read-only one) programs
    are compiled each time. Must be called before the first compilation.
    """
    import jax

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        folder = _cache_folder()
        if folder is None:
            return
        jax.config.update('jax_compilation_cache_dir', str(folder))
    if not os.environ.get('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    if not os.environ.get('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'):
        jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _cache_folder() -> Path | None:
    """A folder of the user's that can be written, or None."""
    try:
        base = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache').expanduser()
        folder = base / 'hrm_jax' / 'compiled'
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: HOME is unset and the user has no entry
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
