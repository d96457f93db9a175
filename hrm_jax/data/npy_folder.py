"""Folders in the original's format: one directory per split with ``<set>__<field>.npy`` files.

Written by dataset/build_*.py of sapientinc/HRM, SamsungSAILMontreal/TinyRecursiveModels and
adminiavs/HRM-Lisp. Arrays may have any integer type; what fits is kept as uint8.
"""

import dataclasses
import pathlib

import numpy as np

from hrm_jax import tasks
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleSet
from hrm_jax.errors import DatasetError

FIELDS = ('inputs', 'labels', 'puzzle_identifiers', 'puzzle_indices', 'group_indices')
# Cells above this stay in the file and are read as batches touch them.
_IN_MEMORY_BYTES = 1 << 30
_GUESS_FROM = 64  # examples that a guess of the task looks at


def looks_like_one(root: pathlib.Path) -> bool:
    """Whether a folder holds arrays of the original's format."""
    return any(root.glob('*/*__inputs.npy')) or any(root.glob('*/*__puzzle_indices.npy'))


def read(
    root: pathlib.Path, split: str, metadata: DatasetMetadata, task: str = ''
) -> tuple[DatasetMetadata, dict[str, PuzzleSet]]:
    """Reads the sets of one split.

    Args:
      root: the folder.
      split: name of the split.
      metadata: of the split.
      task: in place of what the metadata state, or of a guess from sizes and content.

    Returns:
      The metadata with task and transform filled in, and the sets.

    Raises:
      DatasetError: a file is missing, cut short or no integer array.
    """
    sets = {}
    for name in metadata.sets:
        arrays = {field: _open(root / split / f'{name}__{field}.npy') for field in FIELDS}
        inputs, labels = (_shrink(arrays[field], metadata) for field in ('inputs', 'labels'))
        indices = arrays['puzzle_indices'].astype(np.int64)
        DatasetError.require(
            indices.ndim == 1 and len(indices) > 1 and indices[-1] == len(inputs),
            f'{root / split}: {name}__puzzle_indices.npy must end at the number of examples, '
            f'{len(inputs)}; got {indices[-1:].tolist()}. The folder is damaged; build it again.',
        )
        sets[name] = PuzzleSet(
            inputs=inputs,
            labels=labels,
            group_indices=arrays['group_indices'].astype(np.int64),
            puzzle_indices=indices,
            puzzle_first=indices[:-1],
            puzzle_identifiers=arrays['puzzle_identifiers'].astype(np.int32),
        )
    if not metadata.task:
        first = next(iter(sets.values()))
        some = first.inputs[:_GUESS_FROM], first.labels[:_GUESS_FROM]
        has_words = (root / 'vocab.json').is_file()
        guessed = tasks.guess(metadata.vocab_size, metadata.seq_len, has_words, *some)
        metadata = with_task(metadata, task or guessed)
    elif task:
        metadata = with_task(metadata, task)
    return metadata, sets


def with_task(metadata: DatasetMetadata, task: str) -> DatasetMetadata:
    """Metadata of a folder whose augmentations are written out, for a task that it is to have."""
    transform = tasks.kind_of(task).symmetries
    if transform == 'arc':
        transform = 'none'  # the examples are placed and ended already
    # Nobody has looked whether new maps lead to held-out answers.
    held_out = None if transform == 'sudoku' else metadata.held_out
    return dataclasses.replace(metadata, task=task, transform=transform, held_out=held_out)


def _open(path: pathlib.Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode='r')
    except FileNotFoundError:
        raise DatasetError(
            f'{path} is missing: the folder is half-written; build it again.'
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f'{path} is cut short or no .npy file ({error}). Build the folder again.'
        ) from None
    DatasetError.require(
        np.issubdtype(array.dtype, np.integer),
        f'{path} must hold integers; got {array.dtype}. Build the folder again.',
    )
    return array


def _shrink(array: np.ndarray, metadata: DatasetMetadata) -> np.ndarray:
    """Copies cells into memory, as uint8 where every legal token fits."""
    legal = (0, metadata.vocab_size - 1, metadata.ignore_label_id or 0)
    small = min(legal) >= 0 and max(legal) <= 255
    dtype = np.dtype(np.uint8) if small else array.dtype
    if array.size * dtype.itemsize > _IN_MEMORY_BYTES:
        return array
    if dtype == array.dtype:
        return np.array(array)
    result = np.empty(array.shape, dtype)
    step = max(1, (1 << 22) // max(1, array[:1].size))
    for start in range(0, len(array), step):
        chunk = array[start : start + step]
        DatasetError.require(
            chunk.min() >= 0 and chunk.max() <= 255,
            f'tokens must lie in 0..{metadata.vocab_size - 1}; got {chunk.min()}..{chunk.max()} '
            f'in rows {start}..{start + len(chunk) - 1}. Build the folder again.',
        )
        result[start : start + step] = chunk
    return result
