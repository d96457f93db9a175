"""hrm_jax: the Hierarchical Reasoning Model and its family in JAX and Flax."""

import importlib.util
import platform
import warnings

__version__ = '0.1.0'

if importlib.util.find_spec('fcntl') is None:
    raise ImportError(
        'hrm_jax runs on Linux and macOS. On Windows use it inside WSL2 (wsl --install, then '
        'install Python and hrm_jax there); this Python has no module fcntl.'
    )
if (platform.system(), platform.machine()) == ('Darwin', 'x86_64') and (
    importlib.util.find_spec('jax') is None
):
    # A warning, as data_builders work there.
    warnings.warn(
        'JAX has no packages for Macs with Intel processors, so hrm_jax can only build data sets '
        'here; train and solve on Linux or on a Mac with Apple silicon. On such a Mac this Python '
        'is one for Intel (Rosetta): install one for arm64.',
        stacklevel=2,
    )

# Name -> module. Loading these takes JAX and seconds; the rest of the package works without.
_LAZY = {
    'Solver': 'hrm_jax.inference.solver',
    'fit': 'hrm_jax.fitting',
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
