"""Folders in the original's format: one directory per split with ``<set>__<field>.npy`` files.

Written by dataset/build_*.py of sapientinc/HRM, SamsungSAILMontreal/TinyRecursiveModels and
adminiavs/HRM-Lisp. Arrays may have any integer type; what fits is kept as uint8.
"""

import dataclasses
import pathlib

import numpy as np

from hrm_jax.data.puzzles import DatasetError, DatasetMetadata, PuzzleSet, require

FIELDS = ('inputs', 'labels', 'puzzle_identifiers', 'puzzle_indices', 'group_indices')
# Cells above this stay in the file and are read as batches touch them.
_IN_MEMORY_BYTES = 1 << 30


def looks_like_one(root: pathlib.Path) -> bool:
    """Whether a folder holds arrays of the original's format."""
    return any(root.glob('*/*__inputs.npy')) or any(root.glob('*/*__puzzle_indices.npy'))


def read(
    root: pathlib.Path, split: str, metadata: DatasetMetadata
) -> tuple[DatasetMetadata, dict[str, PuzzleSet]]:
    """Reads the sets of one split.

    Returns:
      The metadata with task and transform filled in where sizes give them away, and the sets.

    Raises:
      DatasetError: a file is missing, cut short or no integer array.
    """
    sets = {}
    for name in metadata.sets:
        arrays = {field: _open(root / split / f'{name}__{field}.npy') for field in FIELDS}
        inputs, labels = (_shrink(arrays[field], metadata) for field in ('inputs', 'labels'))
        indices = arrays['puzzle_indices'].astype(np.int64)
        require(
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
        task, transform = _guess_task(root, metadata)
        held_out = None if transform == 'sudoku' else metadata.held_out
        metadata = dataclasses.replace(metadata, task=task, transform=transform, held_out=held_out)
    return metadata, sets


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
    require(
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
        require(
            chunk.min() >= 0 and chunk.max() <= 255,
            f'tokens must lie in 0..{metadata.vocab_size - 1}; got {chunk.min()}..{chunk.max()} '
            f'in rows {start}..{start + len(chunk) - 1}. Build the folder again.',
        )
        result[start : start + step] = chunk
    return result


def _guess_task(root: pathlib.Path, metadata: DatasetMetadata) -> tuple[str, str]:
    """The original's folders name no task, but their sizes do (spec of each builder)."""
    if (root / 'vocab.json').is_file():
        return 'lisp', 'none'
    if (metadata.vocab_size, metadata.seq_len) == (11, 81):
        return 'sudoku', 'sudoku'
    if (metadata.vocab_size, metadata.seq_len) == (12, 900):
        return 'arc', 'none'  # the written-out examples are placed and ended already
    if metadata.vocab_size == 6 and metadata.side:
        return 'maze', 'dihedral'
    return '', 'none'
