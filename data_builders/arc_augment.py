"""Augmentations of an ARC puzzle, drawn without making one augmented grid.

A candidate is a dihedral id and a permutation of the colours 1..9; it counts when the puzzle
it makes has not been seen before, for up to 5 tries per augmentation wanted, as in the
original (dataset/build_arc_dataset.py of sapientinc/HRM).

Two augmented puzzles are compared by a number that needs no grid. With random 64-bit weights
R of cells and V of colours, a pair's number is sum over cells of R[cell] * V[colour]. A map
moves cells and relabels colours, so it is sum over colours c of V[new c] * W[t, c], where
W[t, c] sums R over the cells that colour c reaches under dihedral id t: ten products. The
pairs' numbers are scrambled and added, which ignores their order as the original's sorted
list of hashes does. Different puzzles of one group collide with a probability below 1e-9.
"""

from collections.abc import Callable, Sequence
import hashlib

import numpy as np

from data_builders.arc_puzzles import Pair
from hrm_jax.data.augment import ARC_COLOURS, ARC_SIDE, SWAPS_SIDES, identity_map

TRIES_PER_AUGMENTATION = 5
# Draws n candidates: dihedral ids [n] and the new colours of 0..9 [n, 10].
Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]

_rng = np.random.default_rng(20240607)
_CELL_WEIGHTS = _rng.integers(0, 1 << 63, (2, ARC_SIDE, ARC_SIDE)).astype(np.uint64) * 2 + 1
_COLOUR_WEIGHTS = _rng.integers(0, 1 << 63, ARC_COLOURS).astype(np.uint64) * 2 + 1
_SHAPE_WEIGHTS = _rng.integers(0, 1 << 63, (4, ARC_SIDE + 1)).astype(np.uint64) * 2 + 1


def turn(grid: np.ndarray, dihedral: int) -> np.ndarray:
    """Applies one dihedral id (hrm_jax/data/augment.py) to one grid of any shape."""
    if dihedral < 4:
        return np.rot90(grid, dihedral)
    if dihedral == 4:
        return np.fliplr(grid)
    if dihedral == 5:
        return np.flipud(grid)
    return grid.T if dihedral == 6 else np.fliplr(np.rot90(grid))


def puzzle_hash(pairs: Sequence[Pair]) -> str:
    """Returns the original's identity of a puzzle: sha256 over its sorted pairs' hashes."""
    parts = []
    for pair in pairs:
        sides = (bytes(g.shape) + g.astype(np.uint8).tobytes() for g in pair.grids())
        parts.append('|'.join(hashlib.sha256(side).hexdigest() for side in sides))
    return hashlib.sha256('|'.join(sorted(parts)).encode()).hexdigest()


class Hasher:
    """Hash function of the augmented versions of one puzzle."""

    def __init__(self, pairs: Sequence[Pair]):
        # [8, pairs, 10]: W of each dihedral id and pair; [8, pairs]: number of the shapes
        self._weights = np.zeros((8, len(pairs), ARC_COLOURS), np.uint64)
        self._shapes = np.zeros((8, len(pairs)), np.uint64)
        for k, pair in enumerate(pairs):
            for which, grid in enumerate(pair.grids()):
                for t in range(8):
                    turned = turn(grid, t)
                    h, w = turned.shape
                    np.add.at(self._weights[t, k], turned, _CELL_WEIGHTS[which, :h, :w])
                    shapes = _SHAPE_WEIGHTS[[2 * which, 2 * which + 1], [h, w]]
                    self._shapes[t, k : k + 1] += shapes.sum()

    def __call__(self, dihedral_C: np.ndarray, colours_C10: np.ndarray) -> np.ndarray:
        """Returns uint64 [C], one number per candidate; equal for equal puzzles."""
        values = _COLOUR_WEIGHTS[colours_C10][:, None, :]
        sums = (self._weights[dihedral_C] * values).sum(axis=2) + self._shapes[dihedral_C]
        return _scramble(sums).sum(axis=1)


def _scramble(x: np.ndarray) -> np.ndarray:
    """Applies splitmix64's finaliser, so that sums of numbers behave as sums of random ones."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_maps(pairs: Sequence[Pair], num_aug: int, draw: Draw) -> np.ndarray:
    """Draws the augmentations of one puzzle.

    Args:
      pairs: all pairs of the puzzle, of both splits: they share their maps.
      num_aug: augmentations wanted.
      draw: source of candidates; asked for no more than the rule needs.

    Returns:
      uint8 [1 + kept, 11] maps; the first one changes nothing.
    """
    identity = identity_map('arc', ARC_SIDE)
    kept = [identity[None]]
    if num_aug == 0:
        return kept[0]
    hasher = Hasher(pairs)
    seen = hasher(identity[:1], identity[None, 1:])
    missing, tries = num_aug, TRIES_PER_AUGMENTATION * num_aug
    while missing and tries:
        # At least `missing` more candidates are needed, so this many never are too many.
        count = min(missing, tries)
        dihedral, colours = draw(count)
        tries -= count
        numbers = hasher(dihedral, colours)
        _, first = np.unique(numbers, return_index=True)
        first = np.sort(first[~np.isin(numbers[first], seen)])
        kept.append(np.concatenate([dihedral[first, None], colours[first]], 1).astype(np.uint8))
        seen = np.concatenate([seen, numbers[first]])
        missing -= len(first)
    return np.concatenate(kept)


def rooms(pairs: Sequence[Pair], side: int = ARC_SIDE) -> np.ndarray:
    """Returns int [pairs, 2]: how many rows and columns each untransformed pair can move.

    Args:
      pairs: of a puzzle.
      side: rows and columns of the canvas.
    """
    sides = np.array([np.max([grid.shape for grid in p.grids()], axis=0) for p in pairs])
    return side - sides.reshape(-1, 2)


def draw_offsets(
    pairs: Sequence[Pair], dihedral_A: np.ndarray, rng: np.random.Generator, side: int = ARC_SIDE
) -> np.ndarray:
    """Draws the places of the training pairs: one of each augmentation stays, the others move.

    Returns:
      uint8 [A, pairs, 2].
    """
    room = rooms(pairs, side)
    room = np.where(SWAPS_SIDES[dihedral_A][:, None, None], room[None, :, ::-1], room[None])
    offsets = rng.integers(0, room + 1)
    still = rng.integers(0, len(pairs), len(dihedral_A))
    offsets[np.arange(len(dihedral_A)), still] = 0
    return offsets.astype(np.uint8)


class OriginalDraws:
    """Draws of random numbers in the original's order, from numpy's legacy generator.

    The order: per subset one shuffle of its puzzles, then each puzzle's candidates; at the
    end, per split and puzzle, the pair that stays and the places of the others.
    """

    def __init__(self, seed: int):
        self._state = np.random.RandomState(seed)
        self._colours = np.arange(1, ARC_COLOURS, dtype=np.uint8)

    def shuffle(self, items: list) -> list:
        items = list(items)
        self._state.shuffle(items)
        return items

    def candidates(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        dihedral = np.zeros(count, np.uint8)
        colours = np.zeros((count, ARC_COLOURS), np.uint8)
        randint, permutation = self._state.randint, self._state.permutation
        for k in range(count):
            dihedral[k] = randint(0, 8)
            colours[k, 1:] = permutation(self._colours)
        return dihedral, colours

    def offsets(
        self,
        pairs: Sequence[Pair],
        dihedral_A: np.ndarray,
        translated: bool,
        side: int = ARC_SIDE,
    ) -> np.ndarray:
        """Like ``draw_offsets``; the pair that stays is drawn even where nothing moves."""
        room = rooms(pairs, side) + 1
        swapped = np.ascontiguousarray(room[:, ::-1])
        offsets = np.zeros((len(dihedral_A), len(pairs), 2), np.uint8)
        moving = [np.delete(np.arange(len(pairs)), k) for k in range(len(pairs))]
        randint = self._state.randint
        for a, t in enumerate(dihedral_A):
            others = moving[randint(0, len(pairs))]
            if translated and len(others):
                limits = swapped if SWAPS_SIDES[t] else room
                offsets[a, others] = randint(0, limits[others])
        return offsets
