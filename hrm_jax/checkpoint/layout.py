"""Layout of checkpoints on disk: folders, steps, selectors, metadata. No array is read here.

A checkpoint is a folder ``checkpoints/STEP`` of independent orbax items: ``params``,
``constants``, ``puzzle_table``, ``ema``, ``opt_state``, ``carry``, ``rng``, ``data`` (position
of the data iterator, JSON), ``meta`` (step, configuration, metadata and digests of the data set,
metrics and log state, JSON) and ``digests`` (of every array, digests.py). Inference reads params,
ema, constants, puzzle_table, meta and digests only, on any number of devices. A folder appears
under its name when it is complete, so a process that is killed while it saves leaves the earlier
checkpoints as they were. Object storage (gs://) renames nothing: there a checkpoint is complete
when orbax has written its mark, and whatever has none does not exist for us (``is_complete``).
"""

from collections.abc import Mapping
import hashlib
import json
import math
import os
from pathlib import Path
import re
from typing import Any

from hrm_jax import files
from hrm_jax.checkpoint.places import absolute, as_path, check_installed, move, near
from hrm_jax.config import CheckpointConfig, ExperimentConfig
from hrm_jax.errors import CheckpointError, DamagedCheckpoint

FOLDER = 'checkpoints'
POINTER = 'checkpoints_at.txt'  # in a workdir whose checkpoints are stored elsewhere
SET_ASIDE = 'set_aside'  # folder of those that a rewind took out of the way, as STEP.NUMBER
# Written by orbax before a folder on a disk gets its name.
_COMPLETE_MARK = '_CHECKPOINT_METADATA'
# Items that only a run resumes from; a converted checkpoint has none of them.
TRAINING_ITEMS = ('opt_state', 'carry', 'rng', 'data')
_STEP = re.compile(r'[0-9]{1,15}')


def root(workdir: str | os.PathLike) -> Path:
    """Folder that has ``checkpoints/`` of a run: the workdir, or ``checkpoint.directory``."""
    pointer = as_path(workdir) / POINTER
    if not pointer.exists():
        return as_path(workdir)
    place = pointer.read_text().rstrip('\n')
    if not os.path.isabs(place):  # older runs recorded it as it was given
        place = near(place, as_path(workdir), has=FOLDER)
    return as_path(place)


def record_location(workdir: Path, directory: str) -> None:
    """Records in the workdir that its checkpoints are stored in ``checkpoint.directory``.

    Raises:
      CheckpointError: the storage cannot be written, or the run has checkpoints at another place.
    """
    known, now = root(workdir), absolute(as_path(directory or workdir))
    check_installed(now)
    if str(absolute(known)) != str(now) and (steps(workdir) or known != workdir):
        raise CheckpointError(
            f'the checkpoints of {workdir} are stored in {known}, and checkpoint.directory now is '
            f'{directory!r}. Keep it as it was, or use another --workdir.'
        )
    if directory:
        files.write_text(workdir / POINTER, f'{now}\n')


def is_complete(path: Path) -> bool:
    """Whether a folder is a checkpoint that was written to its end.

    orbax knows what ends a save on this storage: a rename on disks, a last object elsewhere.
    """
    import orbax.checkpoint as ocp  # takes a second: only who reads such a checkpoint pays

    return (path / _COMPLETE_MARK).exists() and ocp.utils.is_checkpoint_finalized(str(path))


def steps(workdir: Path) -> list[int]:
    """Returns the steps with a complete checkpoint, ascending."""
    folder = root(workdir) / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if _STEP.fullmatch(path.name) and is_complete(path)
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
    if selector in ('latest', 'best') or _STEP.fullmatch(selector):
        known = steps(workdir)
        if not known:
            raise CheckpointError(f'{root(workdir) / FOLDER} has no checkpoint yet.')
        step = {'latest': lambda: known[-1], 'best': lambda: _best(workdir, known)}.get(
            selector, lambda: int(selector)
        )()
        if step not in known:
            raise CheckpointError(
                f'{root(workdir) / FOLDER} has no checkpoint of step {step}. '
                f'It has: {", ".join(map(str, known))}.'
            )
        return root(workdir) / FOLDER / str(step)
    path = as_path(selector)
    if path.parts[:1] == (SET_ASIDE,) and not path.exists():
        path = root(workdir) / path
    if re.fullmatch(r'\d+(\.\d+)?', path.name) and is_complete(path):
        return path
    for base in (path, path.parent):
        if base == path or path.name == FOLDER:
            known = steps(base)
            if known:
                return root(base) / FOLDER / str(known[-1])
    raise CheckpointError(
        f'--checkpoint must be a step, best, latest, or the folder of a checkpoint or of a run; '
        f'{selector!r} is none of these.'
    )


def score(metrics: Mapping[str, float] | None, config: CheckpointConfig) -> float:
    """Returns a value that grows with quality; -inf where the metric was not measured."""
    value = (metrics or {}).get(config.best_metric)
    if value is None or not math.isfinite(value):
        return -math.inf
    return value if config.best_mode == 'max' else -value


def _best(workdir: Path, known: list[int]) -> int:
    """Step of the best checkpoint, by the metric that its own configuration names."""
    scores = {}
    for step in known:
        meta = read_meta(root(workdir) / FOLDER / str(step))
        config = ExperimentConfig.from_dict(meta['config']).checkpoint
        scores[step] = score(meta['metrics'], config)
    best = max(known, key=lambda step: (scores[step], step))
    if scores[best] == -math.inf:
        raise CheckpointError(
            f'no checkpoint in {root(workdir) / FOLDER} was evaluated with '
            f'{config.best_metric}, so none is the best. Name a step: {known}.'
        )
    return best


def damaged(path: Path, error: Exception) -> DamagedCheckpoint:
    """Says which checkpoint cannot be read and which earlier one can be tried."""
    text = f'{type(error).__name__}: {error}'.strip().splitlines()[0][:200]
    others = [step for step in steps(path.parent.parent) if str(step) != path.name]
    earlier = [step for step in others if step < int(float(path.name))] or others
    advice = (
        f'Other checkpoints there: {", ".join(map(str, others))}. Resume from one of them with '
        f'--checkpoint={earlier[-1]}.'
        if others
        else 'There is no other checkpoint in that folder.'
    )
    return DamagedCheckpoint(
        f'the checkpoint of step {path.name} cannot be read, it is damaged or incomplete: '
        f'{path} ({text})',
        advice,
    )


_META_TYPES = {'step': int, 'config': Mapping, 'dataset': Mapping, 'metrics': Mapping}


def read_json(path: Path) -> Any:
    """Reads a small JSON file of a checkpoint, on disks and on object storage.

    Raises:
      OSError, ValueError, RecursionError: it cannot be read, or is larger than any of ours.
    """
    facts = path.stat()
    size = facts.st_size if isinstance(path, Path) else facts.length  # of etils
    if size > files.MAX_JSON_BYTES:
        raise ValueError(f'{path.parent.name}/{path.name} has {size:,} bytes')
    return json.loads(path.read_text(encoding='utf-8'))


def read_meta(path: Path) -> dict[str, Any]:
    """Returns step, config, dataset, metrics and log state of a checkpoint.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        meta = read_json(path / 'meta' / 'metadata')
        if not isinstance(meta, dict) or not is_intact(meta):
            raise ValueError('meta/metadata is not what was saved')
        for name, kind in _META_TYPES.items():
            value = meta[name] if name in ('step', 'config') else meta.setdefault(name, {})
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f'meta/metadata: {name} is {value!r:.60}')
        if meta['step'] != int(float(path.name)):
            raise ValueError(f'its metadata is of step {meta["step"]}')
        return meta
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error


def is_resumable(meta: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written by a run, and not converted from weights alone."""
    return 'early_stopping' in meta and not meta.get('weights_only')


def check_complete(path: Path, meta: Mapping[str, Any], saved: Mapping[str, Any] | None) -> None:
    """Checks that no item of a checkpoint is missing.

    Args:
      path: its folder.
      meta: its metadata.
      saved: its digests, which name every array; None: an older one without.

    Raises:
      DamagedCheckpoint: one is missing; it is named.
    """
    model, optimizer = (dict(meta['config'].get(name) or {}) for name in ('model', 'optimizer'))
    wanted = {'params', 'constants'} | ({'puzzle_table'} if model.get('puzzle_emb_ndim') else set())
    if saved is not None:
        wanted = {name.split('.')[0] for name in saved['arrays']} | set(saved['json'])
    elif is_resumable(meta) and any((path / item).exists() for item in TRAINING_ITEMS):
        wanted |= {*TRAINING_ITEMS} | ({'ema'} if optimizer.get('ema_decay') else set())
    missing = sorted(item for item in wanted if not (path / item).exists())
    if missing:
        raise damaged(path, FileNotFoundError(f'it has no {", ".join(missing)}'))


def of_json(value: Any) -> str:
    """Returns the digest of a JSON value, the same after it was written and read."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with the digest of the rest under ``digest``."""
    rest = {name: value for name, value in values.items() if name != 'digest'}
    return rest | {'digest': of_json(rest)}


def is_intact(values: Mapping[str, Any]) -> bool:
    """Whether a sealed object is what it was; one without a digest is not doubted."""
    return 'digest' not in values or sealed(values)['digest'] == values['digest']


def as_json(values: Any) -> Any:
    return json.loads(json.dumps(values))


def add_evaluation(path: Path, meta: Mapping[str, Any]) -> None:
    """Adds an evaluation that a stop signal had interrupted to an existing checkpoint.

    Args:
      path: folder of the checkpoint.
      meta: its metadata, with the new 'metrics'.
    """
    meta = sealed(as_json(meta))
    (path / 'metrics').mkdir(exist_ok=True)
    for file, values in ((path / 'metrics' / 'metrics', meta['metrics']),
                         (path / 'meta' / 'metadata', meta)):  # fmt: skip
        if isinstance(file, Path):
            files.write_text(file, json.dumps(values))
        else:
            file.write_text(json.dumps(values))  # object storage shows whole files only


def set_aside_after(step: int, workdir: Path) -> list[int]:
    """Moves checkpoints later than ``step`` to ``set_aside/``; returns their steps.

    They would be in the way of the run that takes another course from ``step``, and are
    kept because only their owner knows whether they are still wanted.
    """
    later = [known for known in steps(workdir) if known > step]
    for known in later:
        folder = root(workdir) / SET_ASIDE
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f'{known}.{number}').exists():
            number += 1
        move(root(workdir) / FOLDER / str(known), target)
    return later
