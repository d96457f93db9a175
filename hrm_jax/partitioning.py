"""Where arrays live: the one mesh builder and the one table from logical to mesh axes."""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from hrm_jax import types

DATA_AXIS = 'data'

# Logical axis name -> mesh axis. What is not listed is replicated.
LOGICAL_RULES = ((types.BATCH, DATA_AXIS),)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh over all devices (or the given ones) with the one axis ``data``."""
    devices = list(devices or jax.devices())
    # Auto: linen's Embed fails on sharded tables under JAX's default, Explicit.
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError where the global batch does not divide over the mesh."""
    ways = mesh.shape[DATA_AXIS]
    if batch_size % ways:
        lower = batch_size // ways * ways
        raise ValueError(
            f'{name} must be a multiple of the {ways} devices; got {batch_size}. '
            f'Use {lower or ways} or {lower + ways}, or fewer devices.'
        )


_active_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar('mesh', default=None)


@contextlib.contextmanager
def activate(mesh: Mesh) -> Iterator[None]:
    """Makes ``constrain`` place activations on ``mesh`` while a function is traced."""
    token = _active_mesh.set(mesh)
    try:
        yield
    finally:
        _active_mesh.reset(token)


def constrain(x: jax.Array, names: Sequence[str]) -> jax.Array:
    """Fixes the sharding of an activation by the logical names of its axes.

    Does nothing outside ``activate``. Without it the compiler may keep whole activations on
    every device.
    """
    mesh = _active_mesh.get()
    if mesh is None:
        return x
    spec = nn.logical_to_mesh_axes(names, LOGICAL_RULES)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def boxed_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of linen boxes (abstract or not) by their logical names."""
    specs = nn.get_partition_spec(boxed)
    return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_RULES)


def put_global(tree: Any, mesh: Mesh) -> Any:
    """Makes global arrays, sharded over rows, from this process's rows in numpy."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), tree
    )


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array that is spread over rows, as ``put_global`` took them."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
