"""Branches of a run: resumed from a checkpoint with another learning rate, in the same workdir.

    --checkpoint=STEP --config.optimizer.lr=3e-5

Later checkpoints and records move to set_aside/. The branch is recorded in branches.json, so that
the same workdir resumes after a kill before the first save, and in every checkpoint that follows.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import time
from typing import Any

from hrm_jax import files
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import WorkdirError

FILE = 'branches.json'
# What changes how the run continues, and not what its state is made of.
CHANGEABLE = tuple(
    f'optimizer.{name}'
    for name in (
        'lr', 'lr_min_ratio', 'lr_warmup_steps', 'weight_decay', 'puzzle_emb_lr',
        'puzzle_emb_weight_decay', 'beta1', 'beta2', 'eps',
    )
)  # fmt: skip
_CLIP = 'optimizer.grad_clip_norm'


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the branches of a run, oldest first: step, changes (key -> [old, new]), time.

    Raises:
      WorkdirError: the file is damaged.
    """
    path = Path(workdir) / FILE
    if not path.exists():
        return []
    found = files.read_json(path, WorkdirError, list)
    for one in found:
        WorkdirError.require(
            isinstance(one, dict)
            and type(one.get('step')) is int
            and isinstance(one.get('changes'), dict),
            f'{path} must be a list of objects with step and changes; got {files.shown(one)}.',
        )
    return found


def changes(meta: Mapping[str, Any], config: ExperimentConfig) -> dict[str, list[Any]]:
    """Returns the settings of a branch that differ from a checkpoint's: key -> [old, new]."""
    old, new = dict(meta['config'].get('optimizer') or {}), config.to_dict()['optimizer']
    keys = [key.partition('.')[2] for key in CHANGEABLE]
    if old.get(_CLIP.partition('.')[2]) and config.optimizer.grad_clip_norm:
        keys.append(_CLIP.partition('.')[2])  # from or to 0 the optimizer's state is another one
    return {
        f'optimizer.{key}': [old[key], new[key]]
        for key in keys
        if key in old and old[key] != new[key]
    }


def is_recorded(workdir: Path, step: int, found: Mapping[str, list[Any]]) -> bool:
    """Whether the last branch of a run is this one: it was interrupted before its first save."""
    known = read(workdir)
    return bool(known) and known[-1]['step'] == step and known[-1]['changes'] == dict(found)


def record(workdir: Path, step: int, found: Mapping[str, list[Any]]) -> None:
    """Adds a branch to branches.json."""
    if not is_recorded(workdir, step, found):
        one = {'step': step, 'changes': dict(found), 'time': time.strftime('%Y-%m-%d %H:%M:%S %z')}
        files.write_text(workdir / FILE, json.dumps([*read(workdir), one], indent=1) + '\n')


def described(found: Mapping[str, list[Any]]) -> str:
    """Returns the changes in words."""
    return ', '.join(f'{key}: {old} -> {new}' for key, (old, new) in found.items())


def without(meta: Mapping[str, Any], found: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Returns a checkpoint's metadata as if it had been made with the settings of the branch."""
    optimizer = dict(meta['config']['optimizer'])
    optimizer |= {key.partition('.')[2]: new for key, (_, new) in found.items()}
    return dict(meta) | {'config': dict(meta['config']) | {'optimizer': optimizer}}
