"""Reads and writes checkpoints through orbax: a whole training state, or the model alone."""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hrm_jax.checkpoint import layout
from hrm_jax.config import CheckpointConfig, ExperimentConfig
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.types import TrainState, Weights

_ALWAYS = ('params', 'constants', 'opt_state', 'carry', 'rng')
_OPTIONAL = ('puzzle_table', 'ema')


def items_of(state: TrainState) -> dict[str, Any]:
    """The arrays of a state by the name of their item; None for what the state has not.

    Weights are three items, so that inference reads no more than it needs.
    """
    weights = state.weights
    return {
        'params': weights.params,
        'constants': weights.constants,
        'puzzle_table': weights.puzzle_table,
        'ema': state.ema,
        'opt_state': state.opt_state,
        'carry': state.carry,
        'rng': state.rng,
    }


def _with_items(state: TrainState, items: Mapping[str, Any]) -> TrainState:
    """``state`` with some of its items replaced."""
    items = dict(items)
    parts = [field.name for field in dataclasses.fields(Weights)]
    weights = state.weights.replace(**{name: items.pop(name) for name in parts if name in items})
    return state.replace(weights=weights, **items)


def _wrapped(tree: Any) -> Any:
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
      CheckpointError: it is damaged, or its arrays are not those of ``abstract``.
    """
    trees = {
        name: tree
        for name, tree in items_of(abstract).items()
        if name not in without and (name in _ALWAYS or tree is not None)
    }
    items = {name: ocp.args.StandardRestore(_wrapped(tree)) for name, tree in trees.items()}
    meta = layout.read_meta(path)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            read = reader.restore(
                layout.absolute(path),
                args=ocp.args.Composite(data=ocp.args.JsonRestore(), **items),
            )
    except Exception as error:  # tensorstore and orbax raise many kinds; all mean the same here
        raise layout.damaged(path, error) from error
    step = jax.device_put(jnp.asarray(meta['step'], jnp.int32), abstract.step.sharding)
    state = _with_items(abstract, {name: _unwrapped(read[name]) for name in trees})
    return state.replace(step=step), read['data']


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What inference needs of a checkpoint, its arrays in numpy.

    Attributes:
      step: train steps done.
      weights: the model; its puzzle table has ``num_puzzle_identifiers`` rows.
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
    # A handler, not a Checkpointer: that one waits for the other processes of a run.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(layout.absolute(path)).tree
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=numpy)
        return _unwrapped(reader.restore(layout.absolute(path), args=args))


def read_arrays(path: Path) -> dict[str, Any]:
    """Returns all arrays of a training checkpoint by item, as numpy.

    Raises:
      DamagedCheckpoint: a file cannot be read.
    """
    layout.read_meta(path)
    try:
        json.loads((path / 'data' / 'metadata').read_text(encoding='utf-8'))
        return {
            name: _read_numpy(path / name)
            for name in _ALWAYS + _OPTIONAL
            if name in _ALWAYS or (path / name).exists()
        }
    except Exception as error:
        raise layout.damaged(path, error) from error


def read_model(path: Path) -> SavedModel:
    """Reads what inference needs, whatever devices the checkpoint was written on.

    Raises:
      CheckpointError: it is damaged.
    """
    meta = layout.read_meta(path)
    try:
        config = ExperimentConfig.from_dict(meta['config'])
        trees = {
            name: _read_numpy(path / name) if (path / name).exists() else None
            for name in ('params', 'ema', 'constants', 'puzzle_table')
        }
        if trees['params'] is None or trees['constants'] is None:
            raise FileNotFoundError('params or constants are missing')
    except ConfigError as error:
        raise CheckpointError(f'{path} is of another version of hrm_jax: {error}') from error
    except Exception as error:
        raise layout.damaged(path, error) from error
    table = trees['puzzle_table']
    if table is not None and len(table) == config.model.table_rows:
        # Without the rows that only pad it while training.
        table = table[: config.model.num_puzzle_identifiers]
    weights = Weights(trees['params'], trees['constants'], table)
    return SavedModel(meta['step'], weights, trees['ema'], config, meta)


class Saver:
    """Writes the checkpoints of one run in the background and deletes the superfluous ones.

    Args:
      workdir: the run's folder, locked by this process.
      config: how many to keep.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig):
        self._workdir = Path(workdir)
        self._folder = layout.root(workdir) / layout.FOLDER
        self._writing: int | None = None
        policies: list[Any] = [checkpoint_managers.LatestN(config.keep_latest)]
        if config.keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: layout.score(metrics, config),
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: layout.score(metrics, config),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        folder = layout.absolute(self._folder)
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except Exception as error:
            for step in layout.steps(self._workdir):
                try:
                    json.loads((folder / str(step) / 'metrics' / 'metrics').read_text())
                except (OSError, ValueError):
                    raise layout.damaged(folder / str(step), error) from error
            raise self._failed('can not be opened', error) from error

    def _failed(self, what: str, error: BaseException) -> CheckpointError:
        text = str(error).strip()
        full = 'No space left' in text or 'ENOSPC' in text or 'RESOURCE_EXHAUSTED' in text
        full = full or 'File too large' in text or 'Disk quota' in text
        good = [step for step in layout.steps(self._workdir) if step != self._writing]
        reason = 'the disk is full' if full else (text or type(error).__name__).splitlines()[0]
        intact = (
            f'Checkpoints {", ".join(map(str, good))} are intact; correct the cause and give the '
            f'same command again to go on from step {good[-1]}.'
            if good
            else 'There is no earlier checkpoint.'
        )
        return CheckpointError(f'{self._folder} {what}: {reason[:300]}. {intact}')

    def save(self, state: TrainState, data: Any, meta: Mapping[str, Any]) -> bool:
        """Copies the state, then writes in the background. False if the step is there already.

        Args:
          state: as after ``meta['step']`` steps; may be donated once this returns.
          data: position of the data iterator after the same number of batches, JSON-able.
          meta: 'step', 'config', 'dataset', 'metrics' (of an evaluation, or empty) and
            whatever else is needed to go on, JSON-able.

        Raises:
          CheckpointError: this or the previous save failed.
        """
        step = int(meta['step'])
        self.wait()
        if step in layout.steps(self._workdir):
            return False
        self._writing = step
        trees = {name: tree for name, tree in items_of(state).items() if tree is not None}
        items = {name: ocp.args.StandardSave(_wrapped(tree)) for name, tree in trees.items()}
        items |= {
            'data': ocp.args.JsonSave(data),
            'meta': ocp.args.JsonSave(layout.as_json(meta)),
        }
        try:
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(**items),
                metrics=dict(meta['metrics'] or {}),
                force=True,
            )
        except Exception as error:
            raise self._failed(f'could not take step {step}', error) from error
        return bool(saved)

    def check(self) -> None:
        """Raises CheckpointError if the save in the background has failed; does not wait."""
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(f'could not take step {self._writing}', error) from error

    def wait(self) -> None:
        """Waits until the last save is on the disk.

        Raises:
          CheckpointError: it failed; earlier checkpoints are named.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(f'could not take step {self._writing}', error) from error
        missing = self._writing is not None and self._writing not in layout.steps(self._workdir)
        if missing and jax.process_index() == 0:  # who gives the folder its name
            raise self._failed(f'could not take step {self._writing}', OSError('not written'))
        self._writing = None

    def advice_after_a_broken_step(self) -> str:
        """Names the last good checkpoint, once it is on the disk."""
        self.wait()
        good = layout.steps(self._workdir)
        where = (
            f'The last good checkpoint is {self._folder / str(good[-1])}. '
            if good
            else 'There is no earlier checkpoint. '
        )
        return where + 'Lower optimizer.lr, lengthen the warm-up or set optimizer.grad_clip_norm.'

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, kind: type | None, *_rest: object) -> None:
        """Finishes the save in the background, also while an error passes through."""
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._failed(f'could not take step {self._writing}', error) from error
