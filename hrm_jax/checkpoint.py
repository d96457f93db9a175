"""Checkpoints: everything that a run needs to go on exactly where it was, and nothing twice.

A checkpoint is a folder ``checkpoints/STEP`` of independent orbax items: ``params``,
``constants``, ``puzzle_table``, ``ema``, ``opt_state``, ``carry``, ``rng``, ``data`` (position
of the data iterator, JSON) and ``meta`` (step, configuration, dataset metadata, metrics and
log state, JSON). Inference reads params, ema, constants, puzzle_table and meta only, on any
number of devices. A folder appears under its name when it is complete, so a process that is
killed while it saves leaves the earlier checkpoints as they were.
"""

from collections.abc import Mapping
import dataclasses
import json
import math
import os
from pathlib import Path
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hrm_jax import workdir as workdir_lib
from hrm_jax.compatibility import CheckpointError
from hrm_jax.config import CheckpointConfig, ConfigError, ExperimentConfig
from hrm_jax.types import TrainState

FOLDER = 'checkpoints'
_ALWAYS = ('params', 'constants', 'opt_state', 'carry', 'rng')
_OPTIONAL = ('puzzle_table', 'ema')
SET_ASIDE = 'set_aside'  # folder of those that a rewind took out of the way, as STEP.NUMBER
# Written by orbax as the last act before the folder gets its name.
_COMPLETE_MARK = '_CHECKPOINT_METADATA'


def steps(workdir: Path) -> list[int]:
    """Returns the steps with a complete checkpoint, ascending."""
    folder = Path(workdir) / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdigit() and (path / _COMPLETE_MARK).exists()
    )


def resolve(selector: str, workdir: Path) -> Path:
    """Finds a checkpoint's folder.

    Args:
      selector: a step, ``latest``, ``best``, the folder of a checkpoint, a working directory
        (its latest one), or ``set_aside/STEP.NUMBER``.
      workdir: where steps, ``latest`` and ``best`` are looked up.

    Raises:
      CheckpointError: there is no such checkpoint; what there is gets listed.
    """
    if selector in ('latest', 'best') or selector.isdigit():
        known = steps(workdir)
        if not known:
            raise CheckpointError(f'{Path(workdir) / FOLDER} holds no checkpoint yet.')
        step = {'latest': lambda: known[-1], 'best': lambda: _best(workdir, known)}.get(
            selector, lambda: int(selector)
        )()
        if step not in known:
            raise CheckpointError(
                f'{Path(workdir) / FOLDER} has no checkpoint of step {step}. '
                f'It has: {", ".join(map(str, known))}.'
            )
        return Path(workdir) / FOLDER / str(step)
    path = Path(selector)
    if path.parts[:1] == (SET_ASIDE,) and not path.exists():
        path = Path(workdir) / path
    if (path / _COMPLETE_MARK).exists() and re.fullmatch(r'\d+(\.\d+)?', path.name):
        return path
    for base in (path, path.parent):
        if base == path or path.name == FOLDER:
            known = steps(base)
            if known:
                return base / FOLDER / str(known[-1])
    raise CheckpointError(
        f'--checkpoint must be a step, best, latest, or the folder of a checkpoint or of a run; '
        f'{selector!r} is none of these.'
    )


def _score(metrics: Mapping[str, float] | None, config: CheckpointConfig) -> float:
    """Returns a value that grows with quality; -inf where the metric was not measured."""
    value = (metrics or {}).get(config.best_metric)
    if value is None or not math.isfinite(value):
        return -math.inf
    return value if config.best_mode == 'max' else -value


def _best(workdir: Path, known: list[int]) -> int:
    """Step of the best checkpoint, by the metric that its own configuration names."""
    scores = {}
    for step in known:
        meta = read_meta(Path(workdir) / FOLDER / str(step))
        config = ExperimentConfig.from_dict(meta['config']).checkpoint
        scores[step] = _score(meta['metrics'], config)
    best = max(known, key=lambda step: (scores[step], step))
    if scores[best] == -math.inf:
        raise CheckpointError(
            f'no checkpoint in {Path(workdir) / FOLDER} was evaluated with '
            f'{config.best_metric}, so none is the best. Name a step: {known}.'
        )
    return best


def _damaged(path: Path, error: Exception) -> CheckpointError:
    """Says which checkpoint can not be read and which earlier one can be tried."""
    text = f'{type(error).__name__}: {error}'.strip().splitlines()[0][:200]
    others = [step for step in steps(path.parent.parent) if str(step) != path.name]
    earlier = [step for step in others if step < int(float(path.name))] or others
    advice = (
        f'Other checkpoints there: {", ".join(map(str, others))}. Go on from one of them with '
        f'--checkpoint={earlier[-1]}.'
        if others
        else 'There is no other checkpoint in that folder.'
    )
    return CheckpointError(
        f'the checkpoint of step {path.name} can not be read, it is damaged or incomplete: '
        f'{path} ({text}). {advice}'
    )


def read_meta(path: Path) -> dict[str, Any]:
    """Returns step, config, dataset, metrics and log state of a checkpoint.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        meta = json.loads((path / 'meta' / 'metadata').read_text(encoding='utf-8'))
        if meta['step'] != int(float(path.name)):
            raise ValueError(f'its metadata is of step {meta["step"]}')
        return meta
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _json(values: Any) -> Any:
    return json.loads(json.dumps(values))


def _item(tree: Any) -> Any:
    """orbax stores trees, not single arrays: those stand under the key 'array'."""
    return {'array': tree} if jax.tree_util.all_leaves([tree]) else tree


def _content(tree: Any) -> Any:
    return tree['array'] if isinstance(tree, Mapping) and set(tree) == {'array'} else tree


def _composite(**items: Any) -> ocp.args.Composite:
    return ocp.args.Composite(**items)


def restore(path: Path, abstract: TrainState) -> tuple[TrainState, Any]:
    """Reads a whole training state onto the shardings of ``abstract``.

    Args:
      path: folder of the checkpoint.
      abstract: shapes, dtypes and shardings (``train_state.abstract``).

    Returns:
      The state and the position of the data iterator.

    Raises:
      CheckpointError: it is damaged, or its arrays are not those of ``abstract``.
    """
    names = _ALWAYS + tuple(n for n in _OPTIONAL if getattr(abstract, n) is not None)
    items = {name: ocp.args.StandardRestore(_item(getattr(abstract, name))) for name in names}
    meta = read_meta(path)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            read = reader.restore(
                path.absolute(), args=_composite(data=ocp.args.JsonRestore(), **items)
            )
    except Exception as error:  # tensorstore and orbax raise many kinds; all mean the same here
        raise _damaged(path, error) from error
    step = jax.device_put(jnp.asarray(meta['step'], jnp.int32), abstract.step.sharding)
    fields = {name: _content(read[name]) for name in names}
    return dataclasses.replace(abstract, step=step, **fields), read['data']


@dataclasses.dataclass(frozen=True)
class Weights:
    """What inference needs of a checkpoint, as numpy arrays.

    Attributes:
      step: train steps done.
      params, ema: trained weights and their moving average (None: the run kept none).
      constants: initial states of the levels.
      puzzle_table: float32 [num_puzzle_identifiers, E] or None.
      config: the configuration of the run, sizes of the data set included.
      meta: everything else that the checkpoint says about itself.
    """

    step: int
    params: Any
    ema: Any
    constants: Any
    puzzle_table: np.ndarray | None
    config: ExperimentConfig
    meta: dict[str, Any]


def _read_numpy(path: Path) -> Any:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(path.absolute()).item_metadata.tree
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=numpy)
        return _content(reader.restore(path.absolute(), args=args))


def restore_weights(path: Path) -> Weights:
    """Reads what inference needs, whatever devices the checkpoint was written on.

    Raises:
      CheckpointError: it is damaged.
    """
    meta = read_meta(path)
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
        raise _damaged(path, error) from error
    return Weights(step=meta['step'], config=config, meta=meta, **trees)


class Saver:
    """Writes the checkpoints of one run in the background and deletes the superfluous ones.

    Args:
      workdir: the run's folder, locked by this process.
      config: how many to keep.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig):
        self._workdir = Path(workdir)
        self._writing: int | None = None
        policies = [checkpoint_managers.LatestN(config.keep_latest)]
        if config.keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: _score(metrics, config),
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: _score(metrics, config),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        try:
            folder = (self._workdir / FOLDER).absolute()
            self._manager = ocp.CheckpointManager(folder, options=options)
        except Exception as error:
            for step in steps(self._workdir):
                try:
                    json.loads((folder / str(step) / 'metrics' / 'metrics').read_text())
                except (OSError, ValueError):
                    raise _damaged(folder / str(step), error) from error
            raise self._failed('can not be opened', error) from error

    def _failed(self, what: str, error: BaseException) -> CheckpointError:
        text = str(error).strip()
        full = 'No space left' in text or 'ENOSPC' in text or 'RESOURCE_EXHAUSTED' in text
        full = full or 'File too large' in text or 'Disk quota' in text
        good = [step for step in steps(self._workdir) if step != self._writing]
        reason = 'the disk is full' if full else (text or type(error).__name__).splitlines()[0]
        intact = (
            f'Checkpoints {", ".join(map(str, good))} are intact; correct the cause and give the '
            f'same command again to go on from step {good[-1]}.'
            if good
            else 'There is no earlier checkpoint.'
        )
        return CheckpointError(f'{self._workdir / FOLDER} {what}: {reason[:300]}. {intact}')

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
        if step in steps(self._workdir):
            return False
        self._writing = step
        trees = {name: getattr(state, name) for name in _ALWAYS + _OPTIONAL}
        trees = {name: tree for name, tree in trees.items() if tree is not None}
        items = {name: ocp.args.StandardSave(_item(tree)) for name, tree in trees.items()}
        items |= {'data': ocp.args.JsonSave(data), 'meta': ocp.args.JsonSave(_json(meta))}
        try:
            saved = self._manager.save(
                step, args=_composite(**items), metrics=dict(meta['metrics'] or {}), force=True
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
        if self._writing is not None and self._writing not in steps(self._workdir):
            raise self._failed(f'could not take step {self._writing}', OSError('not written'))
        self._writing = None

    def advice_after_a_broken_step(self) -> str:
        """Names the last good checkpoint, once it is on the disk."""
        self.wait()
        good = steps(self._workdir)
        where = (
            f'The last good checkpoint is {self._workdir / FOLDER / str(good[-1])}. '
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


def add_evaluation(path: Path, meta: Mapping[str, Any]) -> None:
    """Adds an evaluation that a stop signal had cut off to an existing checkpoint.

    Args:
      path: folder of the checkpoint.
      meta: its metadata, with the new 'metrics'.
    """
    (path / 'metrics').mkdir(exist_ok=True)
    workdir_lib.write_atomically(path / 'metrics' / 'metrics', json.dumps(meta['metrics']))
    workdir_lib.write_atomically(path / 'meta' / 'metadata', json.dumps(meta))


def set_aside_after(step: int, workdir: Path) -> list[int]:
    """Moves checkpoints later than ``step`` to ``set_aside/``; returns their steps.

    They would be in the way of the run that takes another course from ``step``, and are
    kept because only their owner can tell whether they are still wanted.
    """
    later = [known for known in steps(workdir) if known > step]
    for known in later:
        folder = Path(workdir) / SET_ASIDE
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f'{known}.{number}').exists():
            number += 1
        os.rename(Path(workdir) / FOLDER / str(known), target)
    return later
