"""Factors of a puzzle's embedding: its task, and the parts of the map that led to it.

With ``model.puzzle_embedding=composed`` the vector of a puzzle is a sum of rows of one small table:
that of its task, that of its dihedral element, and, for each colour, that of (colour, new colour).
So an augmentation that no training example had has an embedding too, and 1,000 augmentations of a
task need no 1,000 rows. CHARM (arXiv 2609.33270) puts such embeddings in the place of the table.

Rows of the table: 0 the blank identifier, then 8 dihedral elements, 10 x 10 colours, the tasks.
"""

from collections.abc import Iterable

import numpy as np

from hrm_jax.config.model import FACTOR_ROWS, FACTORS_OF_A_PUZZLE
from hrm_jax.data import augment
from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.errors import DatasetError

_DIHEDRAL, _COLOURS = 1, 9  # first rows


def of_maps(tasks_U: np.ndarray, maps_UM: np.ndarray) -> np.ndarray:
    """Rows of the table of each puzzle, int32 [U, 12].

    Args:
      tasks_U: number of the task of each, from 0.
      maps_UM: uint8 [U, 11], maps of ARC (augment.py).
    """
    colours = np.arange(augment.ARC_COLOURS)
    return np.concatenate(
        [
            FACTOR_ROWS + tasks_U[:, None],
            _DIHEDRAL + maps_UM[:, :1].astype(np.int32),
            _COLOURS + augment.ARC_COLOURS * colours + maps_UM[:, 1:].astype(np.int32),
        ],
        axis=1,
    ).astype(np.int32)


def of_data(splits: Iterable[PuzzleDataset]) -> tuple[np.ndarray, int]:
    """Factors of every puzzle identifier of a data set.

    Args:
      splits: all of it.

    Returns:
      int32 [identifiers, 12], zeros for the blank one and for those of no puzzle; and the number of
      tasks.

    Raises:
      DatasetError: its puzzles have no maps of ARC.
    """
    splits = list(splits)
    count = max(one.metadata.num_puzzle_identifiers for one in splits)
    # A task is known by the identifier of its puzzle without augmentation, the same in all splits.
    task_of = np.full(count, -1, np.int64)
    maps = np.tile(augment.identity_map('arc', augment.ARC_SIDE), (count, 1))
    for data in splits:
        for puzzles in data.sets.values():
            DatasetError.require(
                puzzles.maps is not None and data.metadata.transform == 'arc',
                f'model.puzzle_embedding=composed needs the maps that made the puzzles of '
                f'{data.path}: an ARC set of data_builders. Build it, or use '
                f'model.puzzle_embedding=table.',
            )
            ids, starts = puzzles.puzzle_identifiers, puzzles.group_indices
            task_of[ids] = np.repeat(ids[starts[:-1]], np.diff(starts))
            maps[ids] = puzzles.maps
    known = np.flatnonzero(task_of >= 0)
    tasks, numbers = np.unique(task_of[known], return_inverse=True)
    factors = np.zeros((count, FACTORS_OF_A_PUZZLE), np.int32)
    factors[known] = of_maps(numbers, maps[known])
    return factors, len(tasks)
