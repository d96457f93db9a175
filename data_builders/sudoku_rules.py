"""Rules of Sudoku of any size, and boards with exactly one solution.

Boards are flat uint8 rows, 0 for a blank and 1..n for digits.
"""

import functools

import numpy as np

from data_builders import sudoku_bits
from hrm_jax.tasks import sudoku_search

# Rows from which on boards are searched by ``sudoku_bits``.
_LARGE = 10


def valid_solutions(boards_BS: np.ndarray, size: int) -> np.ndarray:
    """Returns bool [B]: each board is full and keeps the rules."""
    bits = np.left_shift(1, boards_BS, dtype=np.uint32)
    every = np.uint32((1 << (size + 1)) - 2)
    full = np.ones(len(boards_BS), bool)
    for unit in sudoku_search.units(size):
        full &= np.bitwise_or.reduce(bits[:, unit], axis=1) == every
    return full


class Solver(sudoku_search.Search):
    """The search, and boards made with it."""

    def random_solution(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a full board."""
        empty = np.zeros(self.size * self.size, np.uint8)
        return np.array(next(self.solutions(empty, rng)), np.uint8)

    def dig(self, solution: np.ndarray, clues: int, rng: np.random.Generator) -> np.ndarray:
        """Blanks cells in random order while the solution stays the only one.

        Stops at ``clues`` digits, or when no other cell can be blanked.
        """
        board = solution.copy()
        left = len(board)
        for c in rng.permutation(len(board)):
            if left <= clues:
                break
            if next(self.solutions(board, banned=int(c)), None) is None:
                board[c] = 0
                left -= 1
        return board


@functools.cache
def all_solutions_4() -> np.ndarray:
    """Returns the 288 full 4 x 4 boards, uint8 [288, 16]."""
    return np.array(list(Solver(4).solutions(np.zeros(16, np.uint8))), np.uint8)


def solver(size: int) -> Solver | sudoku_bits.Bits:
    """Returns what finds and counts the solutions of boards of a size."""
    return sudoku_bits.Bits(size) if size >= _LARGE else Solver(size)
