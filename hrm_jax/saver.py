"""Writes checkpoints in the background and deletes the superfluous ones."""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hrm_jax import checkpoint
from hrm_jax.compatibility import CheckpointError
from hrm_jax.config import CheckpointConfig
from hrm_jax.types import TrainState


class Saver:
    """Writes the checkpoints of one run in the background and deletes the superfluous ones.

    Args:
      workdir: the run's folder, locked by this process.
      config: how many to keep.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig):
        self._workdir = Path(workdir)
        self._folder = checkpoint.root(workdir) / checkpoint.FOLDER
        self._writing: int | None = None
        policies = [checkpoint_managers.LatestN(config.keep_latest)]
        if config.keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: checkpoint.score(metrics, config),
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: checkpoint.score(metrics, config),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        try:
            folder = checkpoint.absolute(self._folder)
            self._manager = ocp.CheckpointManager(folder, options=options)
        except Exception as error:
            for step in checkpoint.steps(self._workdir):
                try:
                    json.loads((folder / str(step) / 'metrics' / 'metrics').read_text())
                except (OSError, ValueError):
                    raise checkpoint.damaged(folder / str(step), error) from error
            raise self._failed('can not be opened', error) from error

    def _failed(self, what: str, error: BaseException) -> CheckpointError:
        text = str(error).strip()
        full = 'No space left' in text or 'ENOSPC' in text or 'RESOURCE_EXHAUSTED' in text
        full = full or 'File too large' in text or 'Disk quota' in text
        good = [step for step in checkpoint.steps(self._workdir) if step != self._writing]
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
        if step in checkpoint.steps(self._workdir):
            return False
        self._writing = step
        trees = {name: getattr(state, name) for name in checkpoint.ALWAYS + checkpoint.OPTIONAL}
        trees = {name: tree for name, tree in trees.items() if tree is not None}
        items = {name: ocp.args.StandardSave(checkpoint.item(tree)) for name, tree in trees.items()}
        items |= {
            'data': ocp.args.JsonSave(data),
            'meta': ocp.args.JsonSave(checkpoint.as_json(meta)),
        }
        try:
            saved = self._manager.save(
                step,
                args=checkpoint.composite(**items),
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
        missing = self._writing is not None and self._writing not in checkpoint.steps(self._workdir)
        if missing and jax.process_index() == 0:  # who gives the folder its name
            raise self._failed(f'could not take step {self._writing}', OSError('not written'))
        self._writing = None

    def advice_after_a_broken_step(self) -> str:
        """Names the last good checkpoint, once it is on the disk."""
        self.wait()
        good = checkpoint.steps(self._workdir)
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
