"""Folders in the original's format: one directory per split with ``<set>__<field>.npy`` files.

Written by dataset/build_*.py of sapientinc/HRM, SamsungSAILMontreal/TinyRecursiveModels and
adminiavs/HRM-Lisp. Arrays may have any integer type; what fits is kept as uint8.
"""

import dataclasses
import pathlib

import numpy as np

from hrm_jax import files, tasks
from hrm_jax.data import names
from hrm_jax.data.mapped import MappedFile
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleSet
from hrm_jax.errors import DatasetError

FIELDS = ('inputs', 'labels', 'puzzle_identifiers', 'puzzle_indices', 'group_indices')
# Cells above this stay in the file and are read as batches touch them.
_IN_MEMORY_BYTES = 1 << 30
_REBUILD = 'The folder is damaged; build it again.'
_GUESS_FROM = 64  # examples that a guess of the task looks at


def looks_like_one(root: pathlib.Path) -> bool:
    """Whether a folder has arrays of the original's format."""
    return any(
        files.visible(path) and files.visible(path.parent)
        for field in ('inputs', 'puzzle_indices')
        for path in root.glob(f'*/*__{field}.npy')
    )


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
      DatasetError: a file is missing, truncated or not an integer array.
    """
    sets = {}
    for name in metadata.sets:
        paths = {field: root / split / f'{name}__{field}.npy' for field in FIELDS}
        arrays = {field: _open(path, field) for field, path in paths.items()}
        for field in ('inputs', 'labels'):
            DatasetError.require(
                arrays[field].shape[1] == metadata.seq_len,
                f'{paths[field]} must have rows of seq_len {metadata.seq_len} cells; got the shape '
                f'{arrays[field].shape}. {_REBUILD}',
            )
        indices = _index(arrays['puzzle_indices'])
        DatasetError.require(
            len(indices) > 1 and indices[-1] == len(arrays['inputs']) == len(arrays['labels']),
            f'{root / split}: {name}__puzzle_indices.npy must end at the number of examples, '
            f'{len(arrays["inputs"])} inputs and {len(arrays["labels"])} labels; got '
            f'{indices[-1:].tolist()}. {_REBUILD}',
        )
        ids = arrays['puzzle_identifiers']
        DatasetError.require(  # before they become int32, which would turn 2**32 into 0
            ids.min() >= 0 and ids.max() < metadata.num_puzzle_identifiers,
            f'{paths["puzzle_identifiers"]} must be in 0..{metadata.num_puzzle_identifiers - 1}; '
            f'got {ids.min()}..{ids.max()}. {_REBUILD}',
        )
        cells = {
            field: _shrink(arrays[field], metadata, paths[field]) for field in ('inputs', 'labels')
        }
        sets[name] = PuzzleSet(
            inputs=cells['inputs'],
            labels=cells['labels'],
            group_indices=_index(arrays['group_indices']),
            puzzle_indices=indices,
            puzzle_first=indices[:-1],
            puzzle_identifiers=ids.astype(np.int32),
            files=tuple(
                MappedFile.of(paths[field], array)
                for field, array in cells.items()
                if array is arrays[field]
            ),
        )
    if not metadata.task:
        first = next(iter(sets.values()))
        some = first.inputs[:_GUESS_FROM], first.labels[:_GUESS_FROM]
        has_words = (root / names.VOCABULARY).is_file()
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


def map_file(path: pathlib.Path) -> np.ndarray:
    """Maps a .npy file; its size is checked against the shape that it states.

    Raises:
      DatasetError: it is missing, or not such a file.
    """
    try:
        return np.lib.format.open_memmap(path, mode='r')
    except FileNotFoundError:
        raise DatasetError(
            f'{path} is missing: the folder is half-written. Build it again.'
        ) from None
    except Exception as error:  # numpy raises many kinds for a damaged header
        raise DatasetError(
            f'{path} must be a .npy file that is not truncated; {str(error)[:200]}. {_REBUILD}'
        ) from None


def _open(path: pathlib.Path, field: str) -> np.ndarray:
    """Maps an array of whole numbers."""
    array = map_file(path)
    dimensions = 2 if field in ('inputs', 'labels') else 1
    DatasetError.require(
        array.ndim == dimensions and array.size > 0,
        f'{path} must be an array of {dimensions} dimensions with values; got the shape '
        f'{array.shape}. {_REBUILD}',
    )
    DatasetError.require(
        np.issubdtype(array.dtype, np.integer),
        f'{path} must be an array of whole numbers; got {array.dtype}. {_REBUILD}',
    )
    return array


def _index(array: np.ndarray) -> np.ndarray:
    """Copies offsets; those beyond int64 become negative, which ``validate`` refuses."""
    return array.astype(np.int64)


def _shrink(array: np.ndarray, metadata: DatasetMetadata, path: pathlib.Path) -> np.ndarray:
    """Copies cells into memory, as uint8 where every legal token fits; large ones stay mapped."""
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
            f'{path}: tokens must be in 0..{metadata.vocab_size - 1}; got '
            f'{chunk.min()}..{chunk.max()} in rows {start}..{start + len(chunk) - 1}. {_REBUILD}',
        )
        result[start : start + step] = chunk
    return result
