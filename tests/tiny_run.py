"""A data set and a configuration so small that a whole run takes seconds; shared by tests."""

import json
import pathlib

import numpy as np

from hrm_jax.config import ExperimentConfig

VOCAB, CELLS = 5, 16
GROUPS, PUZZLES, TEST = 20, 3, 10  # puzzles: augmentations of a group, one example each


def write_dataset(root: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes a folder of the original's format with random boards."""
    rng = np.random.default_rng(seed)
    for split, groups, puzzles in (('train', GROUPS, PUZZLES), ('test', TEST, 1)):
        folder = root / split
        folder.mkdir(parents=True)
        count = groups * puzzles
        labels = rng.integers(1, VOCAB, (count, CELLS)).astype(np.uint8)
        arrays = {
            'inputs': np.where(rng.random((count, CELLS)) < 0.5, labels, 1).astype(np.uint8),
            'labels': labels,
            'puzzle_identifiers': np.zeros(count, np.int32),
            'puzzle_indices': np.arange(count + 1, dtype=np.int32),
            'group_indices': np.arange(0, count + 1, puzzles, dtype=np.int32),
        }
        for name, values in arrays.items():
            np.save(folder / f'all__{name}.npy', values)
        metadata = {
            'pad_id': 0, 'ignore_label_id': 0, 'blank_identifier_id': 0, 'vocab_size': VOCAB,
            'seq_len': CELLS, 'num_puzzle_identifiers': 1, 'total_groups': groups,
            'mean_puzzle_examples': 1.0, 'sets': ['all'],
        }  # fmt: skip
        (folder / 'dataset.json').write_text(json.dumps(metadata))
    (root / 'identifiers.json').write_text('["<blank>"]')
    return root


def values(data: pathlib.Path, **overrides) -> dict:
    """Returns a configuration as nested dicts; 80 steps of 8 boards, evaluated every 10. Tests
    shorten it with train.max_steps, because another schedule is another program to compile.

    Args:
      data: the data set.
      **overrides: sections, each a dict that goes over the one here.
    """
    base = {
        'name': 'tiny',
        'model': {
            'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 16,
            'num_heads': 2, 'puzzle_emb_ndim': 16, 'forward_dtype': 'bfloat16',
        },
        'act': {'halt_max_steps': 3},
        'data': {'path': str(data)},
        'optimizer': {'lr': 1e-3, 'lr_warmup_steps': 4, 'lr_min_ratio': 0.1, 'ema_decay': 0.9},
        'train': {
            'global_batch_size': 8, 'epochs': 32, 'eval_interval': 4, 'log_every_steps': 3,
        },
        'eval': {'global_batch_size': 8},
        'checkpoint': {'every_steps': 3},
        'logging': {'tensorboard': False},
    }  # fmt: skip
    for section, changes in overrides.items():
        base[section] = base.get(section, {}) | changes if isinstance(changes, dict) else changes
    return base


def config(data: pathlib.Path, **overrides) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values(data, **overrides))


def write_config_file(path: pathlib.Path, data: pathlib.Path, **overrides) -> pathlib.Path:
    """Writes a file for ``--config``."""
    text = json.dumps(values(data, **overrides))
    path.write_text(
        'import json\n'
        'from hrm_jax.config import default_config_dict\n'
        'def get_config():\n'
        '    config = default_config_dict()\n'
        f'    config.update(json.loads({text!r}))\n'
        '    return config\n'
    )
    return path
