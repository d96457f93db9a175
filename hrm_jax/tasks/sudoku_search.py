"""Units of a Sudoku of any size, and a search for its solutions. No JAX: builders use it too.

Boards are flat rows of digits, 0 for an empty cell.
"""

from collections.abc import Iterator
import functools
import math

import numpy as np


class TooManyNodes(Exception):
    """A search would have to look at more boards than it may."""


def box_shape(size: int) -> tuple[int, int]:
    """Rows and columns of a box of a ``size`` x ``size`` Sudoku: 4 -> 2x2, 6 -> 2x3, 9 -> 3x3."""
    rows = math.isqrt(size)
    while size % rows:
        rows -= 1
    return rows, size // rows


@functools.cache
def units(side: int) -> np.ndarray:
    """Returns int [3 side, side]: the cells of every row, then column, then box."""
    rows, columns = box_shape(side)
    i, j = np.divmod(np.arange(side * side), side)
    kinds = (i, j, i // rows * rows + j // columns)
    return np.array([np.flatnonzero(kind == u) for kind in kinds for u in range(side)])


class Search:
    """Depth-first search for solutions that fills forced cells and places first.

    Args:
      side: rows of the board.
    """

    def __init__(self, side: int):
        self.size = side
        self.units = [tuple(int(c) for c in unit) for unit in units(side)]
        self.units_of = [[k for k, unit in enumerate(self.units) if c in unit]
                         for c in range(side * side)]  # fmt: skip
        self.all = (1 << side) - 1

    def solutions(
        self,
        board: np.ndarray,
        rng: np.random.Generator | None = None,
        banned: int = -1,
        max_nodes: int | None = None,
    ) -> Iterator[list[int]]:
        """Yields the solutions of a board.

        Args:
          board: digits, int [side * side], 0 for empty cells.
          rng: digits are tried in random order when it is given.
          banned: a cell of the board that must not keep the digit it has.
          max_nodes: boards to look at; None: any number.

        Raises:
          TooManyNodes: more would be needed.
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
        budget = [-1 if max_nodes is None else max_nodes]
        yield from self._search(cells, used, rng, banned, forbidden, budget)

    def _search(self, cells, used, rng, banned, forbidden, budget):
        if not budget[0]:
            raise TooManyNodes
        budget[0] -= 1
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
            yield from self._search(cells, used, rng, banned, forbidden, budget)
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

    def count(self, board: np.ndarray, limit: int = 2, max_nodes: int | None = None) -> int | None:
        """Returns the number of solutions, counted up to ``limit``.

        Args:
          board: digits, 0 for empty cells.
          limit: at which to stop.
          max_nodes: boards to look at; None: any number.

        Returns:
          The number, or None where more boards would have to be looked at.
        """
        found = 0
        try:
            for _ in self.solutions(board, max_nodes=max_nodes):
                found += 1
                if found >= limit:
                    break
        except TooManyNodes:
            return None
        return found


@functools.cache
def searching(side: int) -> Search:
    """Returns the search for boards of a size; it keeps no state."""
    return Search(side)
