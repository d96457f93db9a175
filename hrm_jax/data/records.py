"""How data sets are stored, and how to load one of any format.

Folder made by ``python -m data_builders``::

    dataset_info.json, features.json, <task>-<split>.array_record-*    written by TFDS
    <split>/dataset.json      the keys of the original, and task, transform, cell_bytes, digest
    <split>/ratings-<set>.npy float32 [examples], where the source of the puzzles rates them
    manifest.json             sources with hashes, seed, versions, counts, size of every file

One record has a block of consecutive groups (blocks.py). array_record compresses whole records.
"""

from collections.abc import Iterable
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from hrm_jax import files, tasks
from hrm_jax.data import blocks, building, npy_folder, text
from hrm_jax.data import names as names_lib
from hrm_jax.data.metadata import DIGEST, METADATA, DatasetMetadata
from hrm_jax.data.names import BLANK_NAME
from hrm_jax.data.puzzles import PuzzleDataset, PuzzleSet, puzzle_names, validate
from hrm_jax.errors import DatasetError

__all__ = ['DatasetError', 'DatasetMetadata', 'PuzzleDataset', 'PuzzleSet', 'load']

FORMAT_VERSION = 1
MANIFEST = 'manifest.json'
_DIGEST = re.compile('[0-9a-f]{32}\\Z')


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
    names_lib.check_file_name(split, 'the split of a data set')
    file = root / split / METADATA
    if not str(path) or not root.is_dir() or not file.is_file():
        raise DatasetError(_missing_text(root if str(path) else None, split))
    values = files.read_json(file, DatasetError, dict)
    metadata = DatasetMetadata.from_dict(values, file)
    digest = values.get(DIGEST, '')
    DatasetError.require(
        isinstance(digest, str) and (not digest or _DIGEST.match(digest) is not None),
        f'{file}: {DIGEST} must be 32 hexadecimal digits; got {files.shown(digest)}. Leave the key '
        f'out, or build the set again.',
    )
    metadata = described(metadata, root)
    if format == 'npy_folder':
        stated = bool(metadata.task or task)
        metadata, sets = npy_folder.read(root, split, metadata, task)
    elif format == 'records':
        stated = True
        metadata = dataclasses.replace(metadata, task=task) if task else metadata
        sets = _read_records(root, split, metadata)
    else:
        raise DatasetError(f'data.format must be auto, records or npy_folder; got {format!r}.')
    dataset = PuzzleDataset(
        metadata, sets, str(root), task_is_guessed=not stated, stored_digest=digest,
        ratings=_ratings(root / split, sets),
    )  # fmt: skip
    validate(dataset)
    return dataset


def ratings_file(set_name: str) -> str:
    """Name of the file of a set's ratings, in the folder of its split."""
    return f'ratings-{set_name}.npy'


def _ratings(folder: pathlib.Path, sets: dict[str, PuzzleSet]) -> dict[str, np.ndarray]:
    found = {}
    for name, puzzles in sets.items():
        path = folder / ratings_file(name)
        if not path.is_file():
            continue
        values = npy_folder.map_file(path)
        DatasetError.require(
            values.shape == (puzzles.num_examples,) and values.dtype.kind == 'f',
            f'{path} must have a number for each of {puzzles.num_examples} examples; got '
            f'{values.dtype} of shape {values.shape}. Build the set again.',
        )
        found[name] = np.array(values)
    return found


def described(metadata: DatasetMetadata, root: str | pathlib.Path) -> DatasetMetadata:
    """Adds what other files of a set's folder state about its texts: tokens, grid, notation.

    Args:
      metadata: of a split, or of a checkpoint's data set.
      root: folder of the set; '' or a missing one adds nothing.

    Raises:
      DatasetError: one of the files is not JSON with what it should have.
    """
    if not str(root):
        return metadata
    root, found = pathlib.Path(root).expanduser(), {}
    words = {} if metadata.vocabulary else names_lib.vocabulary_of(root)
    if words:
        size = metadata.vocab_size
        DatasetError.require(
            max(words.values()) < size,
            f'{root / names_lib.VOCABULARY}: ids must be below the vocab_size, {size}; got '
            f'{max(words.values())}. Give the data set that belongs to the model.',
        )
        # A token without a name cannot be written, but needs a text of its own.
        texts = {token: f'<{token}>' for token in range(size)} | {metadata.pad_id: text.PAD}
        texts |= {token: word for word, token in words.items()}
        found['vocabulary'] = tuple(texts[token] for token in range(size))
    if metadata.grid is None and not tasks.kind_of(metadata.task).symbols:
        reading = text.reading_of(root)
        if reading is not None and reading.height * reading.width == metadata.seq_len:
            found['grid'] = (reading.height, reading.width)
            form = reading.form
            found |= {'row_marks': form.rows, 'blanks': form.blank, 'words': form.words}
        elif reading is None:
            found |= _grid_of_manifest(root, metadata.seq_len)
    return dataclasses.replace(metadata, **found)


def _grid_of_manifest(root: pathlib.Path, seq_len: int) -> dict[str, Any]:
    """The grid of a custom set that was built before sets stated how they are read."""
    file = root / MANIFEST
    notes = files.read_json(file, DatasetError, dict).get('notes') if file.is_file() else None
    grid = notes.get('grid') if isinstance(notes, dict) else None
    sizes = grid if isinstance(grid, list) and all(type(n) is int for n in grid) else []
    if len(sizes) != 2 or sizes[0] * sizes[1] != seq_len:
        return {}
    return {'grid': tuple(sizes), 'row_marks': '/'}


def identifier_names(splits: Iterable[PuzzleDataset], separator: str = '_') -> list[str]:
    """Returns the name of each puzzle identifier, as ``identifiers.json`` of the original.

    Args:
      splits: one or more splits of a data set; names that only others know are empty.
      separator: between the parts of the names of ARC augmentations.
    """
    splits = list(splits)
    for dataset in splits:
        file = pathlib.Path(dataset.path) / names_lib.IDENTIFIERS
        if dataset.path and file.is_file():
            return names_lib.read_identifiers(file)
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


def _missing_text(root: pathlib.Path | None, split: str) -> str:
    if root is None:
        return 'data.path must name the folder of a data set. Set --config.data.path=DIR.'
    if not root.is_dir():
        what = f'there is no data set at {root}'
    elif (root / MANIFEST).is_file() or splits_of(root):
        there = ', '.join(splits_of(root))
        return (
            f'{root} has no split {split!r} (it has: {there or "none"}). Name one of those, or '
            f'build the set again: {building.command(root)} --overwrite'
        )
    else:
        what = f'{root} is not a data set (it has no {split}/{METADATA})'
    return f'{what}. Build it with: {building.command(root)}'


def splits_of(root: str | pathlib.Path) -> list[str]:
    """Names of the splits of a data set, sorted."""
    found = pathlib.Path(root).expanduser().glob(f'*/{METADATA}')
    return sorted(path.parent.name for path in found if files.visible(path.parent))


def check_manifest(root: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest and compares the size of every file with it.

    Raises:
      DatasetError: no manifest, one of another format, or files missing or truncated.
    """
    again = f'Build it again: {building.command(root)} --overwrite'
    path = root / MANIFEST
    try:
        manifest = files.read_json(path, DatasetError, dict)
    except (OSError, DatasetError) as error:
        what = 'it is half-written' if isinstance(error, OSError) else error
        raise DatasetError(f'{root} has no readable {MANIFEST}: {what}. {again}') from None
    version = manifest.get('format_version')
    DatasetError.require(
        version == FORMAT_VERSION,
        f'{root} has format version {files.shown(version)}; this program reads {FORMAT_VERSION}. '
        f'{again}',
    )
    for key, kind in (('files', dict), ('options', dict), ('notes', dict), ('sources', list)):
        value = manifest.setdefault(key, kind())
        DatasetError.require(
            isinstance(value, kind),
            f'{path}: {key} must be {"a list" if kind is list else "an object"}; got '
            f'{files.shown(value)}. {again}',
        )
    sizes = manifest['files']
    DatasetError.require(
        bool(sizes), f'{path}: files must name every file of the set; it names none. {again}'
    )
    for name, size in sizes.items():
        inside = pathlib.PurePosixPath(name)
        DatasetError.require(
            not inside.is_absolute() and '..' not in inside.parts,
            f'{path}: the name of a file must be inside the folder; got {files.shown(name)}. '
            f'{again}',
        )
        there = (root / name).stat().st_size if (root / name).is_file() else None
        DatasetError.require(
            there == size,
            f'{root / name} must have {files.shown(size)} bytes; it '
            + ('is missing' if there is None else f'has {there}')
            + f'. {again}',
        )
    return manifest


def _read_records(root: pathlib.Path, split: str, metadata: DatasetMetadata) -> dict:
    check_manifest(root)
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            f'{root} has records, which need tensorflow-datasets and array_record ({error}). '
            f'Install them, or write the set as a folder of .npy files elsewhere: '
            f'python -m data_builders export {root} --output-dir DIR'
        ) from None
    try:
        builder: Any = tfds.builder_from_directory(str(root))
        source = builder.as_data_source(split)
        step = 64
        chunks = (range(i, min(i + step, len(source))) for i in range(0, len(source), step))
        found = (block for chunk in chunks for block in source.__getitems__(list(chunk)))
        return blocks.decode(found, metadata)
    except DatasetError as error:
        raise DatasetError(f'{root}, split {split!r}: {error}') from None
    except Exception as error:  # array_record and TFDS raise many kinds on damaged files
        raise DatasetError(
            f'the records of {root} cannot be read ({type(error).__name__}: {str(error)[:200]}). '
            f'Build it again: {building.command(root)} --overwrite'
        ) from error
