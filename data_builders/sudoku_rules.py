"""Rules of Sudoku of any size, a solver, and boards with exactly one solution.

Boards are flat uint8 rows, 0 for a blank and 1..n for digits.
"""

from collections.abc import Iterator
import functools

import numpy as np

from hrm_jax.tasks import Sudoku


def valid_solutions(boards_BS: np.ndarray, size: int) -> np.ndarray:
    """Returns bool [B]: each board is full and keeps the rules."""
    bits = np.left_shift(1, boards_BS, dtype=np.uint16)
    every = np.uint16((1 << (size + 1)) - 2)
    full = np.ones(len(boards_BS), bool)
    for unit in Sudoku.units(size):
        full &= np.bitwise_or.reduce(bits[:, unit], axis=1) == every
    return full


class Solver:
    """Solver by depth-first search that fills forced cells and places first."""

    def __init__(self, size: int):
        self.size = size
        self.units = [tuple(int(c) for c in unit) for unit in Sudoku.units(size)]
        self.units_of = [[k for k, unit in enumerate(self.units) if c in unit]
                         for c in range(size * size)]  # fmt: skip
        self.all = (1 << size) - 1

    def solutions(
        self, board: np.ndarray, rng: np.random.Generator | None = None, banned: int = -1
    ) -> Iterator[list[int]]:
        """Yields solutions of ``board``; digits are tried in random order when rng is given.

        ``banned`` names a cell of the board that must not keep the digit it has.
        """
        cells = [int(v) for v in board]
        used = [0] * len(self.units)
        forbidden = 0
        if banned >= 0:
            forbidden, cells[banned] = 1 << (cells[banned] - 1), 0
        for c, value in enumerate(cells):
            if value:
                bit = 1 << (value - 1)
                for k in self.units_of[c]:
                    if used[k] & bit:
                        return
                    used[k] |= bit
        yield from self._search(cells, used, rng, banned, forbidden)

    def _search(self, cells, used, rng, banned, forbidden):
        best, best_cell, options = self.size + 1, -1, 0
        candidates = {}
        for c, value in enumerate(cells):
            if value:
                continue
            a, b, d = self.units_of[c]
            free = self.all & ~(used[a] | used[b] | used[d])
            if c == banned:
                free &= ~forbidden
            candidates[c] = free
            count = free.bit_count()
            if count < best:
                best, best_cell, options = count, c, free
                if count < 2:
                    break
        if best_cell < 0:
            yield list(cells)
            return
        if best == 0:
            return
        moves = None
        if best > 1:  # a digit may have a single place in a unit
            moves = self._single_place(candidates)
        if moves is None:
            moves = [(best_cell, bit) for bit in range(self.size) if options >> bit & 1]
        if rng is not None and len(moves) > 1:
            moves = [moves[k] for k in rng.permutation(len(moves))]
        for c, bit in moves:
            for k in self.units_of[c]:
                used[k] |= 1 << bit
            cells[c] = bit + 1
            yield from self._search(cells, used, rng, banned, forbidden)
            cells[c] = 0
            for k in self.units_of[c]:
                used[k] &= ~(1 << bit)

    def _single_place(self, candidates):
        for unit in self.units:
            once = twice = 0
            for c in unit:
                free = candidates.get(c, 0)
                twice |= once & free
                once |= free
            single = once & ~twice
            if single:
                bit = single & -single
                c = next(c for c in unit if candidates.get(c, 0) & bit)
                return [(c, bit.bit_length() - 1)]
        return None

    def count(self, board: np.ndarray, limit: int = 2) -> int:
        """Returns the number of solutions, counted up to ``limit``."""
        found = 0
        for _ in self.solutions(board):
            found += 1
            if found >= limit:
                break
        return found

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
