"""A search for large Sudokus: full boards, and boards with exactly one solution.

The cells that may hold a digit are the bits of one integer, so that filling a cell costs a few
operations whatever the size of the board. A search fills every cell with a single digit and every
digit with a single place, then tries a cell with the fewest digits. Boards of up to 9x9 come from
tasks/sudoku_search.py, which is as fast there and whose order of draws their sets depend on.
"""

from collections.abc import Iterator

import numpy as np

from hrm_jax.tasks import sudoku_search
from hrm_jax.tasks.sudoku_search import TooManyNodes

# Searches of one full board, and branches of each: the lengths of searches have a heavy tail.
_ATTEMPTS, _NODES = 200, 400
# Branches after which it counts as unknown whether a cell may be blanked, and it stays. Branches,
# not seconds: a seed gives the same boards everywhere.
_DIG_NODES = 20


class Bits:
    """Searches boards of one size. Boards are digits, 0 for an empty cell; flat.

    Args:
      side: rows of the board.
    """

    def __init__(self, side: int):
        self.side = side
        self.cells = side * side
        self.units = [sum(1 << int(c) for c in unit) for unit in sudoku_search.units(side)]
        self.units_of = [
            [unit for unit in self.units if unit >> c & 1] for c in range(self.cells)
        ]  # fmt: skip
        self.elsewhere = [~(a | b | c) for a, b, c in self.units_of]

    def count(self, board: np.ndarray, limit: int = 2) -> int:
        """Returns the number of solutions, counted up to ``limit``."""
        found = 0
        for _ in self.solutions(board):
            found += 1
            if found >= limit:
                break
        return found

    def random_solution(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a full board, uint8 [cells]."""
        empty = np.zeros(self.cells, np.uint8)
        for _ in range(_ATTEMPTS):
            try:
                return np.array(next(self.solutions(empty, rng, _NODES)), np.uint8)
            except TooManyNodes:
                continue
        raise AssertionError(f'no full board in {_ATTEMPTS} searches')  # never seen

    def dig(self, solution: np.ndarray, clues: int, rng: np.random.Generator) -> np.ndarray:
        """Blanks cells in random order while the solution stays the only one.

        Stops at ``clues`` digits, or when no other cell can be blanked by a short search.
        """
        board = solution.copy()
        left = len(board)
        for cell in rng.permutation(len(board)).tolist():
            if left <= clues:
                break
            try:
                kept = self.has_other(board, cell, _DIG_NODES)
            except TooManyNodes:
                kept = True
            if not kept:
                board[cell] = 0
                left -= 1
        return board

    def has_other(self, board: np.ndarray, cell: int, max_nodes: int | None = None) -> bool:
        """Whether the board has a solution with another digit in a cell than the one it has.

        Args:
          board: of which everything but this cell is given.
          cell: a filled one.
          max_nodes: branches to look at; None: any number.

        Raises:
          TooManyNodes: more would be needed.
        """
        digit = int(board[cell])
        opened = np.array(board)
        opened[cell] = 0
        state = self._start(opened)
        if state is None:
            return False
        free, filled = state
        bit = 1 << cell
        if not any(free[d] & bit for d in range(self.side) if d != digit - 1):
            return False
        if any(free[digit - 1] & unit == bit for unit in self.units_of[cell]):
            return False
        free[digit - 1] &= ~bit
        return next(self._search(free, filled, None, [max_nodes]), None) is not None

    def solutions(
        self,
        board: np.ndarray,
        rng: np.random.Generator | None = None,
        max_nodes: int | None = None,
    ) -> Iterator[list[int]]:
        """Yields the solutions of a board.

        Args:
          board: digits.
          rng: digits are tried in random order when it is given.
          max_nodes: branches to look at; None: any number.

        Raises:
          TooManyNodes: more would be needed.
        """
        state = self._start(board)
        if state is not None:
            yield from self._search(*state, rng, [max_nodes])

    def _start(self, board: np.ndarray) -> tuple[list[int], list[int]] | None:
        # Cells that each digit may be in, and those that it is in; None: givens contradict.
        free, filled = [(1 << self.cells) - 1] * self.side, [0] * self.side
        for cell in np.flatnonzero(board).tolist():
            digit = int(board[cell]) - 1
            if not free[digit] >> cell & 1:
                return None
            self._fill(free, filled, cell, digit)
        return free, filled

    def _fill(self, free: list[int], filled: list[int], cell: int, digit: int) -> None:
        others = ~(1 << cell)
        free[:] = [cells & others for cells in free]
        free[digit] &= self.elsewhere[cell]
        filled[digit] |= 1 << cell

    def _search(self, free, filled, rng, budget) -> Iterator[list[int]]:
        if not self._fill_forced(free, filled):
            return
        if not any(free):
            yield self._board(filled)
            return
        if budget[0] is not None:
            if budget[0] <= 0:
                raise TooManyNodes
            budget[0] -= 1
        cell = self._fewest(free)
        digits = [d for d, cells in enumerate(free) if cells >> cell & 1]
        if rng is not None:
            digits = [digits[k] for k in rng.permutation(len(digits))]
        for digit in digits:
            branch, done = list(free), list(filled)
            self._fill(branch, done, cell, digit)
            yield from self._search(branch, done, rng, budget)

    def _fill_forced(self, free: list[int], filled: list[int]) -> bool:
        """Fills what is forced; returns whether no contradiction came up."""
        while True:
            once = twice = done = 0
            for cells, own in zip(free, filled, strict=True):
                twice |= once & cells
                once |= cells
                done |= own
            if (once | done).bit_count() < self.cells:
                return False  # a cell without a digit
            forced = self._single_digits(free, once & ~twice) or self._single_places(free, filled)
            if forced is None:
                return False
            if not forced:
                return True
            for cell, digit in forced:
                if not free[digit] >> cell & 1:
                    if not filled[digit] >> cell & 1:
                        return False  # two of them contradict each other
                    continue
                self._fill(free, filled, cell, digit)

    def _single_digits(self, free: list[int], single: int) -> list[tuple[int, int]]:
        return [(cell, d) for d, cells in enumerate(free) for cell in _places(cells & single)]

    def _single_places(self, free, filled) -> list[tuple[int, int]] | None:
        """Digits with one place in a unit; None: one has none."""
        forced = []
        for digit, (cells, own) in enumerate(zip(free, filled, strict=True)):
            for unit in self.units:
                places = cells & unit
                if not places & (places - 1) and not own & unit:
                    if not places:
                        return None
                    forced.append((places.bit_length() - 1, digit))
        return forced

    def _fewest(self, free: list[int]) -> int:
        """The first of the open cells with the fewest digits."""
        levels = [0] * (self.side + 1)  # cells with that many digits or more
        for cells in free:
            for k in range(self.side, 1, -1):
                levels[k] |= levels[k - 1] & cells
            levels[1] |= cells
        for k in range(2, self.side + 1):
            exact = levels[k] & ~(levels[k + 1] if k < self.side else 0)
            if exact:
                return (exact & -exact).bit_length() - 1
        raise AssertionError('called with an open cell of two digits or more')

    def _board(self, filled: list[int]) -> list[int]:
        board = [0] * self.cells
        for digit, cells in enumerate(filled):
            for cell in _places(cells):
                board[cell] = digit + 1
        return board


def _places(cells: int) -> Iterator[int]:
    while cells:
        low = cells & -cells
        yield low.bit_length() - 1
        cells ^= low
