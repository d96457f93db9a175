"""Graph colouring: an adjacency matrix, some vertices have their colour, the others follow."""

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks.base import Board


class Colouring(Board):
    """Graphs of N vertices as N x N boards; vertices that are joined have different colours.

    Cell (i, j) is ``1`` where the vertices i and j are joined and ``0`` where they are not; cell
    (i, i) is the colour of vertex i: ``r``, ``g``, ``b`` or ``y``, ``.`` in a question where it is
    open. 0 is padding. Renumbering the vertices leads to an equal puzzle, which no map of boards
    does, so ``symmetries`` is none.
    """

    name = 'colouring'
    summary = 'graphs, some vertices coloured'
    symbols = '?01.rgby'
    aliases = {'_': 3, '*': 3}
    APART, JOINED, OPEN, FIRST_COLOUR = range(1, 5)
    COLOURS = 4
    blank = OPEN
    judged = ('valid',)
    difficulty_name = 'open_vertices'

    def _token(self, word: str, cell: int) -> int:
        known = {self.symbols[token]: token for token in range(1, self.vocab_size)}
        known |= self.aliases
        row, column = divmod(cell, self.side)
        allowed = range(self.OPEN, self.vocab_size) if row == column else (self.APART, self.JOINED)
        token = known.get(word, -1)
        wanted = ' '.join(repr(self.symbols[token]) for token in allowed)
        PuzzleError.require(
            token in allowed, f'{self.where(cell)} must be one of {wanted}; got {word!r}.'
        )
        return token

    def check_question(self, tokens: np.ndarray) -> None:
        board = np.reshape(tokens, self.shape)
        bad = np.flatnonzero((board != board.T) & ~np.eye(self.side, dtype=bool))
        if len(bad):
            row, column = divmod(int(bad[0]), self.side)
            raise PuzzleError(
                f'{self.where(int(bad[0]))} must equal {self.where(column * self.side + row)}: '
                f'edges have no direction.'
            )
        clash = self._clash(tokens)
        if clash is not None:
            raise PuzzleError(
                f'vertices {clash[0] + 1} and {clash[1] + 1} are joined and have one colour.'
            )

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """The same graph, every vertex coloured, given colours kept, no edge within a colour."""
        is_open = question == self.OPEN
        kept = (question[~is_open] == answer[~is_open]).all()
        coloured = (answer[is_open] >= self.FIRST_COLOUR).all()
        return bool(kept and coloured and self._clash(answer) is None)

    def difficulty(self, question: np.ndarray) -> int:
        """Vertices without a colour."""
        return int((question == self.OPEN).sum())

    def count_solutions(
        self, question: np.ndarray, limit: int = 2, max_nodes: int | None = None
    ) -> int | None:
        """Counts colourings vertex by vertex, the one with the fewest colours left first."""
        if not self.side:
            return None
        joined = np.reshape(question, self.shape) == self.JOINED
        neighbours = [np.flatnonzero(row).tolist() for row in joined]
        every = range(self.FIRST_COLOUR, self.vocab_size)
        given = np.diag(np.reshape(question, self.shape)).tolist()
        if self._clash(question) is not None:
            return 0
        found = nodes = 0
        stack = [tuple(0 if colour == self.OPEN else colour for colour in given)]
        while stack and found < limit:
            colours, nodes = stack.pop(), nodes + 1
            if max_nodes is not None and nodes > max_nodes:
                return None
            left = {
                vertex: set(every) - {colours[other] for other in neighbours[vertex]}
                for vertex, colour in enumerate(colours)
                if not colour
            }
            if not left:
                found += 1
                continue
            vertex = min(left, key=lambda one: len(left[one]))
            stack += [(*colours[:vertex], c, *colours[vertex + 1 :]) for c in sorted(left[vertex])]
        return found

    def _clash(self, tokens: np.ndarray) -> tuple[int, int] | None:
        """Two joined vertices of one colour."""
        board = np.reshape(tokens, self.shape)
        colours = np.diag(board)
        same = (colours[:, None] == colours[None]) & (colours >= self.FIRST_COLOUR)[:, None]
        found = np.argwhere(same & (board == self.JOINED) & ~np.eye(self.side, dtype=bool))
        return (int(found[0][0]), int(found[0][1])) if len(found) else None
