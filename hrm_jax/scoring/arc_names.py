"""What an ARC row of a prediction file is about: which puzzle, and which map led to it."""

import dataclasses
import os
import pathlib

import numpy as np

from hrm_jax.data import augment
from hrm_jax.data.names import AUGMENTED, IDENTIFIERS, read_identifiers
from hrm_jax.data.puzzles import PuzzleDataset, PuzzleSet
from hrm_jax.errors import PredictionError


@dataclasses.dataclass(frozen=True)
class PuzzleMaps:
    """For every puzzle identifier: its source puzzle and the way back.

    Attributes:
      bases: names of the source puzzles.
      base_of: int32 [ids], place in ``bases``; -1 for identifiers of no puzzle (the blank one).
      inverse: uint8 [ids, 11], maps that undo the augmentation (augment.py).
      is_original: bool [ids], identifiers of puzzles as they came.
    """

    bases: tuple[str, ...]
    base_of: np.ndarray
    inverse: np.ndarray
    is_original: np.ndarray

    @classmethod
    def from_identifiers(cls, identifiers: list[str]) -> 'PuzzleMaps':
        """Takes the names of ``identifiers.json`` of a folder in an original's format apart.

        Raises:
          PredictionError: a name is empty, or its colours are not a permutation.
        """
        places: dict[str, int] = {}
        base_of = np.full(len(identifiers), -1, np.int32)
        maps = np.tile(augment.identity_map('arc', augment.ARC_SIDE), (len(identifiers), 1))
        is_original = np.zeros(len(identifiers), bool)
        for index, name in enumerate(identifiers):
            if index == 0:
                continue
            match = AUGMENTED.match(name)
            base = match['base'] if match else name
            PredictionError.require(
                bool(base) and (match is None or _is_map(match['t'], match['colours'])),
                f'{IDENTIFIERS}: the name of identifier {index} must be that of a puzzle, or '
                f'<puzzle>_t<0..7>_<permutation of 0..9>; got {name[:80]!r}. Give the file of the '
                f'data set that the predictions were made on.',
            )
            base_of[index] = places.setdefault(base, len(places))
            if match is None:
                is_original[index] = True
            else:
                maps[index, 0] = int(match['t'])
                maps[index, 1:] = np.frombuffer(match['colours'].encode(), np.uint8) - ord('0')
        inverse = augment.inverse_maps('arc', maps, augment.ARC_SIDE)
        return cls(tuple(places), base_of, inverse, is_original)

    @classmethod
    def from_set(cls, puzzles: PuzzleSet, num_identifiers: int) -> 'PuzzleMaps':
        """Takes the stored maps of a ``PuzzleSet``, whose groups are the source puzzles.

        Raises:
          PredictionError: it stores none.
        """
        if puzzles.maps is None:
            raise PredictionError(
                'the data set must store the map of every puzzle, or have an identifiers.json that '
                'names it, so that answers can be mapped back; it has neither. Put the '
                'identifiers.json of its builder into its folder.'
            )
        groups = np.repeat(np.arange(puzzles.num_groups), np.diff(puzzles.group_indices))
        ids = puzzles.puzzle_identifiers
        identity = augment.identity_map('arc', augment.ARC_SIDE)
        base_of = np.full(num_identifiers, -1, np.int32)
        inverse = np.tile(identity, (num_identifiers, 1))
        is_original = np.zeros(num_identifiers, bool)
        base_of[ids] = groups
        inverse[ids] = augment.inverse_maps('arc', puzzles.maps, augment.ARC_SIDE)
        is_original[ids] = (puzzles.maps == identity).all(1)
        names = puzzles.names or tuple(f'puzzle {index}' for index in range(puzzles.num_groups))
        return cls(names, base_of, inverse, is_original)


def _is_map(dihedral: str, colours: str) -> bool:
    return dihedral < '8' and len(set(colours)) == augment.ARC_COLOURS


def find(
    dataset: PuzzleDataset | None, identifiers: str | os.PathLike | None = None
) -> PuzzleMaps | None:
    """Returns the maps that ``identifiers.json`` names, or else those stored in the data set.

    Args:
      dataset: the split that was answered; its folder may hold ``identifiers.json``.
      identifiers: the file, where it is stored elsewhere.
    """
    if identifiers is None and dataset is not None:
        beside = pathlib.Path(dataset.path) / IDENTIFIERS
        identifiers = beside if beside.is_file() else None
    if identifiers is not None:
        return PuzzleMaps.from_identifiers(read_identifiers(identifiers))
    if dataset is None:
        return None
    puzzles = next(iter(dataset.sets.values()))
    return PuzzleMaps.from_set(puzzles, dataset.metadata.num_puzzle_identifiers)
