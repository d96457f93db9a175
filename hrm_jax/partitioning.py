"""Partitioning: the mesh builder and the table from logical to mesh axes."""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
import math
from typing import Any

from flax import linen as nn
import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from hrm_jax import types
from hrm_jax.config import ExperimentConfig
from hrm_jax.config.mesh import MESH_AXES, MeshConfig
from hrm_jax.config.model import ModelConfig
from hrm_jax.config.sections import GradientSums
from hrm_jax.errors import ConfigError

DATA_AXIS, FSDP_AXIS, MODEL_AXIS = MESH_AXES
ROW_AXES = (DATA_AXIS, FSDP_AXIS)
# FLOPs that one call may give to a device, so that a stop signal is answered within about a second.
_CALL_FLOPS = {'cpu': 2e10}
_CALL_FLOPS_OF_OTHERS = 1e13  # GPUs and TPUs

# Logical axis name -> mesh axes, in the order in which they claim a mesh axis: an activation's
# rows take fsdp before its channels can. What is not listed is replicated, and so is an axis
# that its mesh axes do not divide.
LOGICAL_RULES = (
    (types.BATCH, ROW_AXES),
    (types.PUZZLES, MESH_AXES),
    (types.HEADS, MODEL_AXIS),
    (types.MLP, MODEL_AXIS),
    (types.CHANNELS, MODEL_AXIS),
    (types.EMBED, FSDP_AXIS),
)


def make_mesh(
    # jax names the class in a way that looks like a variable.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
    config: MeshConfig = MeshConfig(),
) -> Mesh:
    """Returns the mesh (data, fsdp, model) over all devices of all processes, or the given ones.

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    devices = list(devices or jax.devices())
    # Auto: linen's Embed fails on sharded tables under JAX's default, Explicit.
    return jax.make_mesh(
        config.shape(len(devices)),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=devices,
    )


def describe(mesh: Mesh) -> str:
    """Names the devices, how they are arranged, and the processes they belong to."""
    text = f'{mesh.size} x {mesh.devices.flat[0].device_kind}'
    axes = [f'{axis} {size}' for axis, size in mesh.shape.items() if size > 1]
    text += f' ({" x ".join(axes)})' if axes else ''
    processes = jax.process_count()
    return text + (f' in {processes} processes' if processes > 1 else '')


def row_shards(mesh: Mesh) -> int:
    """Number of shards of the rows of a batch."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def check_batch_size(name: str, batch_size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises ConfigError where the global batch does not divide over the mesh."""
    ways = row_shards(mesh) * micro_batches
    if batch_size % ways:
        lower = batch_size // ways * ways
        parts = f'{row_shards(mesh)} devices that share the rows'
        if micro_batches > 1:
            parts = f'{micro_batches} micro-batches times the {parts} ({ways})'
        raise ConfigError(
            f'{name} must be a multiple of the {parts}; got {batch_size}. '
            f'Use {lower or ways} or {lower + ways}, or fewer devices.'
        )


def check_fits(config: ExperimentConfig, mesh: Mesh, training: bool = True) -> None:
    """Raises ConfigError where batches or the model do not divide over the devices.

    Args:
      config: the experiment.
      mesh: the devices.
      training: False looks at the evaluation batch only.
    """
    train = config.train
    check_batch_size('eval.global_batch_size', config.eval_batch_size, mesh)
    if training:
        check_batch_size(
            'train.global_batch_size', train.global_batch_size, mesh, train.micro_batches
        )
    check_model(config.model, mesh)


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Raises ConfigError where the axis ``model`` cannot shard the model's heads or units."""
    ways = mesh.shape[MODEL_AXIS]
    sizes = {'the inner size of the gated unit': model.mlp_dim}
    if model.block in ('attention', 'transformer'):
        sizes['model.num_heads'] = model.num_heads
    if model.symbol_exchange.startswith('attention'):
        sizes['model.symbol_heads'] = model.symbol_heads
    if model.is_recurrent:
        sizes = {'model.hidden_size': model.hidden_size}
    for name, size in sizes.items():
        if size % ways:
            raise ConfigError(
                f'{name} must be a multiple of mesh.model to be sharded over it; got {size} and '
                f'{ways}. Use a smaller mesh.model.'
            )


_active_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar('mesh', default=None)
_wide_sums: contextvars.ContextVar[bool] = contextvars.ContextVar('wide sums', default=False)


@contextlib.contextmanager
def activate(mesh: Mesh, gradient_sums: GradientSums = 'compute') -> Iterator[None]:
    """Makes ``constrain`` place activations on ``mesh`` while a function is traced.

    Args:
      mesh: the devices.
      gradient_sums: ``train.gradient_sums``, for ``sums_in_float32``.
    """
    wide = gradient_sums == 'float32'
    if gradient_sums == 'auto':
        wide = row_shards(mesh) > 1 and mesh.devices.flat[0].platform == 'cpu'
    tokens = _active_mesh.set(mesh), _wide_sums.set(wide)
    try:
        yield
    finally:
        _active_mesh.reset(tokens[0])
        _wide_sums.reset(tokens[1])


def sums_in_float32() -> bool:
    """Whether gradients of weights leave their products as float32 (model/gradient_sums.py)."""
    return _wide_sums.get()


def active_mesh() -> Mesh | None:
    """The mesh that ``activate`` set, or None."""
    return _active_mesh.get()


def device() -> Any:
    """A device that the function being traced is for: it need not be one of this machine's."""
    mesh = active_mesh()
    return jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]


def on_cpu() -> bool:
    """Whether that device is a CPU, for whose compiler some things are written otherwise."""
    return device().platform == 'cpu'


def is_cut(names: Sequence[str]) -> bool:
    """Whether the active mesh has devices along the mesh axis of one of these names."""
    mesh, rules = active_mesh(), dict(LOGICAL_RULES)
    if mesh is None:
        return False
    found = {axis for name in names for axis in np.atleast_1d(rules.get(name, []))}
    return any(mesh.shape[axis] > 1 for axis in found)


def spec_for(shape: Sequence[int], names: Sequence[str | None], mesh: Mesh) -> PartitionSpec:
    """Mesh axes of an array by the logical names of its axes; what does not divide stays whole."""
    wanted = nn.logical_to_mesh_axes(names, LOGICAL_RULES) or ()
    found = []
    for size, axes in zip(shape, wanted, strict=True):
        axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
        while axes and size % math.prod(mesh.shape[axis] for axis in axes):
            axes = axes[:-1]
        found.append(axes or None)
    return PartitionSpec(*found)


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Fixes the sharding of an activation by the logical names of its axes.

    Does nothing outside ``activate``. Without it the compiler may keep whole activations on
    every device.
    """
    mesh = active_mesh()
    if mesh is None:
        return x
    sharding = NamedSharding(mesh, spec_for(x.shape, names, mesh))
    return jax.lax.with_sharding_constraint(x, sharding)


def is_split_cpu(mesh: Mesh) -> bool:
    """Whether the mesh is one process's CPU, split into devices that only share the rows."""
    by_rows = mesh.size > 1 and mesh.shape[DATA_AXIS] == mesh.size
    return by_rows and mesh.devices.flat[0].platform == 'cpu' and jax.process_count() == 1


def separate_parts() -> int:
    """Parts of the rows whose sums an evaluation leaves to the host, under ``activate``; or 1.

    On a split CPU: a program without collectives needs no thread that waits for another device, so
    that each device does with one thread (run/cpu_devices.py).
    """
    mesh = active_mesh()
    return row_shards(mesh) if mesh is not None and is_split_cpu(mesh) else 1


def sums_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of the sums of an evaluation: see ``separate_parts``."""
    return batch_sharding(mesh) if is_split_cpu(mesh) else replicated(mesh)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over the axes that share a batch."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def boxed_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of linen boxes (abstract or not) by their logical names."""

    def sharding(leaf):
        if not isinstance(leaf, nn.LogicallyPartitioned):
            return replicated(mesh)
        if not jax.tree.leaves(leaf.value):  # another optimizer's parameter
            return leaf.value
        return NamedSharding(mesh, spec_for(leaf.value.shape, leaf.names, mesh))

    return jax.tree.map(
        sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )


def process_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Rows of a global batch of ``size`` that are on this process's devices, ascending.

    Processes that differ only along the axis ``model`` hold the same rows.
    """
    own = np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices)
    (parts,) = np.nonzero(own.any(axis=2).reshape(-1))
    each = size // row_shards(mesh)
    return (parts[:, None] * each + np.arange(each)).reshape(-1)


def put_global(tree: Any, mesh: Mesh) -> Any:
    """Makes global arrays, sharded over rows, from this process's rows (``process_rows``)."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    held = len(process_rows(mesh, row_shards(mesh)))

    def place(rows):
        rows = np.asarray(rows)
        size = len(rows) * row_shards(mesh) // held
        own = process_rows(mesh, size)

        def shard(index):
            first = np.searchsorted(own, index[0].start or 0)
            return rows[first : first + size // row_shards(mesh)]

        return jax.make_array_from_callback((size, *rows.shape[1:]), sharding, shard)

    return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
    """Whole numpy arrays of global ones, on every process; all of them have to call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def steps_per_call(flops_of_row: float, rows: int, mesh: Mesh) -> int:
    """Number of steps of about a second at most; depends on nothing that is measured.

    Args:
      flops_of_row: FLOPs of a step on one row.
      rows: global batch size.
      mesh: devices that share the rows; those of a CPU share its cores.
    """
    platform = mesh.devices.flat[0].platform
    parts = jax.process_count() if platform == 'cpu' else mesh.devices.size
    allowed = _CALL_FLOPS.get(platform, _CALL_FLOPS_OF_OTHERS)
    return max(1, int(allowed // (flops_of_row * rows / parts)))
