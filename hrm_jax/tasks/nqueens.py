"""N-Queens: some queens are placed, the others follow from them."""

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks.base import Board


class NQueens(Board):
    """Boards of N queens, none of which attacks another; ``.`` empty, ``Q`` queen; 0 padding.

    A question has some of the queens. Empty cells of a question are open; those of an answer
    are empty.
    """

    name = 'nqueens'
    summary = 'N queens, some of them placed'
    symbols = '?.Q'
    aliases = {'0': 1, '_': 1, '*': 1, '1': 2, 'q': 2}
    EMPTY, QUEEN = 1, 2
    blank = EMPTY
    symmetries = 'dihedral'
    judged = ('valid',)
    difficulty_name = 'givens'

    def _token(self, word: str, cell: int) -> int:
        token = self.aliases.get(word, self.symbols.find(word))
        PuzzleError.require(
            len(word) == 1 and token >= self.EMPTY,
            f"{self.where(cell)} must be 'Q', or '.' for an empty cell; got {word!r}.",
        )
        return token

    def check_question(self, tokens: np.ndarray) -> None:
        clash = self._clash(tokens)
        if clash is not None:
            raise PuzzleError(f'{self.where(clash[0])}: this queen attacks {self.where(clash[1])}.')

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """N queens, the given ones among them, none of which attacks another."""
        queens = answer == self.QUEEN
        others = (answer[~queens] == self.EMPTY).all()
        kept = queens[question == self.QUEEN].all()
        return bool(others and kept and queens.sum() == self.side and self._clash(answer) is None)

    def difficulty(self, question: np.ndarray) -> int:
        """Queens that are placed."""
        return int((question == self.QUEEN).sum())

    def count_solutions(
        self, question: np.ndarray, limit: int = 2, max_nodes: int | None = None
    ) -> int | None:
        if not self.side:
            return None
        found = nodes = 0
        given = {int(c) // self.side: int(c) % self.side for c in np.flatnonzero(question == 2)}
        stack: list[tuple[int, ...]] = [()]
        while stack and found < limit:
            columns, nodes = stack.pop(), nodes + 1
            if max_nodes is not None and nodes > max_nodes:
                return None
            row = len(columns)
            if row == self.side:
                found += 1
                continue
            here = [given[row]] if row in given else range(self.side)
            stack += [
                (*columns, column)
                for column in here
                if all(
                    column != other and abs(column - other) != row - k
                    for k, other in enumerate(columns)
                )
            ]
        return found

    def _clash(self, tokens: np.ndarray) -> tuple[int, int] | None:
        """Two cells whose queens attack each other, the later one first."""
        queens = [divmod(int(cell), self.side) for cell in np.flatnonzero(tokens == self.QUEEN)]
        for number, (r, c) in enumerate(queens):
            for i, j in queens[:number]:
                if r == i or c == j or abs(r - i) == abs(c - j):
                    return r * self.side + c, i * self.side + j
        return None
