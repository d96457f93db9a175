"""Text about checkpoints: lists, contents, differences."""

import json
import os
from pathlib import Path

from flax import traverse_util
import numpy as np

from hrm_jax import checkpoint
from hrm_jax.checkpoint import Weights
from hrm_jax.interop import formats
from hrm_jax.interop.errors import CheckpointFormatError


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob('*') if p.is_file()]
    return sum(file.stat().st_size for file in files)


def list_checkpoints(folder: str | os.PathLike) -> list[str]:
    """Describes the checkpoints of a run (or of any folder), one line each.

    Raises:
      CheckpointFormatError: the folder has none.
      CheckpointError: one of a run is damaged.
    """
    folder = Path(folder)
    if folder.name == checkpoint.FOLDER:
        folder = folder.parent
    lines = []
    for step in checkpoint.steps(folder):
        path = checkpoint.root(folder) / checkpoint.FOLDER / str(step)
        meta = checkpoint.read_meta(path)
        metrics = ', '.join(
            f'{name} {value:.4g}' for name, value in sorted(meta['metrics'].items())
        )
        kind = 'resumable' if (path / 'opt_state').exists() else 'weights only'
        lines.append(f'{step:>10}  {_bytes(path) / 2**20:8.1f} MiB  {kind}  {metrics}'.rstrip())
    if lines:
        return ['      step         size  kind  metrics', *lines]
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            step = formats.step_of(path.name)
            if path.is_file() and (step is not None or path.suffix == '.safetensors'):
                size = _bytes(path) / 2**20
                lines.append(
                    f'{step if step is not None else "":>10}  {size:8.1f} MiB  {path.name}'
                )
    if not lines:
        raise CheckpointFormatError(f'{folder} holds no checkpoints.')
    return ['      step         size  file', *lines]


def inspect(path: str | os.PathLike, config: str = '', seq_len: int = 0) -> list[str]:
    """Describes one checkpoint: step, data set, configuration, and every tensor.

    Args:
      path: anything that ``formats.load`` takes.
      config: configuration file, if not beside the weights.
      seq_len: cells of a puzzle, if nothing else says.

    Raises:
      ValueError, OSError: see ``formats.load``.
    """
    source = formats.find(path, config)
    weights = formats.load(source, seq_len=seq_len)
    meta = weights.meta
    lines = [
        f'step: {weights.step}',
        f'format: {source.format}',
        f'dataset: {json.dumps(meta.get("dataset", {}))}',
        f'metrics: {json.dumps(meta.get("metrics", {}))}',
        f'moving average: {"no" if weights.ema is None else "yes"}',
        f'config: {weights.config.to_json()}',
        '',
    ]
    state = _state(weights)
    width = max(map(len, state))
    shapes = {name: ' x '.join(map(str, array.shape)) for name, array in state.items()}
    space = max(map(len, shapes.values()))
    for name, array in state.items():
        values = np.asarray(array, np.float32)
        spread = f'mean {values.mean():+.2e}  std {values.std():.2e}'
        shape = f'{shapes[name]:>{space}}'
        lines.append(f'{name:<{width}}  {shape}  {array.dtype!s:<8}  {spread}')
    total = sum(array.size for name, array in state.items() if name.startswith('params/'))
    table = 0 if weights.puzzle_table is None else weights.puzzle_table.size
    lines += ['', f'parameters: {total:,}; puzzle table: {table:,} numbers']
    return lines


def _state(weights: Weights) -> dict[str, np.ndarray]:
    """Every array of the weights under a path of ours."""
    trees = {'params': weights.params, 'ema': weights.ema, 'constants': weights.constants}
    state = traverse_util.flatten_dict({n: t for n, t in trees.items() if t is not None}, sep='/')
    if weights.puzzle_table is not None:
        state['puzzle_table'] = weights.puzzle_table
    return state


def compare(
    path: str | os.PathLike, other: str | os.PathLike, config: str = '', seq_len: int = 0
) -> list[str]:
    """Lists what differs between two checkpoints, of whatever formats; empty if nothing does.

    Args:
      path, other: anything that ``formats.load`` takes.
      config: configuration file of ``path``, if not beside it.
      seq_len: cells of a puzzle, if nothing else says.

    Raises:
      ValueError, OSError: see ``formats.load``.
    """
    first = formats.load(path, config=config, seq_len=seq_len)
    second = formats.load(other, seq_len=first.config.model.seq_len)
    lines = []
    if first.step != second.step:
        lines.append(f'step: {first.step} and {second.step}')
    old, new = (
        traverse_util.flatten_dict(weights.config.to_dict(), sep='.') for weights in (first, second)
    )
    lines += [f'config {k}: {old[k]!r} and {new[k]!r}' for k in old if old[k] != new[k]]
    one, two = _state(first), _state(second)
    lines += [f'{name}: only in {path}' for name in one if name not in two]
    lines += [f'{name}: only in {other}' for name in two if name not in one]
    for name in one:
        if name in two and (text := _difference(one[name], two[name])):
            lines.append(f'{name}: {text}')
    return lines


def _difference(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape != b.shape:
        return f'shape {a.shape} and {b.shape}'
    text = f'{a.dtype} and {b.dtype}, ' if a.dtype != b.dtype else ''
    gap = np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32))
    if np.array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32)):
        return f'{text}equal values' if text else ''
    changed = np.count_nonzero(gap) / gap.size
    rms = float(np.sqrt(np.mean(np.square(gap))))
    return f'{text}{changed:.1%} of the values differ, at most {gap.max():.3g}, RMS {rms:.3g}'
