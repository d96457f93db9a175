"""hrm_jax: the Hierarchical Reasoning Model and its family in JAX and Flax."""

__version__ = '0.1.0'

# Loading these takes jax and seconds; the rest of the package works without.
_TRANSFORMERS_STYLE = {
    'HrmConfig': 'hrm_jax.interop.transformers_config',
    'HrmModel': 'hrm_jax.interop.transformers_style',
    'HrmForCausalLM': 'hrm_jax.interop.transformers_style',
}


def __getattr__(name: str):
    if name not in _TRANSFORMERS_STYLE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(_TRANSFORMERS_STYLE[name]), name)


def __dir__():
    return [*globals(), *_TRANSFORMERS_STYLE]
