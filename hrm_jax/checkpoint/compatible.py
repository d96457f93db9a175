"""Whether a checkpoint may be continued, or its weights used, under other settings."""

from collections.abc import Mapping
import json
from pathlib import Path
import typing
from typing import Any

import numpy as np

from hrm_jax.config import ExperimentConfig
from hrm_jax.config.checks import require_choice
from hrm_jax.config.sections import PuzzleTableChoice
from hrm_jax.errors import CheckpointError, ConfigError

# What may differ between a checkpoint and the run that continues it. Everything else changes
# what is computed and would make the resumed run neither the old nor a new experiment.
CHANGEABLE_ON_RESUME = (
    'name', 'logging.', 'checkpoint.', 'eval.', 'data.path', 'data.source', 'data.source_flags',
    'data.task',
    'train.log_every_steps', 'train.max_steps', 'train.early_stopping.', 'train.puzzle_table',
    'train.micro_batches', 'train.change_batch_size', 'train.steps_per_dispatch', 'mesh.',
)  # fmt: skip


def _flat(values: Any, prefix: str = '') -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f'{prefix}.{name}' if prefix else str(name))
    return flat


def differences(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    allowed: tuple[str, ...] = (),
    places: tuple[str, str] = ('in the checkpoint', 'now'),
) -> list[str]:
    """Lists the keys of two nested mappings that differ, as 'key: A in the checkpoint, B now'.

    Args:
      saved, current: nested mappings of JSON values.
      allowed: keys, or prefixes ending in a dot, that may differ.
      places: where each mapping is from.
    """
    old, new = _flat(saved), _flat(current)
    missing = object()
    return [
        f'{key}: {old.get(key, "(absent)")!r} {places[0]}, {new.get(key, "(absent)")!r} {places[1]}'
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
        and not any(key == a or (a.endswith('.') and key.startswith(a)) for a in allowed)
    ]


def check_same_experiment(
    meta: Mapping[str, Any], config: ExperimentConfig, dataset: Mapping[str, Any], path: Path
) -> None:
    """Checks that a checkpoint can be continued with this configuration and data.

    Raises:
      CheckpointError: keys differ that must not; each is shown with both values.
    """
    try:  # fills in keys that did not exist when the checkpoint was written
        saved = ExperimentConfig.from_dict(meta['config']).to_dict()
    except ConfigError:
        saved = meta['config']
    allowed = CHANGEABLE_ON_RESUME
    if config.train.change_batch_size:
        allowed = (*allowed, 'train.global_batch_size')
    found = differences(saved, config.to_dict(), allowed)
    found += [
        f'data set {text}' for text in differences(meta['dataset'], json.loads(json.dumps(dataset)))
    ]
    if found:
        raise CheckpointError(
            f'{path} was made with other settings:\n  ' + '\n  '.join(found) + '\n'
            f'Use the old values to go on, or another --workdir for a new run. These may change: '
            f'{", ".join(name + "*" * name.endswith(".") for name in CHANGEABLE_ON_RESUME)}.'
        )


# Does not change what the weights mean.
_FREE_OF_THE_MODEL = ('attention', 'remat', 'unroll_cycles', 'forward_dtype', 'initializer')


def check_same_model(
    meta: Mapping[str, Any], config: ExperimentConfig, path: Path, free: tuple[str, ...] = ()
) -> None:
    """Checks that a checkpoint's weights fit the configured model.

    Args:
      meta: metadata of the checkpoint.
      config: configuration with the sizes of the data set filled in.
      path: folder of the checkpoint, for the message.
      free: further keys of the model that may differ.

    Raises:
      CheckpointError: the architecture differs; each key is shown with both values.
    """
    try:
        saved = ExperimentConfig.from_dict(meta['config']).to_dict()['model']
    except ConfigError:
        saved = meta['config'].get('model', {})
    found = differences(saved, config.to_dict()['model'], _FREE_OF_THE_MODEL + free)
    if found:
        raise CheckpointError(
            f'{path} is the checkpoint of another model:\n  '
            + '\n  '.join(f'model.{text}' for text in found)
            + '\nUse the configuration and the data that it was trained with.'
        )


def resize_table(table: Any, rows: int, choice: str = 'error') -> np.ndarray:
    """Returns a table with ``rows`` rows, float32 [rows, E].

    Args:
      table: float32 [old rows, E].
      rows: rows wanted, the ``num_puzzle_identifiers`` of the new data.
      choice: what to do when the sizes differ.
        ``error``: refuse.
        ``mean``: forget every puzzle; each row is the mean of the old rows (what the TRM
        repository does when it loads a table of another size).
        ``zeros``: forget every puzzle; each row is zero, as before training.
        ``overlap``: keep the rows that both tables have (ids must mean the same puzzles);
        further rows are zero.

    Raises:
      CheckpointError: the sizes differ and the choice is ``error``.
      ConfigError: the choice is unknown.
    """
    require_choice('puzzle_table', choice, typing.get_args(PuzzleTableChoice))
    old = len(table)
    if old == rows:
        return table
    if choice == 'error':
        raise CheckpointError(
            f'puzzle_emb.weights has {old} rows, but the data has {rows} puzzle identifiers. Say '
            f'what to do: mean (every row the mean of the old ones), zeros, or overlap (keep the '
            f'rows both have, zeros for the rest).'
        )
    if choice == 'mean':
        # In float64: the sum of a million float32 rows loses digits.
        mean = np.mean(table, axis=0, dtype=np.float64).astype(np.float32)
        return np.broadcast_to(mean, (rows, table.shape[1])).copy()
    new = np.zeros((rows, table.shape[1]), np.float32)
    if choice == 'overlap':
        new[: min(old, rows)] = table[: min(old, rows)]
    return new
