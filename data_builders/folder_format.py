"""Conversion to and from the original's folder format: ``export`` and ``import``.

HRM's form: identifiers.json and ``<split>/<set>__<field>.npy``. TRM's form adds total_puzzles to
the metadata, separates the parts of the names of ARC augmentations by ``|||``, and has
test_puzzles.json.
"""

import json
import pathlib
import shutil
import time
from typing import Any, Literal

import numpy as np

from data_builders import sources, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data import npy_folder, records
from hrm_jax.data.names import IDENTIFIERS, VOCABULARY, read_vocabulary
from hrm_jax.data.puzzles import METADATA, PuzzleSet, stored_examples
from hrm_jax.data.text import READING
from hrm_jax.errors import BuildError, DatasetError

SPLITS = ('train', 'test')  # that every set has
PREDICT = 'predict'  # questions without answers, in some
_ALONG = (VOCABULARY, READING, 'test_puzzles.json', IDENTIFIERS)
_ORIGINAL_KEYS = (
    'pad_id', 'ignore_label_id', 'blank_identifier_id', 'vocab_size', 'seq_len',
    'num_puzzle_identifiers', 'total_groups', 'mean_puzzle_examples', 'sets',
)  # fmt: skip
_OWN_KEYS = ('task', 'transform', 'held_out', 'grid')
_CHUNK = 4096


def splits_of(path: str) -> tuple[str, ...]:
    """Returns ``SPLITS``, which every data set must have, and ``PREDICT`` where it is there."""
    return (*SPLITS, PREDICT) if PREDICT in records.splits_of(path) else SPLITS


def load(path: str, split: str, task: str = '') -> records.PuzzleDataset:
    """Loads a split; raises BuildError where it is missing or damaged."""
    try:
        return records.load(path, split, task=task)
    except DatasetError as error:
        raise BuildError(str(error)) from None


@settings
class ExportOptions(WriterOptions):
    """Settings of an export."""

    seed: int = option(0, help='not used; every command that writes a folder has it')
    show: bool = option(True, help='show progress', off='--quiet')
    form: Literal['hrm', 'trm'] = option('hrm', help='original whose programs can read the folder')


@settings
class ImportOptions(WriterOptions):
    """Settings of an import."""

    seed: int = option(0, help='recorded in the manifest; nothing here is random')
    task: str = option(
        '', help='what the puzzles are, where the folder does not state it', unset='guessed'
    )


@with_settings(ExportOptions)
def export_folder(path: str, output_dir: str, options: ExportOptions) -> None:
    """Writes a data set as the original's builders would.

    Args:
      path: folder of a data set.
      output_dir: folder to make.
      options: keyword arguments, the fields of ``ExportOptions``.

    Raises:
      BuildError: no data set at ``path``, or an output in use.
    """
    form, show = options.form, options.show
    output = writing.check_output(output_dir, options.overwrite)
    root = pathlib.Path(path).expanduser()
    splits = {split: load(path, split) for split in splits_of(path)}
    separator = '|||' if form == 'trm' else '_'
    with writing.replacing(output) as folder:
        for name in _ALONG:
            if (root / name).is_file():
                shutil.copy(root / name, folder / name)
        names = records.identifier_names(splits.values(), separator)
        if any(data.metadata.task == 'lisp' for data in splits.values()):
            names = _tokens(folder)
        if not (folder / IDENTIFIERS).is_file():
            (folder / IDENTIFIERS).write_text(json.dumps(names))
        for split, data in splits.items():
            (folder / split).mkdir()
            metadata = {key: getattr(data.metadata, key) for key in _ORIGINAL_KEYS}
            # The originals ignore keys that they do not know; a reader of ours need not guess.
            own = npy_folder.with_task(data.metadata, data.metadata.task)
            metadata |= {key: getattr(own, key) for key in _OWN_KEYS}
            if form == 'trm':
                puzzles = sum(p.num_puzzles for p in data.sets.values())
                metadata = {**metadata, 'total_puzzles': puzzles}
            for name, puzzles in data.sets.items():
                write_set(folder / split, name, puzzles, data.metadata, show)
            (folder / split / METADATA).write_text(json.dumps(metadata))


def _tokens(folder: pathlib.Path) -> list[str]:
    """Returns the names of a Lisp folder's identifiers.json: tokens, as the fork writes them."""
    try:
        vocabulary = read_vocabulary(folder / VOCABULARY)
    except (DatasetError, OSError) as error:
        raise BuildError(f'a Lisp set must have a {VOCABULARY}: {error}') from None
    return [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]


def write_set(
    folder: pathlib.Path, name: str, puzzles: PuzzleSet, metadata, show: bool = False
) -> None:
    """Writes the arrays of one set, augmentations applied, a chunk at a time."""
    total, length = puzzles.num_examples, metadata.seq_len
    dtype = np.uint8 if metadata.cell_bytes == 1 and metadata.task != 'lisp' else np.int32
    arrays = [
        np.lib.format.open_memmap(folder / f'{name}__{field}.npy', 'w+', dtype, (total, length))
        for field in ('inputs', 'labels')
    ]
    starts = range(0, total, _CHUNK)
    for start in writing.progress(starts, f'writing {folder.name}', show=show):
        chosen = np.arange(start, min(start + _CHUNK, total))
        for array, cells in zip(arrays, stored_examples(puzzles, metadata, chosen), strict=True):
            array[start : start + len(chosen)] = cells
    for array in arrays:
        array.flush()
    for field in ('puzzle_identifiers', 'puzzle_indices', 'group_indices'):
        np.save(folder / f'{name}__{field}.npy', getattr(puzzles, field).astype(np.int32))


@with_settings(ImportOptions)
def import_folder(path: str, output_dir: str, options: ImportOptions) -> dict[str, Any]:
    """Packs a folder of the original (HRM's or TRM's form) into records.

    Args:
      path: folder in the original's format.
      output_dir: folder to make.
      options: keyword arguments, the fields of ``ImportOptions``.

    Returns:
      The manifest.

    Raises:
      BuildError: no such folder, a damaged one, or an output in use.
    """
    started = time.monotonic()
    root = pathlib.Path(path).expanduser()
    BuildError.require(
        npy_folder.looks_like_one(root), f'{path} is not a folder with <split>/<set>__*.npy.'
    )
    output = writing.check_output(output_dir, options.overwrite)
    splits = {}
    for split in splits_of(path):
        data = load(path, split, options.task)
        splits[split] = writing.Split(data.metadata, data.sets)
    origin = [
        sources.fingerprint(root / split / f'{name}__inputs.npy')
        for split, data in splits.items()
        for name in data.metadata.sets
    ]

    def copy(folder: pathlib.Path) -> None:
        for name in _ALONG:
            if (root / name).is_file():
                shutil.copy(root / name, folder / name)

    return writing.write_dataset(
        output, splits['train'].metadata.task or 'custom', splits, options, sources=origin,
        started=started, recorded={'import': path}, also=copy,
    )  # fmt: skip
