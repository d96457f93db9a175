"""To and from the original's folder format: ``export`` and ``import``.

HRM's form: identifiers.json and ``<split>/<set>__<field>.npy``. TRM's form adds total_puzzles to
the metadata, parts the names of ARC augmentations by ``|||``, and has test_puzzles.json.
"""

import json
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from data_builders import sources, writing
from data_builders.errors import BuildError, require
from hrm_jax.data import npy_folder, records
from hrm_jax.data.puzzles import METADATA, DatasetError, PuzzleSet, stored_examples

FORMS = ('hrm', 'trm')
SPLITS = ('train', 'test')
_ALONG = ('vocab.json', 'test_puzzles.json', 'identifiers.json')
_ORIGINAL_KEYS = (
    'pad_id', 'ignore_label_id', 'blank_identifier_id', 'vocab_size', 'seq_len',
    'num_puzzle_identifiers', 'total_groups', 'mean_puzzle_examples', 'sets',
)  # fmt: skip
_CHUNK = 4096


def load(path: str, split: str) -> records.PuzzleDataset:
    """Loads a split; a missing or damaged one is a BuildError."""
    try:
        return records.load(path, split)
    except DatasetError as error:
        raise BuildError(str(error)) from None


def export_folder(
    path: str,
    output_dir: str,
    *,
    form: str = 'hrm',
    seed: int = 0,
    overwrite: bool = False,
    show: bool = True,
) -> None:
    """Writes a data set as the original's builders would.

    Args:
      path: folder of a data set.
      output_dir: folder to make.
      form: 'hrm' or 'trm'.
      seed: not used; every command that writes takes one.
      overwrite: replace an existing data set.
      show: show progress.

    Raises:
      BuildError: no data set at ``path``, or an output in use.
    """
    del seed
    require(form in FORMS, f'--form must be one of {", ".join(FORMS)}; got {form!r}.')
    output = writing.check_output(output_dir, overwrite)
    splits = {split: load(path, split) for split in SPLITS}
    separator = '|||' if form == 'trm' else '_'
    with writing.replacing(output) as folder:
        for name in _ALONG:
            if (pathlib.Path(path) / name).is_file():
                shutil.copy(pathlib.Path(path) / name, folder / name)
        names = records.identifier_names(splits.values(), separator)
        if any(data.metadata.task == 'lisp' for data in splits.values()):
            names = _tokens(folder)
        if not (folder / 'identifiers.json').is_file():
            (folder / 'identifiers.json').write_text(json.dumps(names))
        for split, data in splits.items():
            (folder / split).mkdir()
            metadata = {key: getattr(data.metadata, key) for key in _ORIGINAL_KEYS}
            if form == 'trm':
                puzzles = sum(p.num_puzzles for p in data.sets.values())
                metadata = {**metadata, 'total_puzzles': puzzles}
            for name, puzzles in data.sets.items():
                write_set(folder / split, name, puzzles, data.metadata, show)
            (folder / split / METADATA).write_text(json.dumps(metadata))


def _tokens(folder: pathlib.Path) -> list[str]:
    """The fork's Lisp folders name tokens, not puzzles, in identifiers.json."""
    vocabulary = json.loads((folder / 'vocab.json').read_text())
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


def import_folder(
    path: str, output_dir: str, *, seed: int = 0, overwrite: bool = False, show: bool = True
) -> dict[str, Any]:
    """Packs a folder of the original (HRM's or TRM's form) into records.

    Raises:
      BuildError: no such folder, a damaged one, or an output in use.
    """
    started = time.monotonic()
    root = pathlib.Path(path)
    require(npy_folder.looks_like_one(root), f'{path} is no folder with <split>/<set>__*.npy.')
    output = writing.check_output(output_dir, overwrite)
    splits = {}
    for split in SPLITS:
        data = load(path, split)
        splits[split] = writing.Split(data.metadata, data.sets)
    origin = [
        sources.fingerprint(file)
        for split in SPLITS
        for file in sorted((root / split).glob('*__inputs.npy'))
    ]

    def copy(folder: pathlib.Path) -> None:
        for name in _ALONG:
            if (root / name).is_file():
                shutil.copy(root / name, folder / name)

    return writing.write_dataset(
        output, splits['train'].metadata.task or 'custom', splits, sources=origin, seed=seed,
        options={'import': path}, started=started, show=show, also=copy,
    )  # fmt: skip
