"""hrm_jax: the Hierarchical Reasoning Model and its family in JAX and Flax."""

__version__ = '0.1.0'

# Name -> module. Loading these takes JAX and seconds; the rest of the package works without.
_LAZY = {
    'Solver': 'hrm_jax.inference.solver',
    'HrmConfig': 'hrm_jax.interop.transformers_config',
    'HrmModel': 'hrm_jax.interop.transformers_style',
    'HrmForCausalLM': 'hrm_jax.interop.transformers_style',
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__():
    return [*globals(), *_LAZY]
