"""What the data checks share: comparing a built split with a folder of the original."""

import hashlib
import json
from pathlib import Path
import tempfile
from typing import Any

import numpy as np

from data_builders import folder_format, writing
from experiments.parity.registry import Report
from hrm_jax.data.puzzles import stored_examples

ARRAYS = ('inputs', 'labels', 'puzzle_identifiers', 'puzzle_indices', 'group_indices')


def compare_arrays(
    report: Report, what: str, split: writing.Split, arrays: dict[str, np.ndarray]
) -> None:
    """Compares every array of the set ``all``, augmentations applied."""
    puzzles = split.sets['all']
    inputs, labels = stored_examples(puzzles, split.metadata, np.arange(puzzles.num_examples))
    own = {'inputs': inputs, 'labels': labels} | {f: getattr(puzzles, f) for f in ARRAYS[2:]}
    for field in ARRAYS:
        report.equal(f'{what} {field}', own[field], arrays[f'all__{field}'])


def compare_metadata(
    report: Report, what: str, split: writing.Split, wanted: dict[str, Any]
) -> None:
    """Counts the keys of dataset.json that differ."""
    metadata = split.metadata
    own = {key: getattr(metadata, key, None) for key in wanted} | {'sets': list(metadata.sets)}
    report.below(f'{what} metadata', sum(own[k] != wanted[k] for k in wanted), 0)


def compare_files(
    report: Report, what: str, split: writing.Split, hashes: dict[str, str], uint8: bool
) -> None:
    """Exports the split and compares the files byte for byte.

    The original's Sudoku builder writes int64 where it augments; the project never does, so
    such files are left out (``uint8`` False).
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folder_format.write_set(root, 'all', split.sets['all'], split.metadata)
        names = [n for n in hashes if n.endswith('.npy')
                 and (uint8 or not n.endswith(('inputs.npy', 'labels.npy')))]  # fmt: skip
        own = {n: hashlib.sha256((root / n).read_bytes()).hexdigest() for n in names}
    report.below(f'{what} files', sum(own[n] != hashes[n] for n in names), 0)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
