"""Reads checkpoints through orbax: a whole training state, or the model alone; checks them."""

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from etils import epath
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.checkpoint import digests, layout
from hrm_jax.checkpoint.places import near, plain
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.types import LatentState, TrainState, Weights

_ITEMS = ('params', 'constants', 'opt_state', 'carry', 'rng', 'puzzle_table', 'ema')


class _Levels(struct.PyTreeNode):
    """The stored form of a state that has two levels and nothing else.

    Checkpoints of models without flow, chains and running means have had it from the beginning.
    """

    high: Any
    low: Any


def _stored(carry: Any) -> Any:
    latent = getattr(carry, 'latent', None)
    if not isinstance(latent, LatentState):
        return carry
    more = (latent.answer, latent.alive, latent.weights)
    plain = all(part is None for part in more)
    return carry.replace(latent=_Levels(latent.high, latent.low)) if plain else carry


def _loaded(carry: Any) -> Any:
    latent = getattr(carry, 'latent', None)
    if not isinstance(latent, _Levels):
        return carry
    return carry.replace(latent=LatentState(latent.high, latent.low))


def items_of(state: TrainState) -> dict[str, Any]:
    """The arrays of a state by the name of their item; None for what the state has not.

    Weights are three items, so that inference reads no more than it needs. An item without an array
    (constants, where the states to start from are drawn) is not written: orbax refuses it.
    """
    weights = state.weights
    return {
        'params': weights.params,
        'constants': weights.constants,
        'puzzle_table': weights.puzzle_table,
        'ema': state.ema,
        'opt_state': state.opt_state,
        'carry': _stored(state.carry),
        'rng': state.rng,
    }


def _with_items(state: TrainState, items: Mapping[str, Any]) -> TrainState:
    """``state`` with some of its items replaced."""
    items = dict(items)
    if 'carry' in items:
        items['carry'] = _loaded(items['carry'])
    parts = [field.name for field in dataclasses.fields(Weights)]
    weights = state.weights.replace(**{name: items.pop(name) for name in parts if name in items})
    return state.replace(weights=weights, **items)


def wrapped(tree: Any) -> Any:
    """orbax stores trees, not single arrays: those have the key 'array'."""
    return {'array': tree} if jax.tree_util.all_leaves([tree]) else tree


def _unwrapped(tree: Any) -> Any:
    return tree['array'] if isinstance(tree, Mapping) and set(tree) == {'array'} else tree


def restore(
    path: Path, abstract: TrainState, without: tuple[str, ...] = ()
) -> tuple[TrainState, Any]:
    """Reads a whole training state onto the shardings of ``abstract``.

    Args:
      path: folder of the checkpoint.
      abstract: shapes, dtypes and shardings (``train_state.abstract``).
      without: items that are not read; the state has those of ``abstract``.

    Returns:
      The state and the position of the data iterator.

    Raises:
      DamagedCheckpoint: a file is missing or cannot be read, an array is not what was saved, or
        not one of ``abstract``.
    """
    import orbax.checkpoint as ocp

    trees = {
        name: tree
        for name, tree in items_of(abstract).items()
        if name not in without and jax.tree.leaves(tree)
    }
    items = {name: ocp.args.StandardRestore(wrapped(tree)) for name, tree in trees.items()}
    meta = layout.read_meta(path)
    saved = _digests_of(path, meta)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            read = reader.restore(
                plain(path), args=ocp.args.Composite(data=ocp.args.JsonRestore(), **items)
            )
        if saved is not None:
            found = digests.start({name: read[name] for name in trees}).fetch()
            digests.compare(saved['arrays'], found, set(trees))
            _compare_position(saved, read['data'])
        if not isinstance(read['data'], Mapping):
            raise ValueError(f'data/metadata is {read["data"]!r:.60}')
    except Exception as error:  # tensorstore and orbax raise many kinds; all mean the same here
        raise layout.damaged(path, error) from error
    step = jax.device_put(jnp.asarray(meta['step'], jnp.int32), abstract.step.sharding)
    state = _with_items(abstract, {name: _unwrapped(read[name]) for name in trees})
    return state.replace(step=step), read['data']


def _digests_of(path: Path, meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """The digests of a checkpoint that has all of its items; None: written before they were.

    Raises:
      DamagedCheckpoint: an item is missing, or the digests are damaged.
    """
    try:
        saved = digests.read(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise layout.damaged(path, error) from error
    if saved is None and meta.get('has_digests'):
        raise layout.damaged(path, FileNotFoundError(f'it has no {digests.ITEM}'))
    layout.check_complete(path, meta, saved)
    return saved


def _compare_position(saved: Mapping[str, Any], position: Any) -> None:
    if saved['json'].get('data') != layout.of_json(position):
        raise ValueError('data/metadata is not what was saved')


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What inference needs of a checkpoint, its arrays in numpy.

    Attributes:
      step: train steps done.
      weights: the model; its puzzle table has ``embedding_rows`` rows.
      ema: moving average of ``weights.params``, or None: the run kept none.
      config: the configuration of the run, sizes of the data set included.
      meta: everything else that the checkpoint records about itself.
    """

    step: int
    weights: Weights
    ema: Any
    config: ExperimentConfig
    meta: dict[str, Any]

    def inference_weights(self, use_ema: bool = True) -> Weights:
        """The moving average where there is one and it is wanted, else the weights."""
        return self.weights.averaged(self.ema if use_ema else None)


def _read_numpy(path: Path) -> Any:
    import orbax.checkpoint as ocp

    # A handler, not a Checkpointer: that one waits for the other processes of a run.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
        folder = epath.Path(path)
        tree = reader.metadata(folder).tree
        _check_memory(path, jax.tree.leaves(tree))
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=numpy)
        return reader.restore(folder, args=args)


def _check_memory(path: Path, stated: list[Any]) -> None:
    """Raises ValueError where arrays of the stated shapes do not fit in this machine's memory."""
    needed = sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in stated)
    there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if needed > there:
        raise ValueError(
            f'{path.name} states arrays of {needed / 1e9:,.1f} GB; this machine has '
            f'{there / 1e9:,.1f} GB of memory'
        )


def _read_items(path: Path, names: Iterable[str], saved: Mapping[str, Any] | None) -> dict:
    """Items that a checkpoint has, as numpy, compared with their digests.

    Raises:
      ValueError, OSError and others of orbax: an array cannot be read or is not what was saved.
    """
    folder = plain(path)
    trees = {name: _read_numpy(folder / name) for name in names if (path / name).exists()}
    if saved is not None:
        found = {name: digests.of_numpy(x) for name, x in digests.named(trees).items()}
        digests.compare(saved['arrays'], found, set(trees))
    return {name: _unwrapped(tree) for name, tree in trees.items()}


def read_arrays(path: Path) -> dict[str, Any]:
    """Returns all arrays of a training checkpoint by item, as numpy.

    Raises:
      DamagedCheckpoint: a file cannot be read, or an array is not what was saved.
    """
    saved = _digests_of(path, layout.read_meta(path))
    try:
        position = layout.read_json(path / 'data' / 'metadata')
        if saved is not None:
            _compare_position(saved, position)
        return _read_items(path, _ITEMS, saved)
    except Exception as error:
        raise layout.damaged(path, error) from error


def verify(path: Path) -> str:
    """Reads every array of a checkpoint and compares it with its digest.

    Returns:
      One line: how many arrays and bytes were compared, or that it has no digests.

    Raises:
      DamagedCheckpoint: a file is missing or cannot be read, or an array is not what was saved.
    """
    meta = layout.read_meta(path)
    if layout.is_resumable(meta):
        trees = read_arrays(path)
    else:
        saved = read_model(path)
        trees = {'weights': saved.weights, 'ema': saved.ema}
    leaves = jax.tree.leaves(trees)
    size = sum(leaf.nbytes for leaf in leaves)
    text = f'{len(leaves)} arrays, {size / 2**20:.1f} MiB'
    if digests.read(path) is None:
        return f'{text}, all read; it was saved without digests, so values are not compared'
    return f'{text}, all as saved'


def read_model(path: Path) -> SavedModel:
    """Reads what inference needs, whatever devices the checkpoint was written on.

    The configuration's ``data.path`` is where the data set is now, if it is found from here.

    Raises:
      CheckpointError: it is of another version.
      DamagedCheckpoint: a file is missing or cannot be read, or an array is not what was saved.
    """
    meta = layout.read_meta(path)
    saved = _digests_of(path, meta)
    try:
        config = ExperimentConfig.from_dict(meta['config'])
        trees = _read_items(path, ('params', 'ema', 'constants', 'puzzle_table'), saved)
    except ConfigError as error:
        raise CheckpointError(f'{path} is of another version of hrm_jax: {error}') from error
    except Exception as error:
        raise layout.damaged(path, error) from error
    table = trees.get('puzzle_table')
    if table is not None and len(table) == config.model.table_rows:
        # Without the rows that only pad it while training.
        table = table[: config.model.embedding_rows]
    data = dataclasses.replace(config.data, path=near(config.data.path, path))
    config = dataclasses.replace(config, data=data)
    weights = Weights(trees['params'], trees.get('constants', {}), table)
    return SavedModel(meta['step'], weights, trees.get('ema'), config, meta)
