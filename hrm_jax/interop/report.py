"""Looks into checkpoints: lists, contents, differences, and whether a conversion is exact."""

import json
import os
from pathlib import Path
from typing import Any

from flax import traverse_util
import jax
import numpy as np

from hrm_jax import act
from hrm_jax.checkpoint import layout, places, store
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError, DamagedCheckpoint
from hrm_jax.interop import act_calls, architecture, formats, state_dict
from hrm_jax.interop.sources import Source
from hrm_jax.model import starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

_CHUNK = 2**16  # rows compared at a time, so that no large copy is made


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else places.files_below(path)
    # etils has its own name for the size.
    sizes = 'length' if places.is_remote(path) else 'st_size'
    return sum(getattr(file.stat(), sizes) for file in files)


def list_checkpoints(folder: str | os.PathLike) -> list[str]:
    """Describes the checkpoints of a run (or of any folder), one line each.

    Raises:
      CheckpointError: the folder has none.
      CheckpointError: one of a run is damaged.
    """
    folder = layout.as_path(folder)
    if folder.name == layout.FOLDER:
        folder = folder.parent
    lines = []
    for step in layout.steps(folder):
        path = layout.root(folder) / layout.FOLDER / str(step)
        meta = layout.read_meta(path)
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
            hidden = path.name.startswith('.')
            known = step is not None or path.suffix == '.safetensors'
            if path.is_file() and known and not hidden:
                size = _bytes(path) / 2**20
                lines.append(
                    f'{step if step is not None else "":>10}  {size:8.1f} MiB  {path.name}'
                )
    if not lines:
        raise CheckpointError(f'{folder} has no checkpoints.')
    return ['      step         size  file', *lines]


def verify_digests(path: str | os.PathLike) -> tuple[list[str], bool]:
    """Reads all arrays of a checkpoint, or of all checkpoints of a run, and compares digests.

    Returns:
      One line for each, and whether any is damaged.

    Raises:
      CheckpointError: there is none.
    """
    remote = places.is_remote(path)
    source = Source('orbax', os.fspath(path), '') if remote else formats.find(path)
    if source.format != 'orbax':
        saved = formats.load(source)  # torch's own checksums are compared on the way
        count = len(jax.tree.leaves(saved.weights))
        return [f'{source.path}: {count} arrays, all read; {source.format} has no digests'], False
    folder = layout.as_path(source.path)
    known = [layout.root(folder) / layout.FOLDER / str(step) for step in layout.steps(folder)]
    lines, damaged = [], False
    for one in known or [layout.resolve(str(folder), folder)]:
        try:
            lines.append(f'{one}: {store.verify(one)}')
        except DamagedCheckpoint as error:
            damaged = True
            lines.append(f'{one}: damaged. {error.what}')
    return lines, damaged


def inspect(path: str | os.PathLike, config: str = '', seq_len: int = 0) -> list[str]:
    """Describes one checkpoint: step, data set, configuration, and every tensor.

    Args:
      path: anything that ``formats.load`` takes.
      config: configuration file, if not beside the weights.
      seq_len: cells of a puzzle, if nothing else states it.

    Raises:
      ValueError, OSError: see ``formats.load``.
    """
    source = formats.find(path, config)
    saved = formats.load(source, seq_len=seq_len)
    meta = saved.meta
    lines = [
        f'step: {saved.step}',
        f'format: {source.format}',
        f'dataset: {json.dumps(meta.get("dataset", {}))}',
        f'metrics: {json.dumps(meta.get("metrics", {}))}',
        f'moving average: {"no" if saved.ema is None else "yes"}',
        f'config: {saved.config.to_json()}',
        '',
    ]
    state = _state(saved)
    width = max(map(len, state))
    shapes = {name: ' x '.join(map(str, array.shape)) for name, array in state.items()}
    space = max(map(len, shapes.values()))
    for name, array in state.items():
        values = np.asarray(array, np.float32)
        spread = f'mean {values.mean():+.2e}  std {values.std():.2e}'
        shape = f'{shapes[name]:>{space}}'
        lines.append(f'{name:<{width}}  {shape}  {array.dtype!s:<8}  {spread}')
    total = sum(array.size for name, array in state.items() if name.startswith('params/'))
    table = 0 if saved.weights.puzzle_table is None else saved.weights.puzzle_table.size
    lines += ['', f'parameters: {total:,}; puzzle table: {table:,} numbers']
    return lines


def _state(saved: SavedModel) -> dict[str, np.ndarray]:
    """Every array of the weights under a path of ours."""
    trees = {'params': saved.weights.params, 'ema': saved.ema, 'constants': saved.weights.constants}
    state: dict[str, Any] = traverse_util.flatten_dict(
        {n: t for n, t in trees.items() if t is not None}, sep='/'
    )
    if saved.weights.puzzle_table is not None:
        state['puzzle_table'] = saved.weights.puzzle_table
    return state


def compare(
    path: str | os.PathLike, other: str | os.PathLike, config: str = '', seq_len: int = 0
) -> list[str]:
    """Lists what differs between two checkpoints, of whatever formats; empty if nothing does.

    Args:
      path, other: anything that ``formats.load`` takes.
      config: configuration file of ``path``, if not beside it.
      seq_len: cells of a puzzle, if nothing else states it.

    Raises:
      ValueError, OSError: see ``formats.load``.
    """
    first = formats.load(path, config=config, seq_len=seq_len)
    second = _load_like(first, other)
    lines = []
    if first.step != second.step:
        lines.append(f'step: {first.step} and {second.step}')
    old, new = (
        traverse_util.flatten_dict(saved.config.to_dict(), sep='.') for saved in (first, second)
    )
    lines += [f'config {k}: {old[k]!r} and {new[k]!r}' for k in old if old[k] != new[k]]
    one, two = _state(first), _state(second)
    lines += [f'{name}: only in {path}' for name in one if name not in two]
    lines += [f'{name}: only in {other}' for name in two if name not in one]
    for name in one:
        if name in two and (text := _difference(one[name], two[name])):
            lines.append(f'{name}: {text}')
    return lines


def _load_like(first: SavedModel, path: str | os.PathLike) -> SavedModel:
    """Loads a checkpoint; its puzzles have the length of the first one's if nothing states it."""
    try:
        return formats.load(path)
    except state_dict.UnknownLength:
        return formats.load(path, seq_len=first.config.model.seq_len)


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


def verify(saved: SavedModel, written: str | os.PathLike, use_ema: bool = True) -> str:
    """Compares weights with what was written: every tensor, and the outputs of two ACT steps.

    Args:
      saved: what was saved.
      written: the path it was saved to.
      use_ema: whether the moving average was saved in place of the parameters.

    Returns:
      one line that states what was compared.

    Raises:
      CheckpointError: something differs; the message names it.
    """
    again = _load_like(saved, written)
    if found := architecture.differences(saved.config.model, again.config.model):
        raise CheckpointError(f'verification failed: saved and read back {"; ".join(found)}.')
    expected = state_dict.to_state(saved, prefix='', use_ema=use_ema)
    actual = state_dict.to_state(again, prefix='', use_ema=use_ema)
    if list(expected) != list(actual):
        raise CheckpointError('verification failed: the tensors have other names.')
    for name, array in expected.items():
        if not _same(array, actual[name]):
            raise CheckpointError(f'verification failed: {name} differs.')
    # A format that holds one set of parameters has the moving average in their place.
    first = saved.weights if again.ema is not None else saved.inference_weights(use_ema)
    difference = _output_difference(saved.config, first, again.weights)
    if difference:
        raise CheckpointError(
            f'verification failed: the logits or Q values differ by up to {difference:g}.'
        )
    return f'verified: {len(expected)} tensors equal bit for bit, equal outputs of 2 ACT steps'


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return all(
        a[i : i + _CHUNK].tobytes() == b[i : i + _CHUNK].tobytes() for i in range(0, len(a), _CHUNK)
    )


def _output_difference(config: ExperimentConfig, first: Weights, second: Weights) -> float:
    model = config.model
    random = np.random.default_rng(0)
    inputs = random.integers(0, model.vocab_size, (1, model.seq_len), dtype=np.int32)
    batch = Batch(inputs, np.full_like(inputs, IGNORE_LABEL_ID), np.zeros(1, np.int32))
    outputs = []
    for weights in (first, second):
        if weights.puzzle_table is not None:
            # One row of the table is all that this puzzle needs.
            weights = weights.replace(puzzle_table=np.asarray(weights.puzzle_table[:1]))
        carry = act.initial_carry(starts.empty_latent(model, 1), batch)
        for _ in range(2):
            output = act_calls.act_step(config, (False, False, False), weights, carry, batch, None)
            carry = output.carry
        outputs.append((output.logits, output.q_halt_logits, output.q_continue_logits))
    differences = jax.tree.map(
        lambda a, b: np.abs(np.float32(a) - np.float32(b)).max(), outputs[0], outputs[1]
    )
    return float(max(differences))
