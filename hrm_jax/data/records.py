"""The one definition of the disk format, and how to load a data set of any format.

Folder made by ``python -m data_builders``::

    dataset_info.json, features.json, <task>-<split>.array_record-*    written by TFDS
    <split>/dataset.json      the keys of the original, and task, transform, cell_bytes
    manifest.json             sources with hashes, seed, versions, counts, size of every file

One record holds a block of consecutive groups: the fields of ``FIELDS``, each a vector of
bytes (integers little-endian). array_record compresses whole records.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from hrm_jax.data import augment, npy_folder
from hrm_jax.data.puzzles import (
    BLANK_NAME,
    METADATA,
    DatasetMetadata,
    PuzzleDataset,
    PuzzleSet,
    puzzle_names,
    validate,
)
from hrm_jax.errors import DatasetError
from hrm_jax.tasks import TASKS

__all__ = ['DatasetError', 'DatasetMetadata', 'PuzzleDataset', 'PuzzleSet', 'load']

FORMAT_VERSION = 1
MANIFEST = 'manifest.json'

# Field of a record -> dtype of its values; None: the dtype that metadata.cell_bytes names.
FIELDS = {
    'set_name': 'u1',  # utf-8
    'inputs': None,  # stored examples, un-padded, one after the other
    'labels': None,
    'extents': 'u1',  # h_in, w_in, h_out, w_out of each; empty: all fill seq_len
    'group_puzzles': '<i4',  # puzzles of each group
    'puzzle_first': '<i4',  # first stored example of each puzzle, within the block
    'puzzle_count': '<i4',  # how many
    'puzzle_identifiers': '<i4',
    'maps': 'u1',  # one row per puzzle; empty: identity
    'offsets': 'u1',  # row and column of each example of each puzzle; empty: 0
    'names': 'u1',  # utf-8, one line per group; empty: nameless
}
CELL_DTYPES = {1: np.dtype('u1'), 2: np.dtype('<u2'), 4: np.dtype('<i4')}


def load(
    path: str | pathlib.Path, split: str, format: str = 'auto', task: str = ''
) -> PuzzleDataset:
    """Reads one split into memory.

    Args:
      path: folder of the data set.
      split: 'train' or 'test'.
      format: 'records', 'npy_folder' or 'auto' (found from the folder's content).
      task: in place of what the metadata state; '': as stated, or guessed where nothing is.

    Raises:
      DatasetError: nothing there (names the builder command), half-written, truncated,
        or with tokens or identifiers out of range.
    """
    root = pathlib.Path(path).expanduser()
    if format == 'auto':
        format = 'npy_folder' if npy_folder.looks_like_one(root) else 'records'
    if not str(path) or not root.is_dir() or not (root / split / METADATA).is_file():
        raise DatasetError(_missing_text(root if str(path) else None, split))
    metadata = DatasetMetadata.from_json(
        (root / split / METADATA).read_text(), root / split / METADATA
    )
    if format == 'npy_folder':
        stated = bool(metadata.task or task)
        metadata, sets = npy_folder.read(root, split, metadata, task)
    elif format == 'records':
        stated = True
        metadata = dataclasses.replace(metadata, task=task) if task else metadata
        sets = _read_records(root, split, metadata)
    else:
        raise DatasetError(f'data.format must be auto, records or npy_folder; got {format!r}.')
    dataset = PuzzleDataset(metadata, sets, str(root), task_is_guessed=not stated)
    validate(dataset)
    return dataset


def identifier_names(splits: Iterable[PuzzleDataset], separator: str = '_') -> list[str]:
    """Returns the name of each puzzle identifier, as ``identifiers.json`` of the original.

    Args:
      splits: one or more splits of a data set; names that only others know are empty.
      separator: between the parts of the names of ARC augmentations.
    """
    splits = list(splits)
    for dataset in splits:
        file = pathlib.Path(dataset.path) / 'identifiers.json'
        if dataset.path and file.is_file():
            return json.loads(file.read_text())
    names = [''] * max(dataset.metadata.num_puzzle_identifiers for dataset in splits)
    for dataset in splits:
        for puzzles in dataset.sets.values():
            if puzzles.names and puzzles.num_puzzles:
                for k, name in zip(
                    puzzles.puzzle_identifiers.tolist(),
                    puzzle_names(puzzles, separator),
                    strict=True,
                ):
                    names[k] = name
        names[dataset.metadata.blank_identifier_id] = BLANK_NAME
    return names


def builder_command(path: Any) -> str:
    """Guesses from a folder's name the command that makes it."""
    name = pathlib.Path(path).name.lower()
    task = next((t for t in TASKS if t in name), f'{{{",".join([*TASKS, "custom"])}}}')
    return f'python -m data_builders {task} --output-dir {path}'


def _missing_text(root: pathlib.Path | None, split: str) -> str:
    if root is None:
        return 'data.path must name the folder of a data set. Set --config.data.path=DIR.'
    if not root.is_dir():
        what = f'there is no data set at {root}'
    elif (root / MANIFEST).is_file() or any(root.glob(f'*/{METADATA}')):
        there = ', '.join(sorted(p.parent.name for p in root.glob(f'*/{METADATA}')))
        what = f'{root} has no split {split!r} (it has: {there or "none"})'
    else:
        what = f'{root} holds no data set (no {split}/{METADATA})'
    return f'{what}. Build it with: {builder_command(root)}'


def check_manifest(root: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest and compares the size of every file with it.

    Raises:
      DatasetError: no manifest, one of another format, or files missing or cut short.
    """
    again = f'Build it again: {builder_command(root)} --overwrite'
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        files, version = dict(manifest['files']), manifest['format_version']
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f'{root} has no readable {MANIFEST}: half-written. {again}') from None
    DatasetError.require(version == FORMAT_VERSION,
           f'{root} has format version {version}; this program reads {FORMAT_VERSION}. {again}'
           )  # fmt: skip
    for name, size in files.items():
        there = (root / name).stat().st_size if (root / name).is_file() else None
        DatasetError.require(there == size,
               f'{root / name} must have {size} bytes; it '
               + ('is missing' if there is None else f'has {there}') + f'. {again}'
               )  # fmt: skip
    return manifest


def encode_blocks(
    name: str, puzzles: PuzzleSet, metadata: DatasetMetadata, block_puzzles: int = 4096
) -> Iterator[dict[str, np.ndarray]]:
    """Cuts a set into records of at least ``block_puzzles`` puzzles (whole groups)."""
    start = 0
    while start < puzzles.num_groups:
        goal = puzzles.group_indices[start] + block_puzzles
        stop = min(int(np.searchsorted(puzzles.group_indices, goal)), puzzles.num_groups)
        yield _encode_block(name, puzzles, metadata, start, stop)
        start = stop


def _encode_block(
    name: str, puzzles: PuzzleSet, metadata: DatasetMetadata, start: int, stop: int
) -> dict[str, np.ndarray]:
    groups = puzzles.group_indices[start : stop + 1]
    units = slice(int(groups[0]), int(groups[-1]))
    counts = np.diff(puzzles.puzzle_indices[units.start : units.stop + 1])
    first = puzzles.puzzle_first[units]
    rows = slice(int(first.min()), int((first + counts).max()))
    inputs, labels = puzzles.inputs[rows], puzzles.labels[rows]
    extents = None if puzzles.extents is None else puzzles.extents[rows]
    examples = slice(*puzzles.puzzle_indices[[units.start, units.stop]])
    values = {
        'set_name': np.frombuffer(name.encode(), np.uint8),
        'inputs': inputs if extents is None else inputs[_inside(extents[:, :2])],
        'labels': labels if extents is None else labels[_inside(extents[:, 2:])],
        'extents': extents,
        'group_puzzles': np.diff(groups),
        'puzzle_first': first - rows.start,
        'puzzle_count': counts,
        'puzzle_identifiers': puzzles.puzzle_identifiers[units],
        'maps': None if puzzles.maps is None else puzzles.maps[units],
        'offsets': None if puzzles.offsets is None else puzzles.offsets[examples],
        'names': np.frombuffer('\n'.join(puzzles.names[start:stop]).encode(), np.uint8),
    }
    empty = np.zeros(0, np.uint8)
    return {
        field: empty
        if value is None
        else np.ascontiguousarray(value, _field_dtype(field, metadata)).reshape(-1).view(np.uint8)
        for field, value in values.items()
    }


def _field_dtype(field: str, metadata: DatasetMetadata) -> np.dtype:
    return np.dtype(FIELDS[field] or CELL_DTYPES[metadata.cell_bytes])


def _inside(extents_N2: np.ndarray) -> np.ndarray:
    """Cells of the ARC canvas that belong to grids of these sides: bool [N, 900]."""
    line = np.arange(augment.ARC_SIDE)
    rows, columns = (line < extents_N2[:, k, None] for k in range(2))
    return (rows[:, :, None] & columns[:, None, :]).reshape(len(extents_N2), -1)


def decode_blocks(
    blocks: Iterable[dict[str, np.ndarray]], metadata: DatasetMetadata
) -> dict[str, PuzzleSet]:
    """Joins records back into sets; the inverse of ``encode_blocks``.

    Raises:
      DatasetError: fields that do not fit together.
    """
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in metadata.sets}
    for block in blocks:
        values = {f: np.asarray(block[f]).view(_field_dtype(f, metadata)) for f in FIELDS}
        name = values['set_name'].tobytes().decode()
        values['extents'] = values['extents'].reshape(-1, 4)
        for field, columns in (('inputs', slice(0, 2)), ('labels', slice(2, 4))):
            cells = values[field]
            if len(values['extents']):
                mask = _inside(values['extents'][:, columns])
                canvas = np.zeros(mask.shape, cells.dtype)
                canvas[mask] = cells
                values[field] = canvas
            else:
                values[field] = cells.reshape(-1, metadata.seq_len)
        parts.setdefault(name, []).append(values)
    return {name: _join(name, blocks, metadata) for name, blocks in parts.items()}


def _join(name: str, blocks: list[dict[str, np.ndarray]], metadata: DatasetMetadata) -> PuzzleSet:
    if not blocks:
        raise DatasetError(
            f'the metadata names a set {name!r} that has no records. Build it again.'
        )
    joined = {f: np.concatenate([b[f] for b in blocks]) for f in FIELDS if f != 'names'}
    before = np.cumsum([0] + [len(b['inputs']) for b in blocks[:-1]])
    shift = np.repeat(before, [len(b['puzzle_first']) for b in blocks])
    names = [b['names'].tobytes().decode().split('\n') for b in blocks if len(b['names'])]
    width = augment.map_width(metadata.transform, metadata.side)
    return PuzzleSet(
        inputs=joined['inputs'],
        labels=joined['labels'],
        group_indices=np.concatenate([[0], np.cumsum(joined['group_puzzles'], dtype=np.int64)]),
        puzzle_indices=np.concatenate([[0], np.cumsum(joined['puzzle_count'], dtype=np.int64)]),
        puzzle_first=joined['puzzle_first'].astype(np.int64) + shift,
        puzzle_identifiers=joined['puzzle_identifiers'].astype(np.int32),
        maps=joined['maps'].reshape(-1, width) if len(joined['maps']) else None,
        extents=joined['extents'] if len(joined['extents']) else None,
        offsets=joined['offsets'].reshape(-1, 2) if len(joined['offsets']) else None,
        names=tuple(n for part in names for n in part),
    )


def _read_records(root: pathlib.Path, split: str, metadata: DatasetMetadata) -> dict:
    check_manifest(root)
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            f'{root} holds records, which need tensorflow-datasets and array_record ({error}). '
            f'Install them, or write the set as a folder of .npy files elsewhere: '
            f'python -m data_builders export {root} --output-dir DIR'
        ) from None
    try:
        builder: Any = tfds.builder_from_directory(str(root))
        source = builder.as_data_source(split)
        step = 64
        chunks = (range(i, min(i + step, len(source))) for i in range(0, len(source), step))
        return decode_blocks(
            (block for chunk in chunks for block in source.__getitems__(list(chunk))), metadata
        )
    except DatasetError:
        raise
    except Exception as error:  # array_record and TFDS raise many kinds on damaged files
        raise DatasetError(
            f'the records of {root} cannot be read ({type(error).__name__}: {str(error)[:200]}). '
            f'Build it again: {builder_command(root)} --overwrite'
        ) from error
