"""Which kernels can run, and running them where the rows are.

A module of kernels is imported when it is first asked for; where it cannot be, or the device is
another, XLA does the work, and one line says so.
"""

from collections.abc import Callable, Sequence
import functools
import importlib
from types import ModuleType
import warnings

import jax

from hrm_jax import partitioning
from hrm_jax.model.kernels import interpret

Names = Sequence[str | None]

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


def is_nvidia() -> bool:
    """Whether that device is what ``NVIDIA`` says."""
    # '9.0' on NVIDIA; AMD's names ('gfx90a') are no numbers.
    device = partitioning.device()
    major = str(getattr(device, 'compute_capability', '')).partition('.')[0]
    return device.platform == 'gpu' and major.isdigit() and int(major) >= 8


def absence(name: str) -> str:
    """Why there is no such module of kernels; '' where there is."""
    if module(name) is not None:
        return ''
    if name == 'tokamax_kernels':
        return "the package tokamax is not installed (pip install 'hrm_jax[tokamax]', Python 3.12)"
    return f'this jax ({jax.__version__}) has not the part of Pallas that it is written in'


def obstacle(name: str) -> str:
    """What keeps a module of kernels for NVIDIA GPUs from running here; '' where nothing does."""
    if absence(name) or is_nvidia() or interpret.is_on():
        return absence(name)
    device = partitioning.device()
    where = getattr(device, 'device_kind', device.platform)
    return f'it needs {NVIDIA}; this is {where}'


def on_each_device(
    kernel: Callable[..., jax.Array],
    operands: Sequence[jax.Array],
    names: Sequence[Names],
    out_shape: Sequence[int],
    out_names: Names,
) -> jax.Array:
    """Runs a kernel on every device's own part: XLA does not know how to shard a kernel.

    Args:
      kernel: of the operands; also takes ``interpret``.
      operands: arrays of the whole mesh.
      names: logical names of the axes of each; an axis without one is whole on every device.
      out_shape, out_names: of the result.
    """
    mesh = partitioning.active_mesh()
    here = functools.partial(kernel, interpret=interpret.is_on())
    if mesh is None or mesh.size == 1:
        return here(*operands)
    specs = tuple(
        partitioning.spec_for(x.shape, own, mesh) for x, own in zip(operands, names, strict=True)
    )
    out = partitioning.spec_for(out_shape, out_names, mesh)
    cut = jax.shard_map(here, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    return cut(*operands)


@functools.cache
def say_once(message: str) -> None:
    """Warns, the first time."""
    warnings.warn(message, stacklevel=2)
