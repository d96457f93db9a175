"""Task: how the puzzles of a task are written, read and cropped; the base of every task."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import puzzle_text

# CSS colours of cells by what is known of them, in pages and pictures alike: the faces of given,
# answered and wrong cells, and the ink on each.
CELL_COLOURS = {
    'given': '#eceff4', 'given_ink': '#1d2430',
    'answered': '#ffffff', 'answered_ink': '#2f5fd0',
    'wrong': '#ebb4b4', 'wrong_ink': '#b00020',
    'unsure': '#7a3cff',  # none of the colours that a task has
}  # fmt: skip
# Name -> class; every subclass of ``Task`` that has a name.
TASKS: 'dict[str, type[Task]]' = {}


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of unknown meaning: puzzles are token ids, or words of a vocabulary.

    Attributes:
      seq_len: cells of a puzzle.
      vocab_size: tokens.
      pad_id: fills up puzzles that are smaller than ``seq_len``.
      vocabulary: token -> id, for tasks that have one.
      grid: rows and columns that the cells stand in; None: the task's class knows, or one row.
      row_marks: characters that separate rows, beside line breaks and ``/``.
      blanks: characters that all stand for an empty cell, stored as the first of them.
      words: cells are words separated by blanks, also where each is one character.
      pads_are_scored: padding of answers is learned, so that an answer shows its own size.
      name: as metadata and configurations spell it; also of the builder, data_builders/NAME.py.
      summary: what a data set of the task has, for the help of the builders.
      symbols: character of every token id, for boards.
      aliases: other characters that a question may have -> token.
      colours: CSS colour of every token id; empty: cells are coloured by what is known of them.
      blank: token of a cell that the question leaves open, or None.
      symmetries: kind of the maps that lead to an equal puzzle (data/augment.py).
      judged: what ``judge`` measures; empty: the rules are unknown.
      difficulty_name: what ``difficulty`` counts; empty: the task knows none.
      first_symbol: from this token on all tokens are interchangeable: renaming them leads to an
        equal puzzle (or to one of the same kind); None: they are not.
    """

    seq_len: int
    vocab_size: int
    pad_id: int = 0
    vocabulary: Mapping[str, int] = dataclasses.field(default_factory=dict)
    grid: tuple[int, int] | None = None
    row_marks: str = ''
    blanks: str = ''
    words: bool = False
    pads_are_scored: bool = False

    name: ClassVar[str] = ''
    summary: ClassVar[str] = ''
    symbols: ClassVar[str] = ''
    aliases: ClassVar[Mapping[str, int]] = {}
    colours: ClassVar[tuple[str, ...]] = ()
    blank: ClassVar[int | None] = None
    symmetries: ClassVar[str] = 'none'
    judged: ClassVar[tuple[str, ...]] = ()
    difficulty_name: ClassVar[str] = ''
    first_symbol: ClassVar[int | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name:
            TASKS[cls.name] = cls

    @property
    def side(self) -> int:
        """Rows of a square board; 0 where an example is not a square."""
        side = math.isqrt(self.seq_len)
        return side if side * side == self.seq_len else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a puzzle; one row where no grid is known."""
        if self.grid is not None:
            return self.grid
        return (self.side, self.side) if self.symbols and self.side else (1, self.seq_len)

    @property
    def drawn_shape(self) -> tuple[int, int]:
        """``shape``, but squares of ids without names are drawn as such."""
        if self.shape[0] == 1 and self.grid is None and not self.vocabulary and self.side:
            return self.side, self.side
        return self.shape

    @property
    def is_board(self) -> bool:
        """Whether a puzzle is a grid of cells, not a line of words."""
        return self.shape[0] > 1

    @property
    def boxes(self) -> tuple[int, int] | None:
        """Rows and columns of the boxes that a board is divided into, or None."""
        return None

    @property
    def has_rules(self) -> bool:
        """Whether the rules of the task are known."""
        return bool(self.judged)

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """Text of every token of the vocabulary but the padding."""
        return {token: word for word, token in self.vocabulary.items() if token != self.pad_id}

    @property
    def written(self) -> frozenset[str]:
        """Characters that stand for cells, or begin what does."""
        if self.symbols:
            return frozenset((*self.symbols[self.symbols.startswith('?') :], *self.aliases))
        return frozenset(self.blanks) | {word[0] for word in self.names.values() if word}

    @property
    def _has_words(self) -> bool:
        """Whether cells are words separated by blanks, not single characters."""
        return (
            self.words or not self.vocabulary or any(len(word) != 1 for word in self.names.values())
        )

    def symbol(self, token: int) -> str:
        """Returns what stands for a token on a board; '?' for an id outside the symbols."""
        if self.vocabulary:
            return '' if token == self.pad_id else self.names.get(token, '?')
        if not self.symbols:
            return str(token)
        return self.symbols[token] if 0 <= token < len(self.symbols) else '?'

    def where(self, cell: int) -> str:
        """Names a cell, counted from 1."""
        rows, columns = self.shape
        if rows == 1 and not (self.symbols and self.side):
            return f'cell {cell + 1}'
        return f'row {cell // columns + 1}, column {cell % columns + 1}'

    def parse(self, text: str) -> np.ndarray:
        """Reads one puzzle as people write it.

        Rows are lines, or separated by ``/``. Frames, commas, comment lines and a byte order mark
        around the cells are left out (puzzle_text.py).

        Returns:
          int32 [seq_len].

        Raises:
          PuzzleError: too few or many cells, an unknown character, or a question that breaks the
            rules; the first such cell is named.
        """
        rows, columns = self.shape
        tokens = np.full((rows, columns), self.pad_id, np.int32)
        for r, row in enumerate(self._placed(self._rows(text))):
            for c, word in enumerate(row):
                tokens[r, c] = self._token(word, r * columns + c)
        self.check_question(tokens.reshape(-1))
        return tokens.reshape(-1)

    def tokens_of(self, puzzle: Any) -> np.ndarray:
        """Returns a puzzle as tokens, int32 [seq_len].

        Args:
          puzzle: text; token ids, [seq_len] or rows of a grid; or the same with characters.

        Raises:
          PuzzleError: it cannot be read, is too large, or has an id of no token.
        """
        if isinstance(puzzle, str):
            return self.parse(puzzle)
        cells = np.asarray(puzzle)
        if cells.dtype.kind == 'U':
            gap = ' ' if self._has_words and not self.symbols else ''
            return self.parse('\n'.join(gap.join(row) for row in np.atleast_2d(cells)))
        PuzzleError.require(
            cells.dtype.kind in 'iub' and cells.size > 0,
            f'a puzzle must be text or an array of token ids; got {cells.dtype} of shape '
            f'{cells.shape}.',
        )
        low, high = int(cells.min()), int(cells.max())
        PuzzleError.require(
            low >= 0 and high < self.vocab_size,
            f'token ids must be in 0..{self.vocab_size - 1}; got {low}..{high}.',
        )
        if cells.size == self.seq_len:
            return cells.reshape(-1).astype(np.int32)
        cells = np.atleast_2d(cells)
        rows, columns = self.shape
        PuzzleError.require(
            cells.ndim == 2 and cells.shape[0] <= rows and cells.shape[1] <= columns,
            f'a puzzle here must have at most {rows} rows of {columns} cells; got {cells.shape}.',
        )
        tokens = np.full(self.shape, self.pad_id, np.int32)
        tokens[: cells.shape[0], : cells.shape[1]] = cells
        return tokens.reshape(-1)

    def _rows(self, text: str) -> Sequence[Sequence[str]]:
        """Splits a text into rows of what stands for one cell each."""
        written = self.written
        listed = None if '[' in written else puzzle_text.nested(text)
        if listed is not None:
            return listed
        for mark in self.row_marks:
            text = text.replace(mark, '\n')
        rows = puzzle_text.rows_of(text.strip('\r\n'), written)
        if self._has_words or ' ' not in written:
            rows = [row.split() for row in rows]
        return rows if self._has_words else [''.join(row) for row in rows]

    def _placed(self, rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Checks rows of cells against the shape; a single row may be the whole board."""
        height, width = self.shape
        if height == 1:
            rows = [[word for row in rows for word in row]]
            PuzzleError.require(
                0 < len(rows[0]) <= width,
                f'a puzzle here must have 1 to {width} tokens; got {len(rows[0])}.',
            )
            return rows
        if len(rows) == 1 and len(rows[0]) == self.seq_len:
            return [rows[0][k : k + width] for k in range(0, self.seq_len, width)]
        got = f'got {len(rows)} row{"s" * (len(rows) != 1)} of {max(map(len, rows), default=0)}'
        PuzzleError.require(
            0 < len(rows) <= height and all(0 < len(row) <= width for row in rows),
            f'a puzzle here must have 1 to {height} rows of 1 to {width} cells; {got}.',
        )
        for number, row in enumerate(rows, 1):
            PuzzleError.require(
                len(row) == len(rows[0]),
                f'all rows of a puzzle must have one length; row 1 has {len(rows[0])} cells, row '
                f'{number} has {len(row)}.',
            )
        return rows

    def _token(self, word: str, cell: int) -> int:
        if len(word) == 1 and word in self.blanks:
            word = self.blanks[0]
        if word in self.vocabulary and self.vocabulary[word] != self.pad_id:
            return self.vocabulary[word]
        if not self.vocabulary and word.isdecimal() and int(word) < self.vocab_size:
            return int(word)
        wanted = 'a token of vocab.json' if self.vocabulary else f'an id 0..{self.vocab_size - 1}'
        raise PuzzleError(f'{self.where(cell)} must be {wanted}; got {word!r}.')

    def check_question(self, tokens: np.ndarray) -> None:
        """Raises PuzzleError where a question breaks the rules of the task; names the cell."""

    def extent(self, tokens: np.ndarray) -> tuple[int, int]:
        """Returns the rows and columns up to the last cell that is not padding."""
        used = np.reshape(tokens, self.shape) != self.pad_id
        rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
        return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (0, 0)

    def finished(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Returns an answer without what a model writes where nothing was ever scored.

        Such cells become padding. Where padding is not scored, an answer has the size of its
        question, as nothing else states one.

        Args:
          question, answer: int [seq_len].
        """
        if self.pads_are_scored:
            return answer
        rows, columns = self.extent(question)
        kept = np.full(self.shape, self.pad_id, answer.dtype)
        kept[:rows, :columns] = np.reshape(answer, self.shape)[:rows, :columns]
        return kept.reshape(-1)

    def cells(self, tokens: np.ndarray) -> list[list[str]]:
        """Returns the rows of a board as symbols, without padding below and beside it."""
        rows, columns = self.extent(tokens)
        used = np.reshape(tokens, self.shape)[:rows, :columns]
        return [[self.symbol(int(token)) or '?' for token in row] for row in used]

    def text(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Writes tokens in one line, as ``parse`` reads them, without padding."""
        if self.symbols:
            return ''.join(self.symbol(int(token)) for token in tokens)
        gap = ' ' if self._has_words else ''
        rows = self.cells(np.asarray(tokens))
        if self.shape[0] == 1:
            words = [self.symbol(int(token)) for token in tokens if token != self.pad_id]
            return gap.join(words)
        return self.row_mark.join(gap.join(row) for row in rows)

    @property
    def row_mark(self) -> str:
        """What separates rows in one line; ``\\n`` where nothing else can."""
        if self.row_marks:
            return self.row_marks[0]
        return '\\n' if '/' in self.written else '/'

    def count_solutions(
        self, question: np.ndarray, limit: int = 2, max_nodes: int | None = None
    ) -> int | None:
        """Returns how many solutions a question has, or None where it is unknown.

        Args:
          question: int [seq_len].
          limit: at which to stop counting.
          max_nodes: boards that a search may look at; None: any number.
        """
        return None

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Whether an answer obeys the rules of the task; None where those are unknown."""
        return None

    @property
    def takes_guesses(self) -> bool:
        """Whether symbols of an attempt can be made givens of a question (``undisputed``)."""
        return False

    def undisputed(self, question: np.ndarray, attempt: np.ndarray) -> np.ndarray:
        """Open cells of a question whose symbol in an attempt contradicts no other: bool [S].

        Filled in, all or some of them, they make a question that breaks no rule at sight.
        """
        return np.zeros(question.shape, bool)

    def judge(self, question: np.ndarray, answer: np.ndarray) -> dict[str, bool]:
        """Judges an answer by the rules alone, whatever the label is.

        Args:
          question, answer: int [seq_len].

        Returns:
          A value for every name in ``judged``.
        """
        return {name: bool(self.is_valid(question, answer)) for name in self.judged}

    def difficulty(self, question: np.ndarray) -> int:
        """Returns the number that ``difficulty_name`` names, of a question, int [seq_len]."""
        raise NotImplementedError(f'the task {self.name!r} has no difficulty_name.')


class Board(Task):
    """A square board with one character per cell."""

    def with_side(self, side: int) -> 'Board':
        """The same task on boards of ``side`` rows.

        Raises:
          PuzzleError: there are no such boards.
        """
        PuzzleError.require(side > 1, f'a board must have 2 rows or more; got {side}.')
        return dataclasses.replace(self, seq_len=side * side)

    def extent(self, tokens: np.ndarray) -> tuple[int, int]:
        return self.shape  # every cell counts

    def _rows(self, text: str) -> list[Sequence[str]]:
        listed = puzzle_text.nested(text)
        cells = self._cells(text) if listed is None else [c for row in listed for c in row]
        if len(cells) != self.seq_len:
            for cell, char in enumerate(cells[: self.seq_len]):
                self._token(char, cell)  # a wrong character is clearer than a wrong number
            where = (
                f'The first one missing is {self.where(len(cells))}.'
                if len(cells) < self.seq_len
                else f'Nothing may follow {self.where(self.seq_len - 1)}.'
            )
            raise PuzzleError(
                f'a {self.name} puzzle here must have {self.seq_len} cells '
                f'({self.side} x {self.side}); got {len(cells)}. {where}'
            )
        return [cells]

    def _cells(self, text: str) -> Sequence[str]:
        fields = puzzle_text.fields(text, self.side, self.written)
        if fields is not None:
            return [field or ' ' for field in fields]
        rows = puzzle_text.rows_of(text, self.written)
        return ''.join(puzzle_text.spread_rows(rows, self.side) or rows)
