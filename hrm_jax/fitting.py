"""From arrays to a model: ``fit`` makes a data set, trains, and returns a ``Solver``.

solver = hrm_jax.fit(inputs, labels, preset='small', epochs=50)
solver.solve(inputs[:3])
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import os
from pathlib import Path
import runpy
import sys
import tempfile
from typing import Any

import numpy as np

from hrm_jax import files, train
from hrm_jax.checkpoint import layout
from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.data import arrays
from hrm_jax.errors import ConfigError, DatasetError
from hrm_jax.inference.solver import Solver

# Names of sizes -> shipped experiments; any shipped name may be given too.
PRESETS = {'tiny': 'quickstart', 'small': 'custom', 'full': 'sudoku_extreme_1k'}
DATA = 'dataset'  # folder of the run
_EVALUATIONS = 10


def fit(
    inputs: Any,
    labels: Any,
    *,
    test: tuple[Any, Any] | float = 0.1,
    puzzles: Sequence[str] | None = None,
    preset: str = 'small',
    epochs: int = 0,
    batch_size: int = 0,
    hidden_size: int = 0,
    layers: int = 0,
    steps: int = 0,
    learning_rate: float = 0.0,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    words: bool = False,
    rows: str = '',
    blank: str = '',
    log: Callable[[str], None] = functools.partial(print, file=sys.stderr, flush=True),
) -> Solver:
    """Trains a model that turns each input into its label, and returns it.

    Args:
      inputs, labels: one question and one answer each, of the same number of cells: whole numbers
        from 0, [N, S] or [N, H, W] (labels below 0 are not learned), or texts: N strings, or
        arrays of characters. Texts may differ in size; line breaks separate rows.
      test: (inputs, labels) to evaluate on, or the share of the examples that is held out for it.
      puzzles: name of the rule or theme that each example follows; those of one name share a
        learned vector. None: there are none.
      preset: sizes and training: tiny, small, full (the 27 million of the paper), or the name of a
        shipped experiment.
      epochs, batch_size, hidden_size, layers, steps, learning_rate: in place of the preset's; 0: as
        there. ``layers`` of each of the two modules, ``steps`` of reasoning at most.
      seed: of the weights, the order and the held-out share.
      settings: further settings, nested as in configuration files: {'optimizer': {'ema_decay':
        0.99}}.
      workdir: folder of the run; the same call resumes there. None: a temporary folder, removed at
        the end.
      words, rows, blank: how texts are read, as ``python -m data_builders custom`` has them.
      log: prints a message.

    Returns:
      The solver, with the weights after the last step (their moving average where there is one).

    Raises:
      DatasetError: examples that do not fit together, or not those that the run was begun with.
      ConfigError: unknown settings.
      KeyboardInterrupt: Ctrl-C; with a workdir the same call resumes.
    """
    examples, splits, names = _examples(
        inputs, labels, test, puzzles, seed, {'words': words, 'rows': rows, 'blank': blank}
    )
    changes = {
        'model': {'hidden_size': hidden_size, 'H_layers': layers, 'L_layers': layers},
        'act': {'halt_max_steps': steps},
        'optimizer': {'lr': learning_rate},
        'train': {'epochs': epochs, 'global_batch_size': batch_size},
    }
    config = _config(preset, changes, len(splits['train']), seed, settings or {})
    with contextlib.ExitStack() as resources:
        if workdir is None:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix='hrm_jax_')))
        else:
            folder = files.local_path(workdir, 'workdir')
        arrays.write(folder / DATA, splits, examples, names)
        data = dataclasses.replace(config.data, path=str(folder / DATA))
        config = dataclasses.replace(config, data=data)
        outcome = train.train(config, folder, log=log)
        if outcome.signal:
            where = f'; the same call resumes in {workdir}' if workdir is not None else ''
            raise KeyboardInterrupt(f'{outcome.signal} after step {outcome.step}{where}')
        return Solver.from_checkpoint(layout.resolve('latest', folder))


def _examples(
    inputs: Any,
    labels: Any,
    test: tuple[Any, Any] | float,
    puzzles: Sequence[str] | None,
    seed: int,
    form: Mapping[str, Any],
) -> tuple[arrays.Examples, dict[str, np.ndarray], list[str]]:
    """The examples of both splits, which of them each has, and the names of their puzzles."""
    count = len(inputs)
    names = [''] * count if puzzles is None else [str(name) for name in puzzles]
    DatasetError.require(
        len(names) == count, f'puzzles must name one for each input; got {len(names)} for {count}.'
    )
    if isinstance(test, int | float):
        examples = arrays.encode(inputs, labels, **form)
        train_rows, test_rows = arrays.split_off(examples.inputs, test, seed)
        return examples, {'train': train_rows, 'test': test_rows}, names
    DatasetError.require(len(test) == 2, 'test must be a share, or (inputs, labels).')
    DatasetError.require(
        puzzles is None, 'puzzles need a share as test, as those of test examples are not given.'
    )
    both = [_joined(one, other) for one, other in zip((inputs, labels), test, strict=True)]
    examples = arrays.encode(*both, **form)
    rows = np.arange(len(examples.inputs))
    splits = {'train': rows[:count], 'test': rows[count:]}
    return examples, splits, [''] * len(rows)


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        DatasetError.require(
            one.shape[1:] == other.shape[1:],
            f'examples to train on and to test on must have one shape; got {one.shape[1:]} and '
            f'{other.shape[1:]}.',
        )
        return np.concatenate([one, other])
    return [*one, *other]


def preset_config(name: str) -> ExperimentConfig:
    """Returns the settings of a preset or of a shipped experiment.

    Raises:
      ConfigError: there is none of this name.
    """
    known = {*PRESETS, *shipped.names()}
    ConfigError.require(
        name in known, f'preset must be one of {", ".join(sorted(known))}; got {name!r}.'
    )
    file = shipped.find(PRESETS.get(name, name))
    with shipped.importable(file):
        return ExperimentConfig.from_dict(runpy.run_path(str(file))['get_config']())


def _config(
    preset: str,
    changes: Mapping[str, Mapping[str, Any]],
    examples: int,
    seed: int,
    settings: Mapping[str, Any],
) -> ExperimentConfig:
    values = preset_config(preset).to_dict()
    values['seed'] = seed
    for section, fields in changes.items():
        values[section] |= {name: value for name, value in fields.items() if value}
    own, given = values['train'], settings.get('train', {})
    own['global_batch_size'] = min(own['global_batch_size'], examples)
    own['eval_interval'] = 0
    if size := changes['model']['hidden_size']:
        model = values['model']
        model['puzzle_emb_ndim'] = size if model['puzzle_emb_ndim'] else 0
        model['intermediate_size'] = 0
        # Heads of an even size that divide it, as many as the preset has or fewer.
        heads = range(model['num_heads'], 0, -1)
        model['num_heads'] = next((h for h in heads if size % (2 * h) == 0), 1)
    values = _merged(values, settings)
    length = values['train']
    if 'eval_interval' not in given and length['epochs'] % _EVALUATIONS == 0:
        length['eval_interval'] = length['epochs'] // _EVALUATIONS
    if 'lr_warmup_steps' not in settings.get('optimizer', {}):
        total = length['epochs'] * examples // length['global_batch_size']
        warmup = values['optimizer']['lr_warmup_steps']
        values['optimizer']['lr_warmup_steps'] = min(warmup, max(1, total // 10))
    return ExperimentConfig.from_dict(values)


def _merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in more.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged
