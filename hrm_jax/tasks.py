"""The tasks: what their tokens mean, how people write them, their rules, symmetries and colours.

One class per task, the only definition of it: builders, loader, scoring, solver, pages and
converters read it from here. A new task is a subclass of ``Task`` in ``TASKS`` (and a builder). No
JAX, so that data sets can be built on machines without it.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from hrm_jax.errors import PuzzleError


def box_shape(size: int) -> tuple[int, int]:
    """Rows and columns of a box of a ``size`` x ``size`` Sudoku: 4 -> 2x2, 6 -> 2x3, 9 -> 3x3."""
    rows = math.isqrt(size)
    while size % rows:
        rows -= 1
    return rows, size // rows


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of unknown meaning: puzzles are token ids, or words of a vocabulary.

    Attributes:
      seq_len: cells of a puzzle.
      vocab_size: tokens.
      pad_id: fills up texts that are shorter than ``seq_len``.
      vocabulary: token -> id, for tasks that have one.
      name: as metadata and configurations spell it.
      symbols: character of every token id, for boards.
      aliases: other characters that a question may have -> token.
      colours: CSS colour of every token id; empty: cells are coloured by what is known of them.
      blank: token of a cell that the question leaves open, or None.
      symmetries: kind of the maps that lead to an equal puzzle (data/augment.py).
    """

    seq_len: int
    vocab_size: int
    pad_id: int = 0
    vocabulary: Mapping[str, int] = dataclasses.field(default_factory=dict)

    name: ClassVar[str] = ''
    symbols: ClassVar[str] = ''
    aliases: ClassVar[Mapping[str, int]] = {}
    colours: ClassVar[tuple[str, ...]] = ()
    blank: ClassVar[int | None] = None
    symmetries: ClassVar[str] = 'none'

    @property
    def side(self) -> int:
        """Rows of a square board; 0 where an example is not a square."""
        side = math.isqrt(self.seq_len)
        return side if side * side == self.seq_len else 0

    @property
    def is_board(self) -> bool:
        """Whether a puzzle is written with one character per cell."""
        return bool(self.symbols)

    @property
    def boxes(self) -> tuple[int, int] | None:
        """Rows and columns of the boxes that a board is divided into, or None."""
        return None

    def symbol(self, token: int) -> str:
        """Returns what stands for a token on a board; '?' for an id outside the symbols."""
        if not self.symbols:
            return str(token)
        return self.symbols[token] if 0 <= token < len(self.symbols) else '?'

    def where(self, cell: int) -> str:
        """Names a cell, counted from 1."""
        if not self.side:
            return f'cell {cell + 1}'
        return f'row {cell // self.side + 1}, column {cell % self.side + 1}'

    def parse(self, text: str) -> np.ndarray:
        """Reads one puzzle, in one line or (boards) in one line per row.

        Returns:
          int32 [seq_len].

        Raises:
          PuzzleError: too few or many cells, an unknown character, or a question that breaks the
            rules; the first such cell is named.
        """
        words = self._words(text)
        tokens = [self._token(word, cell) for cell, word in enumerate(words)]
        tokens += [self.pad_id] * (self.seq_len - len(tokens))
        result = np.array(tokens, np.int32)
        self.check_question(result)
        return result

    def _words(self, text: str) -> Sequence[str]:
        """Splits a text into what stands for one cell each."""
        if not self.is_board:
            words = text.split()
            PuzzleError.require(
                0 < len(words) <= self.seq_len,
                f'a puzzle here must have 1 to {self.seq_len} tokens; got {len(words)}.',
            )
            return words
        cells = self._cells(text)
        if len(cells) != self.seq_len:
            for cell, char in enumerate(cells[: self.seq_len]):
                self._token(char, cell)  # a wrong character says more than a wrong number
            where = (
                f'The first one missing is {self.where(len(cells))}.'
                if len(cells) < self.seq_len
                else f'Nothing may follow {self.where(self.seq_len - 1)}.'
            )
            raise PuzzleError(
                f'a {self.name} puzzle here must have {self.seq_len} cells '
                f'({self.side} x {self.side}); got {len(cells)}. {where}'
            )
        return cells

    def _cells(self, text: str) -> str:
        return ''.join(text.strip('\r\n').splitlines())

    def _token(self, word: str, cell: int) -> int:
        if word in self.vocabulary:
            return self.vocabulary[word]
        if not self.vocabulary and word.isdecimal() and int(word) < self.vocab_size:
            return int(word)
        wanted = 'a token of vocab.json' if self.vocabulary else f'an id 0..{self.vocab_size - 1}'
        raise PuzzleError(f'{self.where(cell)} must be {wanted}; got {word!r}.')

    def check_question(self, tokens: np.ndarray) -> None:
        """Raises PuzzleError where a question breaks the rules of the task; names the cell."""

    def text(self, tokens: Sequence[int]) -> str:
        """Writes tokens in one line, as ``parse`` reads them."""
        if self.is_board:
            return ''.join(self.symbol(int(token)) for token in tokens)
        names = {token: word for word, token in self.vocabulary.items()}
        return ' '.join(names.get(int(t), str(int(t))) for t in tokens if t != self.pad_id)

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Whether an answer obeys the rules of the task; None where those are unknown."""
        return None


class Sudoku(Task):
    """Sudoku of any size: token 0 is padding, 1 an empty cell, digit d is d + 1.

    Digits above 9 are written as letters. ``.``, 0 and ``_`` are empty cells.
    """

    name = 'sudoku'
    symbols = '?.123456789ABCDEFGHIJKLMNOP'
    aliases = {'0': 1, '_': 1}
    blank = 1
    symmetries = 'sudoku'

    @property
    def boxes(self) -> tuple[int, int] | None:
        return box_shape(self.side) if self.side else None

    def _cells(self, text: str) -> str:
        return ''.join(text.split())

    def _token(self, word: str, cell: int) -> int:
        digits = self.vocab_size - 2
        token = self.aliases.get(word, self.symbols.find(word))
        if 1 <= token <= digits + 1:
            return token
        highest = self.symbols[digits + 1]
        raise PuzzleError(
            f"{self.where(cell)} must be a digit 1..{highest}, or '.' or 0 for an empty cell; "
            f'got {word!r}.'
        )

    def check_question(self, tokens: np.ndarray) -> None:
        clash = self._clash(tokens)
        if clash is not None:
            cell, other, unit = clash
            raise PuzzleError(
                f'{self.where(cell)} must differ from {self.where(other)} in its {unit}; both are '
                f'{self.symbol(int(tokens[cell]))}.'
            )

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Complete, the givens kept, and no digit twice in a row, column or box."""
        kept = (question == self.blank) | (question == answer)
        return bool(kept.all() and answer.min() > 1 and self._clash(answer) is None)

    def _clash(self, tokens: np.ndarray) -> tuple[int, int, str] | None:
        """The first cell whose digit stands twice in a unit, the other cell, and the unit."""
        side, units = self.side, self.units(self.side)
        in_units = np.sort(tokens[units], axis=1)
        if not ((in_units[:, 1:] == in_units[:, :-1]) & (in_units[:, 1:] > self.blank)).any():
            return None
        rows, columns = box_shape(side)
        for cell, token in enumerate(tokens):
            r, c = divmod(cell, side)
            for other in np.flatnonzero(tokens[:cell] == token) if token > self.blank else ():
                i, j = divmod(int(other), side)
                shared = {
                    'row': r == i,
                    'column': c == j,
                    'box': (r // rows, c // columns) == (i // rows, j // columns),
                }
                for unit in shared:
                    if shared[unit]:
                        return cell, int(other), unit
        return None

    @staticmethod
    @functools.cache
    def units(side: int) -> np.ndarray:
        """Returns int [3 side, side]: the cells of every row, then column, then box."""
        rows, columns = box_shape(side)
        i, j = np.divmod(np.arange(side * side), side)
        kinds = (i, j, i // rows * rows + j // columns)
        return np.array([np.flatnonzero(kind == u) for kind in kinds for u in range(side)])

    @staticmethod
    def encode(board: Any) -> np.ndarray:
        """Turns a Sudoku into tokens, int32 [cells].

        Args:
          board: digits with 0 for empty cells, as an array of any shape, nested lists, or text as
            ``parse`` reads it.

        Raises:
          PuzzleError: a cell is not a digit.
        """
        if isinstance(board, str):
            cells = ''.join(board.split())
            return Sudoku(len(cells), len(Sudoku.symbols))._encoded(cells)
        digits = np.asarray(board)
        PuzzleError.require(
            digits.dtype.kind in 'iu' and digits.size > 0 and digits.min() >= 0
            and digits.max() < len(Sudoku.symbols) - 1,
            f'a Sudoku has whole numbers from 0 (empty) to {len(Sudoku.symbols) - 2}.',
        )  # fmt: skip
        return digits.reshape(-1).astype(np.int32) + 1

    def _encoded(self, cells: str) -> np.ndarray:
        PuzzleError.require(bool(cells), 'a Sudoku has digits and dots; got nothing.')
        return np.array([self._token(char, cell) for cell, char in enumerate(cells)], np.int32)

    @staticmethod
    def decode(tokens: Any) -> np.ndarray:
        """Turns tokens into digits, int32 [side, side]; empty cells are 0, padding is -1."""
        cells = np.asarray(tokens, np.int32).reshape(-1) - 1
        side = math.isqrt(cells.size)
        return cells.reshape(side, side)


class _PathTask(Task):
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


class Maze(_PathTask):
    """Mazes: ``#`` wall, space (or ``.``) floor, ``S`` start, ``G`` goal, ``o`` path; 0 padding."""

    name = 'maze'
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


class PathFinding(_PathTask):
    """Boards of krychu/hrm: ``.`` floor, ``#`` wall, ``S`` start, ``E`` end, ``*`` path."""

    name = 'pathfinding'
    symbols = '.#SE*'
    aliases = {' ': 0}
    FLOOR, WALL, START, END, PATH = range(5)
    blank = FLOOR
    colours = ('#ffffff', '#2b2f38', '#2ecc40', '#e0483d', '#8fb4ff')


class Arc(Task):
    """ARC grids on a canvas of 30 x 30: 0 padding, 1 end marker, colour c is token c + 2.

    The colours are those of ARC's own viewer.
    """

    name = 'arc'
    SIDE = 30
    COLOURS = 10
    PAD, END, FIRST_COLOUR = 0, 1, 2
    symmetries = 'arc'
    colours = (
        '#ffffff', '#f3f3f3', '#000000', '#0074d9', '#ff4136', '#2ecc40', '#ffdc00', '#aaaaaa',
        '#f012be', '#ff851b', '#7fdbff', '#870c25',
    )  # fmt: skip

    @staticmethod
    def encode(grid: Any) -> np.ndarray:
        """Turns a grid of colours 0 to 9 into tokens, int32 [900], in the upper left corner.

        Raises:
          PuzzleError: the grid is larger than 30 x 30, empty, or has another colour.
        """
        grid = np.asarray(grid)
        PuzzleError.require(
            grid.ndim == 2 and grid.size > 0 and max(grid.shape) <= Arc.SIDE,
            f'an ARC grid has 1 to 30 rows and columns; got {grid.shape}.',
        )
        PuzzleError.require(
            grid.dtype.kind in 'iu' and grid.min() >= 0 and grid.max() < Arc.COLOURS,
            'an ARC grid has the colours 0 to 9.',
        )
        rows, columns = grid.shape
        tokens = np.zeros((Arc.SIDE, Arc.SIDE), np.int32)
        tokens[:rows, :columns] = grid + Arc.FIRST_COLOUR
        tokens[rows : rows + 1, :columns] = Arc.END
        tokens[:rows, columns : columns + 1] = Arc.END
        return tokens.reshape(-1)

    @staticmethod
    def decode(tokens: Any) -> np.ndarray:
        """Turns tokens into the largest upper-left rectangle of colours, int32 [rows, columns]."""
        side, first = Arc.SIDE, Arc.FIRST_COLOUR
        square = np.asarray(tokens, np.int32).reshape(side, side)
        run = (square < first).argmax(1) + side * (square >= first).all(1)
        widths = np.minimum.accumulate(run)
        rows = int((widths * np.arange(1, side + 1)).argmax()) + 1
        return square[:rows, : widths[rows - 1]] - first


class Lisp(Task):
    """Lisp expressions to simplify: words of a vocabulary, separated by blanks."""

    name = 'lisp'


TASKS: dict[str, type[Task]] = {task.name: task for task in (Sudoku, Maze, PathFinding, Arc, Lisp)}


def kind_of(name: str) -> type[Task]:
    """Returns the class of a task; tasks of other names are plain ``Task``."""
    return TASKS.get(name, Task)


def guess(
    vocab_size: int, seq_len: int, has_vocabulary: bool, inputs: np.ndarray, labels: np.ndarray
) -> str:
    """Guesses the task of a folder whose metadata does not name it, from sizes and content.

    Args:
      vocab_size, seq_len: of the folder.
      has_vocabulary: whether there is a ``vocab.json``.
      inputs, labels: some examples, int [B, S].

    Returns:
      A name of ``TASKS``, or '' where nothing fits.
    """
    if has_vocabulary:
        return 'lisp'
    side = math.isqrt(seq_len)
    if side * side != seq_len or not len(inputs):
        return ''
    if (vocab_size, side) == (Arc.COLOURS + Arc.FIRST_COLOUR, Arc.SIDE):
        return 'arc'
    for kind in (Maze, PathFinding):
        ends = all(((inputs == token).sum(1) == 1).all() for token in (kind.START, kind.END))
        if vocab_size == len(kind.symbols) and ends:
            return kind.name
    # 4x4 Sudokus and mazes have the same sizes: what tells them apart is that every digit stands
    # as often in an answer as every other.
    digits = all(((labels == token).sum(1) == side).all() for token in range(2, side + 2))
    return 'sudoku' if vocab_size == side + 2 and side > 1 and digits else ''
