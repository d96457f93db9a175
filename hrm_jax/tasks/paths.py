"""Tasks whose answer is a path on a board: mazes, and the boards of krychu/hrm."""

import collections
import math
from typing import Any, ClassVar

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import grid_search
from hrm_jax.tasks.base import Board


class PathTask(Board):
    """A board on which a path leads from a start to an end.

    Attributes:
      FLOOR, WALL, START, END, PATH: tokens.
    """

    FLOOR: ClassVar[int]
    WALL: ClassVar[int]
    START: ClassVar[int]
    END: ClassVar[int]
    PATH: ClassVar[int]
    symmetries = 'dihedral'
    judged = ('valid_path', 'shortest_path')
    difficulty_name = 'path_length'

    def _token(self, word: str, cell: int) -> int:
        known = {
            self.symbols[token]: token for token in (self.FLOOR, self.WALL, self.START, self.END)
        } | dict(self.aliases)
        if word in known:
            return known[word]
        wanted = ' '.join(repr(char) for char in known)
        raise PuzzleError(f'{self.where(cell)} must be one of {wanted}; got {word!r}.')

    def check_question(self, tokens: np.ndarray) -> None:
        for token in (self.START, self.END):
            found = np.flatnonzero(tokens == token)
            places = '; '.join(self.where(int(cell)) for cell in found) or 'none'
            PuzzleError.require(
                len(found) == 1, f'there must be one {self.symbol(token)}; got {places}.'
            )

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Nothing but floor has become path, and it leads from start to end."""
        changed = question != answer
        if (answer[changed] != self.PATH).any() or (question[changed] != self.FLOOR).any():
            return False
        side = self.side
        reached = collections.deque(np.flatnonzero(answer == self.START).tolist())
        seen = set(reached)
        while reached:
            r, c = divmod(reached.popleft(), side)
            for i, j in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                cell = i * side + j
                if not (0 <= i < side and 0 <= j < side) or cell in seen:
                    continue
                if answer[cell] == self.END:
                    return True
                if answer[cell] == self.PATH:
                    seen.add(cell)
                    reached.append(cell)
        return False

    def judge(self, question: np.ndarray, answer: np.ndarray) -> dict[str, bool]:
        """A valid path may have needless marks; of a shortest one no mark can be left out."""
        valid = bool(self.is_valid(question, answer))
        # A path leads to the end over at least ``difficulty - 1`` cells, so no more marks than
        # that are one shortest path and nothing beside it.
        shortest = valid and int((answer == self.PATH).sum()) == self.difficulty(question) - 1
        return {'valid_path': valid, 'shortest_path': shortest}

    def difficulty(self, question: np.ndarray) -> int:
        """Moves of a shortest path from start to end; -1 where there is none."""
        open_S, start, end = self._opened(question)
        return grid_search.distances(open_S, start, self.side).get(end, -1)

    def count_shortest_paths(self, question: np.ndarray) -> int:
        """Returns how many shortest paths lead from start to end; 0: none does."""
        return grid_search.count_shortest(*self._opened(question), self.side)

    def _opened(self, question: np.ndarray) -> tuple[np.ndarray, int, int]:
        """Cells that a path may enter, bool [seq_len]; start; end."""
        self.check_question(question)
        open_S = np.isin(question, (self.FLOOR, self.START, self.END))
        start, end = ((question == token).argmax() for token in (self.START, self.END))
        return open_S, int(start), int(end)


class Maze(PathTask):
    """Mazes: ``#`` wall, space (or ``.``) floor, ``S`` start, ``G`` goal, ``o`` path; 0 padding."""

    name = 'maze'
    summary = 'mazes and shortest paths'
    symbols = '?# SGo'
    aliases = {'.': 2}
    WALL, FLOOR, START, END, PATH = range(1, 6)
    blank = FLOOR
    colours = ('#dddddd', '#2b2f38', '#ffffff', '#2ecc40', '#e0483d', '#8fb4ff')

    @staticmethod
    def encode(maze: str) -> np.ndarray:
        """Turns the rows of a question or an answer into tokens, int32 [cells].

        Args:
          maze: rows separated by line ends, or all in one.

        Raises:
          PuzzleError: another character.
        """
        text = maze.replace('\n', '')
        known = Maze.symbols[1:]
        unknown = set(text) - set(known)
        PuzzleError.require(
            bool(text) and not unknown, f'a maze has the characters {known!r} only; got {unknown}.'
        )
        return np.array([known.index(char) + 1 for char in text], np.int32)

    @staticmethod
    def decode(tokens: Any, columns: int = 0) -> str:
        """Turns tokens into rows of characters; padding is ``?``. 0 columns: as many as rows."""
        tokens = np.asarray(tokens, np.int32).reshape(-1)
        columns = columns or math.isqrt(tokens.size)
        text = ''.join(Maze.symbols[token] for token in tokens)
        return '\n'.join(text[i : i + columns] for i in range(0, len(text), columns))


class PathFinding(PathTask):
    """Boards of krychu/hrm: ``.`` floor, ``#`` wall, ``S`` start, ``E`` end, ``*`` path."""

    name = 'pathfinding'
    summary = 'paths on random boards'
    symbols = '.#SE*'
    aliases = {' ': 0}
    FLOOR, WALL, START, END, PATH = range(5)
    blank = FLOOR
    colours = ('#ffffff', '#2b2f38', '#2ecc40', '#e0483d', '#8fb4ff')
