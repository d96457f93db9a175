"""Which kernels can run: modules that this jax has, and what the device of a trace is."""

import functools
import importlib
from types import ModuleType
from typing import Any
import warnings

import jax

from hrm_jax import partitioning

NVIDIA = 'an NVIDIA GPU of compute capability 8.0 or later'


@functools.cache
def module(name: str) -> ModuleType | None:
    """A module of kernels, imported when it is first asked for; None: this jax cannot have it.

    Pallas takes most of a second to import, and jax announces the end of its Triton backend.
    """
    try:
        return importlib.import_module(f'hrm_jax.model.kernels.{name}')
    except ImportError:
        return None


def device() -> Any:
    """A device that the function being traced is for: it need not be one of this machine's."""
    mesh = partitioning.active_mesh()
    return jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]


def is_nvidia() -> bool:
    """Whether that device is what ``NVIDIA`` says."""
    # '9.0' on NVIDIA; AMD's names ('gfx90a') are no numbers.
    major = str(getattr(device(), 'compute_capability', '')).partition('.')[0]
    return device().platform == 'gpu' and major.isdigit() and int(major) >= 8


def without_pallas() -> str:
    """Why there is no module of kernels."""
    return f'this jax ({jax.__version__}) has not the part of Pallas that it is written in'


@functools.cache
def say_once(message: str) -> None:
    """Warns, the first time."""
    warnings.warn(message, stacklevel=2)
